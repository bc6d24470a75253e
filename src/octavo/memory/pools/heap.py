"""Which ranges of an address space are free. Pure bookkeeping, no memory.

Best fit with immediate coalescing. Over real programs' traces best fit and address-ordered first
fit waste least (Johnstone and Wilson, "The memory fragmentation problem: solved?", ISMM 1998);
few and large ranges make the sorted list cheaper than a tree.
"""

from __future__ import annotations

from bisect import bisect_left, insort


class Heap:
    """Free ranges of any number of regions; sizes and addresses are whole granules.

    Args:
        granule: every size is rounded up to it, and every address in a region whose base is a
            multiple of it is one too.
    """

    def __init__(self, granule: int) -> None:
        self.granule = granule
        self.free = 0
        self._by_size: list[tuple[int, int]] = []
        self._sizes: dict[int, int] = {}
        self._starts: dict[int, int] = {}

    @property
    def largest(self) -> int:
        """Bytes of the largest free range."""
        return self._by_size[-1][0] if self._by_size else 0

    def rounded(self, nbytes: int) -> int:
        return -(-nbytes // self.granule) * self.granule

    def take(self, nbytes: int) -> tuple[int, int] | None:
        """Start and size of a range of at least ``nbytes``, or None.

        The smallest free range that fits, of equal ones the lowest; what is over stays free.
        """
        size = self.rounded(nbytes)
        place = bisect_left(self._by_size, (size, 0))
        if place == len(self._by_size):
            return None
        found, start = self._by_size[place]
        self._remove(start, found)
        if found > size:
            self._insert(start + size, found - size)
        return start, size

    def give(self, start: int, size: int) -> None:
        """Frees a range, joined with its free neighbours."""
        before = self._starts.get(start)
        if before is not None:
            length = self._sizes[before]
            self._remove(before, length)
            start, size = before, size + length
        after = self._sizes.get(start + size)
        if after is not None:
            self._remove(start + size, after)
            size += after
        self._insert(start, size)

    def add(self, base: int, size: int) -> None:
        """A new region, all free. It must not touch another one, or the two would be joined."""
        self._insert(base, size)

    def is_idle(self, base: int, size: int) -> bool:
        """Whether a whole region is free."""
        return self._sizes.get(base) == size

    def remove(self, base: int, size: int) -> None:
        """Takes an idle region out."""
        self._remove(base, size)

    def clear(self) -> None:
        """Forgets all regions."""
        for table in (self._by_size, self._sizes, self._starts):
            table.clear()
        self.free = 0

    def _insert(self, start: int, size: int) -> None:
        insort(self._by_size, (size, start))
        self._sizes[start] = size
        self._starts[start + size] = start
        self.free += size

    def _remove(self, start: int, size: int) -> None:
        del self._by_size[bisect_left(self._by_size, (size, start))]
        del self._sizes[start]
        del self._starts[start + size]
        self.free -= size
