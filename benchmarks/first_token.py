"""How soon a question in words is answered while a vision-language model is still being read.

A Qwen3-VL of 2 B parameters with random weights, fresh processes, imports done, disk and memory
brought into one state (``benchmarks.cold_load.settle``), page cache dropped; the time from
``octavo.load`` to the first token of an answer to a question in words:

- ``all``: everything is loaded first, as ``load`` does by default.
- ``at once``: ``wait=False``, the tower is read while the question is answered.
- ``lazy``: the tower is not read at all.
- ``transformers``: ``from_pretrained`` and ``generate`` of one token.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.cold_load import drop_cached, settle

WAYS: Final = ("all", "at once", "lazy", "transformers")
_OPTIONS: Final[Mapping[str, Mapping[str, Any]]] = {
    "all": {},
    "at once": {"wait": False},
    "lazy": {"lazy": ("vision", "projector")},
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--first-token-rounds", type=int, default=5)


def run(options: argparse.Namespace) -> Mapping[str, object]:
    from benchmarks.checkpoints import make

    rounds = 1 if options.fast else int(options.first_token_rounds)
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        folder = make("qwen3-vl", Path(name) / "model", "tiny" if options.fast else "2b")
        os.sync()
        nbytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        for number in range(rounds):
            for way in WAYS if number % 2 == 0 else reversed(WAYS):
                runs[way].append(_in_a_process(way, folder))
                print(f"{number + 1}/{rounds} {way:>13}: {runs[way][-1]['first_s']:.2f} s")
    medians = {way: statistics.median(one["first_s"] for one in runs[way]) for way in WAYS}
    ratios = {
        way: round(
            statistics.median(
                mine["first_s"] / whole["first_s"]
                for mine, whole in zip(runs[way], runs["all"], strict=True)
            ),
            3,
        )
        for way in WAYS
    }
    print(ratios)
    return {"rounds": rounds, "bytes": nbytes, "medians_s": medians, "over_all": ratios}


def _in_a_process(way: str, folder: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.first_token", way, str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{way} failed:\n{done.stderr[-4000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


# In the process that is measured.


def _measure(way: str, folder: Path) -> dict[str, float]:
    import torch
    import transformers.generation  # noqa: F401 - not part of what is measured
    from transformers import Qwen3VLForConditionalGeneration

    import octavo
    from octavo.requests import Request

    settle(folder)
    drop_cached(folder)
    start = time.perf_counter()
    if way == "transformers":
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        module = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16)
        ids = tokenizer("What is an invoice?", return_tensors="pt")
        module.eval().generate(**ids, max_new_tokens=1, do_sample=False)
        return {"first_s": time.perf_counter() - start}
    with octavo.load(str(folder), device="cpu", **_OPTIONS[way]) as model:
        next(model.generate([Request.of("What is an invoice?", max_new_tokens=1)]))
        first = time.perf_counter() - start
    return {"first_s": first}


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], Path(sys.argv[2]))))
