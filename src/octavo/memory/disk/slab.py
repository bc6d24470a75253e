"""One file of extents of one size, and which of them are taken. Its owner holds the lock."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from octavo.memory.disk.access import open_file, punch_hole
from octavo.memory.disk.slots import Slots


class Slab:
    """A sparse file of equal extents.

    Args:
        path: made if it is not there.
        size: bytes of an extent.
        taken: extents that hold values already; all others are given back to the disk.

    Attributes:
        slots: which extents are taken.
        idle: disk bytes that free extents still take, by slot.
        moving: reads and writes under way in this file.
    """

    def __init__(self, path: Path, size: int, *, direct: bool, taken: Collection[int] = ()) -> None:
        self.size = size
        self.slots = Slots(taken)
        self.idle: dict[int, int] = {}
        self.moving = 0
        self._length = self.slots.end
        self.fd = open_file(path, direct=direct)
        try:
            if os.fstat(self.fd).st_size > self._length * size:
                os.ftruncate(self.fd, self._length * size)
        except BaseException:
            os.close(self.fd)
            raise
        for slot in range(self.slots.end):
            if slot not in self.slots:
                punch_hole(self.fd, slot * size, size)

    def take(self) -> tuple[int, int]:
        """A free slot, and the disk bytes that it takes already."""
        slot = self.slots.take()
        self._length = max(self._length, slot + 1)
        return slot, self.idle.pop(slot, 0)

    def give(self, slot: int, written: int) -> None:
        """Frees a slot of which ``written`` bytes take disk."""
        self.slots.give(slot)
        if written:
            self.idle[slot] = written

    def claim_idle(self) -> tuple[int, int]:
        """Takes the last idle slot, so that nobody else does; the slot and its disk bytes."""
        slot = max(self.idle)
        self.slots.claim(slot)
        return slot, self.idle.pop(slot)

    def shrink(self, *, cut_idle: bool) -> int:
        """Cuts the free end off the file; the idle bytes that this gave back.

        Cutting waits for what moves in the file, so nothing is done meanwhile. Blocks are given
        back as slowly as by punching: with ``cut_idle`` false idle slots stay.
        """
        end = self.slots.end
        if not cut_idle:
            end = max(end, max(self.idle, default=-1) + 1)
        if self.moving or self._length <= end:
            return 0
        os.ftruncate(self.fd, end * self.size)
        self._length = end
        return sum(self.idle.pop(slot) for slot in list(self.idle) if slot >= end)

    def close(self) -> None:
        os.close(self.fd)
