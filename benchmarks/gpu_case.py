"""The process of one case: ``python -m benchmarks.gpu_case KIND``, its task as JSON on standard
input, what it found as the last line on standard output."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

Task = Mapping[str, Any]
Row = dict[str, Any]


def facts(task: Task) -> Row:
    """The device; raises where torch cannot use it."""
    import torch

    if not torch.cuda.is_available():
        build = "is built without CUDA" if torch.version.cuda is None else "sees no CUDA device"
        raise SystemExit(f"torch {torch.__version__} {build}")
    device = torch.device(task["device"])
    torch.zeros(1, device=device)
    found = torch.cuda.get_device_properties(device)
    return {
        "name": found.name,
        "total_bytes": found.total_memory,
        "capability": [found.major, found.minor],
        "processors": found.multi_processor_count,
        "cuda": torch.version.cuda,
        "driver": _driver(),
        "triton": _triton(),
    }


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.splitlines()[0].strip() if done.stdout.strip() else None


def _triton() -> str | None:
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return None


def check(task: Task) -> Row:
    """Every kernel beside float64: what is over 1 is wrong."""
    from tests.engine.triton_cases import comparisons

    from octavo.engine.triton_attention import available

    if not available(task["device"]):
        return {"note": "the kernels do not run on this device", "compared": {}}
    found: dict[str, float] = {}
    broken: dict[str, str] = {}
    for name, compare in comparisons().items():
        try:
            found[name] = round(compare(task["device"]), 4)
        # A kernel that does not compile must not hide the others.
        except Exception as error:  # noqa: BLE001
            broken[name] = f"{type(error).__name__}: {error}"[:300]
    wrong = [name for name, off in found.items() if not off < 1] + list(broken)
    row: Row = {"kernels": len(found) + len(broken), "largest": max(found.values(), default=None)}
    return {**row, "wrong": wrong, "broken": broken, "compared": found}


def decode(task: Task) -> Row:
    from benchmarks.gpu_kernels import decode_points

    return decode_points(task["device"], quick=task["quick"])


def prefill(task: Task) -> Row:
    from benchmarks.gpu_kernels import prefill_points

    return prefill_points(task["device"], quick=task["quick"])


def write(task: Task) -> Row:
    from benchmarks.gpu_models import write_checkpoint

    return write_checkpoint(task)


def model(task: Task) -> Row:
    from benchmarks.gpu_models import measured

    return measured(task)


def graph(task: Task) -> Row:
    from benchmarks.gpu_graph import decode_ways

    return decode_ways(task["device"], quick=task["quick"])


KINDS: Final[Mapping[str, Callable[[Task], Row]]] = {
    "facts": facts,
    "check": check,
    "decode": decode,
    "prefill": prefill,
    "write": write,
    "model": model,
    "graph": graph,
}


if __name__ == "__main__":
    print(json.dumps(KINDS[sys.argv[1]](json.loads(sys.stdin.read()))))
