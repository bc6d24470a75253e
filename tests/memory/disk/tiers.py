"""Small disk tiers for tests, and what must hold when they are done."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from octavo.memory.buffers import host_buffer
from octavo.memory.disk import DiskTier, Extent, Tuning
from octavo.memory.ledger import Ledger

KIB = 1024
MIB = 1024 * KIB
#: Blocks so small that a megabyte is many of them.
SMALL = Tuning(64 * KIB, 4, True, 0.0, 0.0)


def ledger(disk: int = 256 * MIB, host: int = 64 * MIB) -> Ledger:
    return Ledger({"disk": disk, "host": host})


@contextmanager
def tier(
    folder: Path, books: Ledger | None = None, *, keep: bool = False, direct: bool | None = None
) -> Iterator[DiskTier]:
    """A tier of small blocks; afterwards no ledger byte, descriptor or scratch file is left."""
    books = books or ledger()
    descriptors = open_files()
    with DiskTier(folder, books, keep=keep, tuning=SMALL, direct=direct) as made:
        yield made
    assert books.holdings() == []
    assert open_files() == descriptors
    assert keep or list(folder.iterdir()) == []


def open_files() -> set[str]:
    return {os.readlink(f"/proc/self/fd/{fd}") for fd in _numbers()}


def _numbers() -> list[str]:
    names = os.listdir("/proc/self/fd")
    return [name for name in names if os.path.exists(f"/proc/self/fd/{name}")]


def value(nbytes: int, seed: int = 0) -> torch.Tensor:
    made = host_buffer(nbytes)
    if nbytes:
        made.random_(0, 256, generator=torch.Generator().manual_seed(seed))
    return made


def unaligned(data_b: torch.Tensor) -> torch.Tensor:
    """A copy that starts one byte after an allocation does."""
    made = torch.empty(data_b.numel() + 1, dtype=torch.uint8)[1:]
    made.copy_(data_b)
    return made


def put(made: DiskTier, data_b: torch.Tensor) -> Extent:
    return made.write(data_b, kind="features", owner="test")


def get(made: DiskTier, extent: Extent) -> torch.Tensor:
    out_b = host_buffer(extent.nbytes)
    made.read(extent, out_b)
    return out_b


def slab_of(folder: Path, extent: Extent) -> Path:
    (found,) = folder.glob(f"octavo-*/{extent.size}.slab")
    return found


def on_disk(folder: Path) -> int:
    """Bytes of the slab files under ``folder`` that are no holes."""
    return sum(map(_written, folder.glob("octavo-*/*.slab")))


def _written(path: Path) -> int:
    with path.open("rb") as file:
        fd, end, found = file.fileno(), path.stat().st_size, 0
        at = 0
        while at < end:
            try:
                start = os.lseek(fd, at, os.SEEK_DATA)
            except OSError:  # nothing but a hole up to the end
                break
            at = os.lseek(fd, start, os.SEEK_HOLE)
            found += at - start
        return found
