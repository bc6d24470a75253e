"""Keys by rank, for policies that compare more than the time of use."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final

from octavo.memory.policies.base import Key

#: What counts, then what decides between equals.
Rank = tuple[float, int]

_SLACK: Final = 32


class Ranking:
    """Keys with ranks, iterated from the lowest.

    A binary heap with late repair: to raise a rank is O(1), since the key's item in the heap may
    say too little until it comes up; to lower one, O(log n), leaves a dead item behind. Dead items
    are swept once they outnumber the living, so a dropped key is not held for long.
    """

    __slots__ = ("_heap", "_serial", "_state")

    def __init__(self) -> None:
        self._heap: list[tuple[Rank, int, Key]] = []
        self._state: dict[Key, tuple[Rank, int]] = {}  # rank, and the serial of its item
        self._serial = 0

    def set(self, key: Key, rank: Rank) -> None:
        known = self._state.get(key)
        if known is not None and rank >= known[0]:
            self._state[key] = (rank, known[1])
            return
        self._serial += 1
        self._state[key] = (rank, self._serial)
        heapq.heappush(self._heap, (rank, self._serial, key))
        self._sweep()

    def drop(self, key: Key) -> Rank | None:
        """The rank that ``key`` had; ``None`` where it was not in the ranking."""
        known = self._state.pop(key, None)
        self._sweep()
        return None if known is None else known[0]

    def rank(self, key: Key) -> Rank:
        return self._state[key][0]

    def __iter__(self) -> Iterator[Key]:
        """Best first through the heap: the first k keys cost O(k log k) once it is repaired."""
        self._repair()
        heap, state = self._heap, self._state
        frontier = [(*heap[0], 0)] if heap else []
        while frontier:
            rank, serial, key, place = heapq.heappop(frontier)
            if place >= 0:
                for below in range(2 * place + 1, min(2 * place + 3, len(heap))):
                    heapq.heappush(frontier, (*heap[below], below))
            known = state.get(key)
            if known is None or known[1] != serial:
                continue
            if known[0] != rank:
                heapq.heappush(frontier, (known[0], serial, key, -1))
                continue
            yield key

    def _repair(self) -> None:
        """Makes the top of the heap true."""
        heap = self._heap
        while heap:
            rank, serial, key = heap[0]
            known = self._state.get(key)
            if known is None or known[1] != serial:
                heapq.heappop(heap)
            elif known[0] != rank:
                heapq.heapreplace(heap, (known[0], serial, key))
            else:
                return

    def _sweep(self) -> None:
        if len(self._heap) <= 2 * len(self._state) + _SLACK:
            return
        self._heap = [(rank, serial, key) for key, (rank, serial) in self._state.items()]
        heapq.heapify(self._heap)

    def __contains__(self, key: object) -> bool:
        return key in self._state

    def __len__(self) -> int:
        return len(self._state)
