"""How high memory rises while a page at 200 dpi is read, with equal pixels and equal tokens.

An A4 page of 1654 x 2339 pixels goes through the tower and the prompt through the decoder, then
some tokens are written. Each way is a process of its own:

- ``octavo``: ``octavo.load`` and ``model.generate`` of the page: prepared, seen in chunks, prompt
  in chunks.
- ``rival``: the very tensors that Octavo's processor makes of the page, through transformers' own
  class and ``generate``. transformers has no class for dots.ocr: there it is the reference module
  with the whole page through the tower and the whole prompt through the decoder.

Before a page is measured, all weights are touched and a small picture is answered about; freed
memory is given back, and the kernel's high-water mark of the resident set is set anew. What counts
is what stands above that level: once until the first layer of the decoder begins (pixels, tower,
features), once from there on less the bytes of keys and values; the larger of both is the peak.
Preparing the page is part of it for ``octavo`` and not for ``rival``.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

#: A4 at 200 dots an inch: pixels wide and high.
PAGE: Final = (1654, 2339)
WORDS: Final = "Read the page and write down all that it says, in order."
WAYS: Final = ("rival", "octavo")
#: Beside the weights, for everything: the budget that Octavo is given.
ROOM: Final = 3 << 30


@dataclass(frozen=True, slots=True)
class Case:
    """A checkpoint of ``benchmarks.checkpoints``, a page, and how many tokens are written."""

    family: str
    shape: str
    page: tuple[int, int] = PAGE
    new: int = 8


CASES: Final = (Case("qwen3-vl", "0.5b"), Case("qwen3-vl", "1b"), Case("dots.ocr", "1b"))
_FAST: Final = (
    Case("qwen3-vl", "tiny", (320, 240)),
    Case("qwen2.5-vl", "tiny", (320, 240)),
    Case("dots.ocr", "tiny", (320, 240)),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("peak")
    group.add_argument("--peak-checkpoint", action="append", help="FAMILY/SHAPE, of them all")
    group.add_argument("--peak-page", help="WIDTHxHEIGHT in pixels in place of A4 at 200 dpi")
    group.add_argument("--peak-threads", type=int, default=os.cpu_count())


def run(options: argparse.Namespace) -> Mapping[str, object]:
    """Rows, and the least that was saved on any checkpoint."""
    from benchmarks.checkpoints import make

    found = []
    for case in _wanted(options):
        with tempfile.TemporaryDirectory() as name:
            folder = make(case.family, Path(name) / "model", case.shape)
            row = {way: _process(way, case, folder, options.peak_threads) for way in WAYS}
        found.append(_compared(case, row))
    return {"rows": found, "least_saved": min(row["saved"] for row in found)}


def _wanted(options: argparse.Namespace) -> list[Case]:
    cases = _FAST if options.fast else CASES
    page = options.peak_page and tuple(int(side) for side in options.peak_page.split("x"))
    names = options.peak_checkpoint
    return [
        Case(case.family, case.shape, page or case.page, case.new)
        for case in cases
        if not names or f"{case.family}/{case.shape}" in names
    ]


def _process(way: str, case: Case, folder: Path, threads: int) -> dict[str, Any]:
    asked = json.dumps({"way": way, "folder": str(folder), "case": asdict(case)})
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.peak", asked],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode:
        raise RuntimeError(f"{way} failed:\n{done.stderr[-4000:]}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _compared(case: Case, row: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    mine, theirs = row["octavo"], row["rival"]
    if mine["prompt_tokens"] != theirs["prompt_tokens"]:
        raise RuntimeError(f"prompts differ: {mine['prompt_tokens']}, {theirs['prompt_tokens']}")
    saved = 1 - mine["peak"] / theirs["peak"]
    same = sum(a == b for a, b in zip(mine["tokens"], theirs["tokens"], strict=False))
    print(
        f"{case.family}/{case.shape} {case.page[0]}x{case.page[1]}, {mine['prompt_tokens']} tokens:"
        f" {theirs['peak'] / 1e6:.0f} MB -> {mine['peak'] / 1e6:.0f} MB ({-saved:+.0%}),"
        f" {same}/{case.new} tokens the same,"
        f" {theirs['seconds']:.1f} s -> {mine['seconds']:.1f} s",
        flush=True,
    )
    return {
        "checkpoint": f"{case.family}/{case.shape}",
        "page": list(case.page),
        "rival": theirs,
        "octavo": mine,
        "saved": round(saved, 3),
        "same_tokens": mine["tokens"] == theirs["tokens"],
    }


# In the process that is measured.


def main() -> None:
    """``python -m benchmarks.peak JSON``: one way, in this process."""
    asked = json.loads(sys.argv[1])
    case = Case(**{**asked["case"], "page": tuple(asked["case"]["page"])})
    measure = _octavo if asked["way"] == "octavo" else _rival
    print(json.dumps(measure(case, Path(asked["folder"]))))


def _octavo(case: Case, folder: Path) -> dict[str, Any]:
    import octavo

    stored = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    with octavo.load(str(folder), device="cpu", memory=stored + ROOM) as model:

        def ask(wide: int, high: int, new: int) -> Any:
            return next(iter(model.generate([_request(wide, high, new)]))).check()

        ask(64, 64, 2)
        watch = _Watch(_first_layer(model.module))
        done = ask(*case.page, case.new)
        kv = _kv_bytes(model.module, done.usage.prompt_tokens + case.new)
        return watch.found(kv) | {
            "prompt_tokens": done.usage.prompt_tokens,
            "tokens": list(done.tokens),
        }


def _rival(case: Case, folder: Path) -> dict[str, Any]:
    import torch

    module = _module(case, folder)
    for parameter in module.parameters():
        parameter.data.flatten().view(torch.uint8)[::1024].sum()

    def ask(inputs: Mapping[str, Any], new: int) -> list[int]:
        prompt = inputs["input_ids"].shape[1]
        out_1t = module.generate(**inputs, max_new_tokens=new, do_sample=False)
        return [int(token) for token in out_1t[0, prompt:]]

    ask(_inputs(folder, 64, 64), 2)
    kept = folder / "page.pt"
    torch.save(_inputs(folder, *case.page), kept)
    watch = _Watch(_first_layer(module))
    inputs = torch.load(kept)
    tokens = ask(inputs, case.new)
    prompt = inputs["input_ids"].shape[1]
    kv = _kv_bytes(module, prompt + case.new)
    return watch.found(kv) | {"prompt_tokens": prompt, "tokens": tokens}


def _module(case: Case, folder: Path) -> Any:
    import torch

    if case.family != "dots.ocr":
        from transformers import AutoModelForImageTextToText

        dtype = torch.float32 if case.shape == "tiny" else torch.bfloat16
        return AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype).eval()
    from safetensors.torch import load_file

    from octavo.models.checkpoint import Checkpoint
    from octavo.models.registry import family_of

    checkpoint = Checkpoint.at(folder)
    family = family_of(checkpoint)
    module: Any = family.build(checkpoint)
    stored: dict[str, Any] = {}
    for path in folder.glob("*.safetensors"):
        stored |= load_file(path)
    sources = family.sources(checkpoint, module)
    filled = {name: family.convert(name, stored[source]) for name, source in sources.items()}
    module.load_state_dict(filled, strict=False, assign=True)
    return module


def _request(wide: int, high: int, new: int) -> Any:
    import numpy as np

    from octavo.requests import Part, Request

    drawn = np.random.default_rng(0).integers(0, 255, (high // 8 + 1, wide // 8 + 1, 3), np.uint8)
    page = np.ascontiguousarray(drawn.repeat(8, 0).repeat(8, 1)[:high, :wide])
    return Request.of(Part.image(page), WORDS, max_new_tokens=new)


def _inputs(folder: Path, wide: int, high: int) -> dict[str, Any]:
    """Tensors that Octavo's processor makes of a page."""
    from octavo.models.checkpoint import Checkpoint
    from octavo.models.registry import family_of

    checkpoint = Checkpoint.at(folder)
    processor = family_of(checkpoint).processor(checkpoint)
    arrays: Any = _Arrays()
    return dict(processor.prepare(_request(wide, high, 1), arrays).inputs)


