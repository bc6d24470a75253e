"""A hit in the top tier, the cost of a value's way down and up, and the peak against the budget.

Rivals: a plain dict (the floor), a dict under a lock with an LRU order, as one writes it by hand.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from octavo.memory import MemoryManager

KEYS = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def run(options: argparse.Namespace) -> Mapping[str, object]:
    rounds = 3 if options.fast else 21
    hits = _hits(rounds)
    peak = _peaks(fast=options.fast)
    for name, micros in hits.items():
        print(f"{name:<34}{micros:8.2f} µs a hit")
    for row in peak:
        print(
            f"{row['level']:<12} budget {row['budget_mb']:7.1f} MB, ledger's peak "
            f"{row['ledger_peak_mb']:7.1f}, measured {row['measured_mb']:7.1f}"
        )
    return {"hit_us": hits, "peak": peak}


def _fill_below(memory: MemoryManager, keys: list[tuple[str, int]]) -> None:
    """Values in the host tier, that the learned order might bring up."""
    for number in range(1000):
        memory["below", number] = torch.ones(1024)
    for key in keys:
        memory[key]


class _Locked:
    """An LRU dict under a lock, as one writes it by hand."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: OrderedDict[object, torch.Tensor] = OrderedDict()

    def __setitem__(self, key: object, value: torch.Tensor) -> None:
        with self._lock:
            self._values[key] = value

    def __getitem__(self, key: object) -> torch.Tensor:
        with self._lock:
            self._values.move_to_end(key)
            return self._values[key]


def _hits(rounds: int) -> dict[str, float]:
    """Microseconds a hit: the median over rounds, all mappings in turn in each round."""
    keys = [("vision", number) for number in range(KEYS)]
    levels = {
        level: MemoryManager(device="1GB", on="cpu", level=level)
        for level in ("minimal", "balanced", "aggressive")
    }
    ordered = MemoryManager(device="1GB", on="cpu", level="minimal")
    ordered.schedule(keys, cyclic=True)
    mappings: dict[str, Any] = {
        "dict": {},
        "LRU dict under a lock": _Locked(),
        **{f"octavo, {name}": manager for name, manager in levels.items()},
        "octavo, with a known order": ordered,
    }
    mappings["octavo, aggressive, with values below"] = MemoryManager(
        device="4MB", host="4MB", on="cpu", level="aggressive"
    )
    for mapping in mappings.values():
        for key in keys:
            mapping[key] = torch.ones(1024)
    _fill_below(mappings["octavo, aggressive, with values below"], keys)
    taken: dict[str, list[float]] = {name: [] for name in mappings}
    for _ in range(rounds):
        for name, mapping in mappings.items():
            taken[name].append(_time(mapping.__getitem__, keys))
    for mapping in mappings.values():
        if isinstance(mapping, MemoryManager):
            mapping.close()
    return {name: round(statistics.median(times), 3) for name, times in taken.items()}


def _time(get: Callable[[object], torch.Tensor], keys: list[tuple[str, int]]) -> float:
    repeats = 40
    start = time.perf_counter()
    for _ in range(repeats):
        for key in keys:
            get(key)
    return (time.perf_counter() - start) / (repeats * len(keys)) * 1e6


def _peaks(*, fast: bool) -> list[dict[str, Any]]:
    """Values of twice the budget through every tier, in a process of their own."""
    rows: list[dict[str, Any]] = []
    for level in ("minimal", "balanced", "aggressive"):
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.memory.store", level, folder, str(int(fast))],
                check=True,
                capture_output=True,
                text=True,
            )
        budget, ledger, measured = (float(word) for word in done.stdout.split())
        rows.append(
            {
                "level": level,
                "budget_mb": round(budget / 1e6, 1),
                "ledger_peak_mb": round(ledger / 1e6, 1),
                "measured_mb": round(measured / 1e6, 1),
            }
        )
    return rows


def _work(level: str, folder: str, *, fast: bool) -> None:
    """Prints the budget, the ledger's peak and the process's peak less its base, in bytes."""
    size, count = (4 << 20, 24) if fast else (16 << 20, 48)
    budget = size * count // 2
    made = torch.Generator().manual_seed(1)
    with MemoryManager(
        device=budget // 2,
        host=budget // 2,
        disk=(Path(folder), "20GB"),
        on="cpu",
        level=level,  # type: ignore[arg-type]
    ) as memory:
        memory["first"] = torch.empty(1 << 18).normal_(generator=made)
        memory.flush()
        base = _rss("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
        for number in range(count):
            tensor = memory.empty((size // 4,), torch.float32)
            tensor.normal_(generator=made)
            tensor[0] = number
            memory[number] = tensor
            del tensor
        for number in (*range(count), *range(count)):
            if float(memory[number].view(-1)[0]) != number:
                raise SystemExit("a value came back wrong")
        states = memory.stats().places
        ledger = states["device"].peak + states["host"].peak
    print(budget, ledger, _rss("VmHWM") - base)


def _rss(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"the system does not tell {name}")


if __name__ == "__main__":
    _work(sys.argv[1], sys.argv[2], fast=sys.argv[3] == "1")
