"""How much a matrix product is slowed by reads from the disk tier meanwhile.

The product is fp32, 2048 by 2048, on all cores. Rounds are interleaved: alone, beside the tier's
reads, beside buffered reads of the same bytes by ``numpy.fromfile``, one reading thread each.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch

from octavo.memory.buffers import host_buffer, memory_of
from octavo.memory.disk import DiskTier, Tuning
from octavo.memory.ledger import Ledger

MIB = 1 << 20
SIDE = 2048
VALUE = 64 * MIB
COUNT = 4
BLOCK = 4 * MIB
TARGET = 1.10
WAYS = ("alone", "bare loop", "tier", "numpy.fromfile")


def measure(folder: Path, tuning: Tuning, *, rounds: int, products: int) -> dict[str, object]:
    """Seconds of a product, alone and beside reads; medians."""
    print(f"\noverlap: product of {SIDE} by {SIDE}, {torch.get_num_threads()} threads")
    ledger = Ledger({"disk": 2 * COUNT * VALUE, "host": 64 * MIB})
    value_b = host_buffer(VALUE)
    value_b.random_(0, 256, generator=torch.Generator().manual_seed(0))
    path = folder / "buffered"
    value_b.numpy().tofile(path)
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    read_bytes = dict.fromkeys(WAYS, 0)
    with DiskTier(folder, ledger, tuning=tuning) as tier, _bare(path, value_b) as bare:
        extents = [tier.write(value_b, kind="other", owner="benchmark") for _ in range(COUNT)]
        read: dict[str, Callable[[int], object] | None] = {
            "alone": None,
            "bare loop": bare,
            "tier": lambda n: tier.read(extents[n % COUNT], value_b),
            "numpy.fromfile": lambda _: np.fromfile(path, np.uint8),
        }
        _products(products)
        for _ in range(rounds):
            for name, reading in read.items():
                found, count = _beside(reading, products)
                seconds[name] += found
                read_bytes[name] += count * VALUE
    with suppress(FileNotFoundError):
        path.unlink()
    return _report(seconds, read_bytes, rounds)


@contextmanager
def _bare(path: Path, value_b: torch.Tensor) -> Iterator[Callable[[int], object]]:
    """Direct reads into the same memory, a block at a time, on one thread, without checksums."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECT", 0))
    memory = memory_of(value_b)

    def read(_: int) -> None:
        for low in range(0, VALUE, BLOCK):
            os.preadv(fd, [memory[low : low + BLOCK]], low)

    try:
        yield read
    finally:
        os.close(fd)


def _beside(reading: Callable[[int], object] | None, products: int) -> tuple[list[float], int]:
    """Seconds of each product, and how many values were read meanwhile."""
    if reading is None:
        return _products(products), 0
    done, begun = threading.Event(), threading.Event()
    count = 0

    def read_on() -> None:
        nonlocal count
        while not done.is_set():
            reading(count)
            count += 1
            begun.set()

    reader = threading.Thread(target=read_on)
    reader.start()
    begun.wait()
    found = _products(products)
    done.set()
    reader.join()
    return found, count


def _products(count: int) -> list[float]:
    made = torch.Generator().manual_seed(1)
    a_nk = torch.randn(SIDE, SIDE, generator=made)
    b_km = torch.randn(SIDE, SIDE, generator=made)
    out_nm = torch.empty(SIDE, SIDE)
    found = []
    for _ in range(count):
        start = time.perf_counter()
        torch.mm(a_nk, b_km, out=out_nm)
        found.append(time.perf_counter() - start)
    return found


def _report(
    seconds: dict[str, list[float]], read_bytes: dict[str, int], rounds: int
) -> dict[str, object]:
    middle = {name: statistics.median(found) for name, found in seconds.items()}
    rate = {name: read_bytes[name] / sum(found) for name, found in seconds.items()}
    for name, found in middle.items():
        print(
            f"  {name:<16}{found * 1e3:.0f} ms a product, {found / middle['alone']:.2f} of alone, "
            f"reading {rate[name] / 1e9:.2f} GB/s"
        )
    return {
        "rounds": rounds,
        "target": TARGET,
        "threads": torch.get_num_threads(),
        "seconds": {name: round(found, 5) for name, found in middle.items()},
        "slowdown": {name: round(found / middle["alone"], 3) for name, found in middle.items()},
        "read_bytes_per_s": {name: round(found) for name, found in rate.items()},
    }
