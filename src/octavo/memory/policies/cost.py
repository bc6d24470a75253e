"""Cost-aware: what a byte kept is worth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from octavo.memory.policies.base import Key, Policy
from octavo.memory.policies.ranking import Ranking


class CostAware(Policy):
    """The key whose bytes save the least goes first: uses x cost / bytes, with ageing.

    The worth of a key counts from the level of the last eviction at the time of its last use, so
    that a key with many uses long ago falls behind one with a few now. With equal costs it serves
    the number of hits and prefers small values. Between equals the one used last stays. A touch
    is O(1), an insertion O(log n).

    GreedyDual-Size with frequency: Cherkasova, "Improving WWW proxies performance with
    Greedy-Dual-Size-Frequency caching policy", HP Labs 1998; its bound without the frequency:
    Cao and Irani, USITS 1997.
    """

    name: ClassVar[str] = "cost"

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._ranking = Ranking()
        self._uses: dict[Key, tuple[int, float]] = {}  # uses, and worth of one
        self._level = 0.0
        self._tick = 0

    def insert(self, key: Key, nbytes: int, cost: float = 1.0) -> None:
        uses = self._uses[key][0] + 1 if key in self._uses else 1
        self._use(key, uses, cost / max(nbytes, 1))

    def touch(self, key: Key) -> None:
        uses, worth = self._uses[key]
        self._use(key, uses + 1, worth)

    def evict(self, key: Key) -> None:
        del self._uses[key]
        rank = self._ranking.drop(key)
        if rank is not None:
            self._level = max(self._level, rank[0])

    def remove(self, key: Key) -> None:
        self._uses.pop(key, None)
        self._ranking.drop(key)

    def victims(self) -> Iterator[Key]:
        return iter(self._ranking)

    def _use(self, key: Key, uses: int, worth: float) -> None:
        self._tick += 1
        self._uses[key] = (uses, worth)
        self._ranking.set(key, (self._level + uses * worth, self._tick))

    def __contains__(self, key: object) -> bool:
        return key in self._uses

    def __len__(self) -> int:
        return len(self._uses)
