"""All slab files of a tier: which extents are free, and how much disk they still take.

Freed extents keep their disk blocks for a while: writing over them is twice as fast as into new
ones, and giving blocks back takes 0.2 ms a MiB.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from octavo.memory.disk.access import punch_hole
from octavo.memory.disk.slab import Slab

_SUFFIX: Final = ".slab"


def slab_path(folder: Path, size: int) -> Path:
    return folder / f"{size}{_SUFFIX}"


class Slabs:
    """The extents of every size class. Safe to use from many threads.

    Args:
        folder: of this process alone.
        direct: whether files are opened for direct I/O.
        punches: whether blocks can be given back before the end of a file.
        taken: the slots that hold values already, by size; everything else is removed.

    Attributes:
        idle_bytes: disk that free extents still take.
    """

    def __init__(
        self, folder: Path, *, direct: bool, punches: bool, taken: Mapping[int, set[int]]
    ) -> None:
        self._folder = folder
        self._direct = direct
        self._punches = punches
        self._lock = threading.Lock()
        self._trimming = threading.Lock()
        self._slabs: dict[int, Slab] = {}
        self.idle_bytes = 0
        try:
            for path in folder.glob(f"*{_SUFFIX}"):
                if path not in {slab_path(folder, size) for size in taken}:
                    path.unlink()
            for size, slots in taken.items():
                self._open(size, slots)
        except BaseException:
            self.close()
            raise

    def take(self, size: int, footprint: int) -> int:
        """A free slot, the lowest one, of which no more than ``footprint`` bytes take disk."""
        with self._lock:
            slab = self._slabs.get(size) or self._open(size, set())
            slot, stale = slab.take()
            self.idle_bytes -= stale
        if stale > footprint:
            punch_hole(slab.fd, slot * size + footprint, stale - footprint)
        return slot

    def give(self, size: int, slot: int, footprint: int) -> None:
        """Frees a slot. It may be taken again at once."""
        with self._lock:
            self._slabs[size].give(slot, footprint)
            self.idle_bytes += footprint

    @contextmanager
    def moving(self, size: int) -> Iterator[int]:
        """The descriptor to move bytes with; the file is not cut meanwhile."""
        with self._lock:
            slab = self._slabs[size]
            slab.moving += 1
        try:
            yield slab.fd
        finally:
            with self._lock:
                slab.moving -= 1

    def trim(self, most: int) -> None:
        """Gives blocks of free extents back until they are no more than ``most`` bytes."""
        # One at a time: a second one could find nothing to give back while all is on its way.
        with self._trimming:
            while self._punches and self.idle_bytes > most:
                if not self._punch_one():
                    break
            with self._lock:
                cut_idle = not self._punches and self.idle_bytes > most
                for slab in self._slabs.values():
                    self.idle_bytes -= slab.shrink(cut_idle=cut_idle)

    def close(self) -> None:
        with self._lock:
            for slab in self._slabs.values():
                slab.close()
            self._slabs.clear()
            self.idle_bytes = 0

    def _punch_one(self) -> bool:
        with self._lock:
            slab = max(self._slabs.values(), key=lambda slab: sum(slab.idle.values()), default=None)
            if slab is None or not slab.idle:
                return False
            slot, footprint = slab.claim_idle()
        done = False
        try:
            done = punch_hole(slab.fd, slot * slab.size, footprint)
        finally:
            with self._lock:
                slab.give(slot, 0 if done else footprint)
                self.idle_bytes -= footprint if done else 0
        return done

    def _open(self, size: int, taken: set[int]) -> Slab:
        slab = Slab(slab_path(self._folder, size), size, direct=self._direct, taken=taken)
        self._slabs[size] = slab
        return slab