class _Arrays:
    """Opens parts that hold arrays."""

    def picture(self, part: Any) -> Any:
        return part.value


def _first_layer(module: Any) -> Any:
    inner = module.model
    return getattr(inner, "language_model", inner).layers[0]


def _kv_bytes(module: Any, tokens: int) -> int:
    config = module.config.get_text_config()
    heads, layers = int(config.num_key_value_heads), int(config.num_hidden_layers)
    wide = int(
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    itemsize = int(next(module.parameters()).dtype.itemsize)
    return 2 * tokens * layers * heads * wide * itemsize


class _Watch:
    """High-water marks of the resident set, before the decoder begins and from there on."""

    def __init__(self, first_layer: Any) -> None:
        self._before: int | None = None
        self._hook = first_layer.register_forward_pre_hook(self._begins)
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        _reset()
        self._level = _status("VmRSS")
        self._start = time.perf_counter()

    def _begins(self, *_given: Any) -> None:
        if self._before is None:
            self._before = _status("VmHWM") - self._level
            _reset()

    def found(self, kv: int) -> dict[str, Any]:
        """What there was, less ``kv`` bytes of keys and values."""
        after = _status("VmHWM") - self._level
        seconds = time.perf_counter() - self._start
        self._hook.remove()
        if self._before is None:
            raise RuntimeError("the decoder never began")
        return {
            "level": self._level,
            "seeing": self._before,
            "decoding": after - kv,
            "kv": kv,
            "peak": max(self._before, after - kv),
            "peak_with_kv": max(self._before, after),
            "seconds": round(seconds, 2),
        }


def _reset() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


if __name__ == "__main__":
    main()
