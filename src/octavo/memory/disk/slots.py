"""Which extents of a slab are taken. Pure bookkeeping: no files, no locks."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection


class Slots:
    """Numbers from 0 up, handed out lowest first, so that the end of the file becomes free.

    Attributes:
        end: one past the highest number that is taken; 0 when none is.
    """

    def __init__(self, taken: Collection[int] = ()) -> None:
        self.end = max(taken, default=-1) + 1
        self._free = sorted(set(range(self.end)).difference(taken))

    def __len__(self) -> int:
        return self.end - len(self._free)

    def __contains__(self, slot: int) -> bool:
        return 0 <= slot < self.end and not self._is_free(slot)

    def take(self) -> int:
        """The lowest free number."""
        if self._free:
            return self._free.pop(0)
        self.end += 1
        return self.end - 1

    def claim(self, slot: int) -> None:
        """Takes this number, which must be free."""
        if slot in self:
            raise ValueError(f"slot {slot} is taken")
        if slot < self.end:
            del self._free[bisect_left(self._free, slot)]
        else:
            self._free.extend(range(self.end, slot))
            self.end = slot + 1

    def give(self, slot: int) -> None:
        """Frees a number that is taken."""
        if slot not in self:
            raise ValueError(f"slot {slot} is not taken")
        if slot < self.end - 1:
            insort(self._free, slot)
            return
        self.end -= 1
        while self._free and self._free[-1] == self.end - 1:
            self._free.pop()
            self.end -= 1

    def _is_free(self, slot: int) -> bool:
        found = bisect_left(self._free, slot)
        return found < len(self._free) and self._free[found] == slot
