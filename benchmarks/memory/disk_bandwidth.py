"""How much of a bare loop's bandwidth the disk tier reaches.

The rival is the least that can be done: threads that call ``pwritev`` or ``preadv`` with O_DIRECT
on one open file, without checksums, in blocks of the same size, as many at once, over as many
bytes, from and into the same memory. Both write over disk blocks that are there already.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from octavo.memory.buffers import host_buffer, memory_of
from octavo.memory.disk import DiskTier, Extent, Tuning
from octavo.memory.ledger import Ledger

MIB = 1 << 20
TARGET = 0.85


def measure(
    folder: Path, tuning: Tuning, sizes: tuple[int, ...], total: int, rounds: int
) -> dict[str, object]:
    """Ratios by value size; the median of interleaved rounds."""
    print(
        f"\nbandwidth: {total // MIB} MiB, blocks of {tuning.block // MIB} MiB, {tuning.depth} deep"
    )
    measured: dict[str, object] = {
        "total_bytes": total,
        "block": tuning.block,
        "depth": tuning.depth,
        "rounds": rounds,
        "target": TARGET,
    }
    for size in sizes:
        measured[f"{size // MIB} MiB"] = _one_size(folder, tuning, size, total, rounds)
    return measured


def _one_size(
    folder: Path, tuning: Tuning, size: int, total: int, rounds: int
) -> Mapping[str, object]:
    rates: dict[str, list[float]] = {}
    with (
        Tier(folder, tuning, size, total) as tier,
        Bare(folder, min(tuning.block, size), tuning.depth, total, tier.values) as bare,
    ):
        for turn in range(rounds + 1):
            steps: list[tuple[str, Callable[[], None]]] = [
                ("bare write", bare.write),
                ("tier write", tier.write),
                ("bare read", bare.read),
                ("tier read", tier.read),
            ]
            for name, step in steps if turn % 2 else [steps[i] for i in (1, 0, 3, 2)]:
                start = time.perf_counter()
                step()
                # The first round makes the files.
                if turn:
                    rates.setdefault(name, []).append(total / (time.perf_counter() - start))
        direct = tier.tier.direct
    found = {name: statistics.median(values) for name, values in rates.items()}
    read, write = (_share(rates[f"tier {way}"], rates[f"bare {way}"]) for way in ("read", "write"))
    print(
        f"  values of {size // MIB:>3} MiB: read {found['tier read'] / 1e9:.2f} of "
        f"{found['bare read'] / 1e9:.2f} GB/s = {read:.0%}, write "
        f"{found['tier write'] / 1e9:.2f} of {found['bare write'] / 1e9:.2f} GB/s = {write:.0%}"
    )
    return {
        "read_ratio": round(read, 3),
        "write_ratio": round(write, 3),
        "direct": direct,
        "bytes_per_s": {name: round(rate) for name, rate in found.items()},
    }


def _filled(nbytes: int, seed: int) -> torch.Tensor:
    made = host_buffer(nbytes)
    made.random_(0, 256, generator=torch.Generator().manual_seed(seed))
    return made


class Bare:
    """Threads that move blocks of one file, and nothing else."""

    def __init__(
        self, folder: Path, block: int, depth: int, total: int, values: list[torch.Tensor]
    ) -> None:
        self._block, self._depth, self._total = block, depth, total
        self._path = folder / "bare"
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_DIRECT", 0)
        self._fd = os.open(self._path, flags, 0o600)
        self._views = [
            memory_of(value)[low : low + block]
            for value in values
            for low in range(0, value.numel(), block)
        ]
        self._pool = ThreadPoolExecutor(depth)

    def __enter__(self) -> Bare:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        os.close(self._fd)
        self._path.unlink()

    def write(self) -> None:
        self._all(os.pwritev)

    def read(self) -> None:
        self._all(os.preadv)

    def _all(self, move: Callable[[int, list[memoryview], int], int]) -> None:
        def work(number: int) -> None:
            step = self._block * self._depth
            for offset in range(number * self._block, self._total, step):
                view = self._views[offset // self._block % len(self._views)]
                if move(self._fd, [view], offset) != self._block:
                    raise OSError("a short read or write: measure on a disk with more room")

        list(self._pool.map(work, range(self._depth)))


def _share(ours: list[float], bare: list[float]) -> float:
    """The median of neighbours' ratios: a disk's rate drifts by more than what is looked for."""
    return statistics.median(one / other for one, other in zip(ours, bare, strict=True))


class Tier:
    """The tier, used by as many threads as keep the disk as busy as the bare loop does."""

    def __init__(self, folder: Path, tuning: Tuning, size: int, total: int) -> None:
        ledger = Ledger({"disk": 2 * total, "host": 64 * MIB})
        self.tier = DiskTier(folder, ledger, tuning=tuning)
        self._callers = max(1, min(tuning.depth, tuning.depth * tuning.block // size))
        self._count = total // size
        self.values = [_filled(size, seed) for seed in range(self._callers)]
        self._extents: list[Extent] = []
        self._pool = ThreadPoolExecutor(self._callers)

    def __enter__(self) -> Tier:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        self.tier.close()

    def write(self) -> None:
        for extent in self._extents:
            self.tier.free(extent)

        def work(caller: int) -> list[Extent]:
            return [
                self.tier.write(self.values[caller], kind="other", owner="benchmark")
                for _ in range(caller, self._count, self._callers)
            ]

        written = self._pool.map(work, range(self._callers))
        self._extents = [extent for extents in written for extent in extents]

    def read(self) -> None:
        def work(caller: int) -> None:
            for extent in self._extents[caller :: self._callers]:
                self.tier.read(extent, self.values[caller])

        list(self._pool.map(work, range(self._callers)))
