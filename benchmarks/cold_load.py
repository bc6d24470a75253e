"""How long a model takes from a cold disk to its first answer, and how near that is to the disk.

A checkpoint of 4 GB in bfloat16 in the shape of a 2 B Llama is written once. Then, in fresh
processes with all imports done and both loaders warmed up on a tiny checkpoint, and with the page
cache dropped for the files, a disk without its burst and memory that was lately in use:

- ``raw``: threads that read all bytes with O_DIRECT into the same few huge pages: the disk.
- ``octavo``: configuration, skeleton, all weights, then a forward of 16 tokens.
- ``transformers``: ``from_pretrained`` in bfloat16, then the same forward.
- ``octavo int8``: as ``octavo``, with linear layers quantized while they are read.

The order turns from round to round. Ratios are medians of ratios within a round, as the rate of
a shared disk drifts; resident memory is the peak of the process after imports.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

WAYS: Final = ("raw", "octavo", "transformers", "octavo int8")
TARGETS: Final = {"of_disk": 0.85, "int8_over_bf16": 1.2}
_TOKENS: Final = 16
_RAW_BLOCK: Final = 2 << 20
_RAW_THREADS: Final = 8
_RAW_MEMORY: Final = 8 << 20
_SHAPE: Final[Mapping[str, Any]] = {
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
    "max_position_embeddings": 8192,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("cold load")
    group.add_argument("--load-folder", type=Path, help="on the disk to measure; else temporary")
    group.add_argument("--load-rounds", type=int, default=5)


def run(options: argparse.Namespace) -> Mapping[str, object]:
    rounds = 1 if options.fast else int(options.load_rounds)
    with tempfile.TemporaryDirectory(dir=options.load_folder) as name:
        folder, tiny = Path(name) / "model", Path(name) / "tiny"
        _make(folder, layers=1 if options.fast else 16)
        _make(tiny, layers=1, hidden_size=768, intermediate_size=256, vocab_size=512)
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for number in range(rounds):
            for way in WAYS if number % 2 == 0 else reversed(WAYS):
                runs[way].append(_in_a_process(way, folder, tiny))
                print(f"{number + 1}/{rounds} {way:>13}: {_said(runs[way][-1])}")
        nbytes = sum(path.stat().st_size for path in _shards(folder))
    return {"rounds": rounds, "bytes": nbytes, "targets": TARGETS, **_report(runs)}


def _said(found: Mapping[str, float]) -> str:
    forward = f", forward {found['forward_s']:.2f} s" if "forward_s" in found else ""
    return f"{found['ready_s']:.2f} s{forward}, peak {found['peak_bytes'] / 1e9:.2f} GB"


def _report(runs: Mapping[str, list[dict[str, float]]]) -> dict[str, object]:
    ready = {way: [one["ready_s"] for one in runs[way]] for way in WAYS}
    first = {way: [one["ready_s"] + one.get("forward_s", 0) for one in runs[way]] for way in WAYS}
    ratios = {
        "of_disk": _ratio(ready["raw"], ready["octavo"]),
        "int8_of_disk": _ratio(ready["raw"], ready["octavo int8"]),
        "transformers_over_octavo_to_first_forward": _ratio(first["transformers"], first["octavo"]),
        "int8_over_bf16": _ratio(ready["octavo int8"], ready["octavo"]),
        "int8_over_bf16_to_first_forward": _ratio(first["octavo int8"], first["octavo"]),
    }
    for name, ratio in ratios.items():
        print(f"  {name}: {ratio}")
    medians = {
        way: {key: round(statistics.median(one[key] for one in found), 3) for key in found[0]}
        for way, found in runs.items()
    }
    return {"ratios": ratios, "medians": medians, "runs": runs}


def _ratio(upper: list[float], lower: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(upper, lower, strict=True)), 3)


def _make(folder: Path, *, layers: int, **other: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from benchmarks.checkpoints.common import save_random

    folder.mkdir()
    with torch.device("meta"):
        module = LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, **{**_SHAPE, **other}))
    save_random(module, folder)
    os.sync()


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _in_a_process(way: str, folder: Path, tiny: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.cold_load", way, str(folder), str(tiny)]
    # Threads of one computation wait for each other, so that other work on few cores counts
    # many times over; with one, first forwards can be compared.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{way} failed:\n{done.stderr[-4000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


# In the process that is measured.


def _measure(way: str, folder: Path, tiny: Path) -> dict[str, float]:
    import torch

    load = _LOADS[way]
    ids = torch.arange(_TOKENS)[None]
    with torch.inference_mode():
        module = load(tiny)
        if module is not None:
            module(input_ids=ids)
        del module
        settle(folder)
        drop_cached(folder)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        start = time.perf_counter()
        module = load(folder)
        ready = time.perf_counter()
        found = {"ready_s": ready - start}
        if module is not None:
            module(input_ids=ids)
            found["forward_s"] = time.perf_counter() - ready
    return {**found, "peak_bytes": _peak()}


def settle(folder: Path) -> None:
    """Brings disk and memory into the state that every way then begins from.

    Rented disks grant bursts after a rest: all bytes are read once, so that none is left. Memory
    of a virtual machine that was unused for some seconds has to be fetched from its host at the
    first touch, which can take longer than reading: it is touched, held meanwhile, and freed.
    """
    from octavo.memory.buffers import host_buffer

    nbytes = sum(path.stat().st_size for path in _shards(folder))
    touched = host_buffer(nbytes * 5 // 4)
    touched.fill_(1)
    read_direct(folder)
    touched.fill_(2)


def drop_cached(folder: Path) -> None:
    """Has the system forget what it holds of the weights."""
    for path in _shards(folder):
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def _peak() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def read_direct(folder: Path) -> None:
    from octavo.memory.buffers import host_buffer, memory_of

    own = threading.local()

    def read(fd: int, offset: int) -> int:
        if not hasattr(own, "memory"):
            # In huge pages, as a load has them: into small ones this disk gives a third.
            own.memory = memory_of(host_buffer(_RAW_MEMORY))[:_RAW_BLOCK]
        return os.preadv(fd, [own.memory], offset)

    fds = {path: os.open(path, os.O_RDONLY | os.O_DIRECT) for path in _shards(folder)}
    with ThreadPoolExecutor(_RAW_THREADS) as pool:
        for path, fd in fds.items():
            for offset in range(0, path.stat().st_size, _RAW_BLOCK):
                pool.submit(read, fd, offset)
    for fd in fds.values():
        os.close(fd)


def _octavo(folder: Path, precision: str | None = None) -> Any:
    from octavo.hardware.spec import Precision
    from octavo.models.checkpoint import Checkpoint
    from octavo.models.loading import Loader
    from octavo.models.registry import family_of

    checkpoint = Checkpoint.at(folder)
    family = family_of(checkpoint)
    spec = family.describe(checkpoint)
    module = family.build(checkpoint)
    sources = family.sources(checkpoint, module)
    wanted = Precision(precision) if precision else None
    with Loader(folder) as loader:
        loads = [
            loader.start(module, part, sources, precision=wanted, convert=family.convert)
            for part in spec.components
        ]
        for load in loads:
            load.wait()
    return module


def _int8(folder: Path) -> Any:
    return _octavo(folder, "int8")


def _transformers(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()


_LOADS: Final[Mapping[str, Callable[[Path], Any]]] = {
    "raw": read_direct,
    "octavo": _octavo,
    "transformers": _transformers,
    "octavo int8": _int8,
}


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))))
