"""Belady's choice, for replay: it knows what comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from octavo.memory.policies.base import Key, Policy
from octavo.memory.policies.ranking import Ranking
from octavo.memory.trace import Access

#: The place of a use that never comes. Places are below 2**53, so a float holds them exactly.
NEVER = float("inf")


class Belady(Policy):
    """The key whose next read is farthest away goes first; with bypass, also one just read.

    With equal sizes and equal costs no policy has fewer misses on the same accesses: without
    bypass among those that must take in what they read (Belady 1966; Mattson et al. 1970, MIN),
    with bypass among all. A value that is overwritten or deleted before it is read again counts
    as never needed. With unequal sizes or costs the best choice is NP-hard (Chrobak et al. 2012);
    there this is a strong reference, and an online policy may beat it.

    It must be told where the accesses are: iterate over :meth:`follow` in place of them.

    Args:
        capacity: bytes of the tier.
        accesses: all of them, in order.
        bypass: whether a key just read may be left out, when all that would have to go for it
            are read sooner.
    """

    name: ClassVar[str] = "belady"

    def __init__(self, capacity: int, accesses: Sequence[Access], *, bypass: bool = True) -> None:
        super().__init__(capacity)
        self._accesses = accesses
        self._next = next_reads(accesses)
        self._bypass = bypass
        self._place = -1
        self._ranking = Ranking()
        self._sizes: dict[Key, int] = {}
        self._held = 0

    def follow(self) -> Iterator[Access]:
        """The accesses, one by one; the policy is at the one last given out."""
        for place, access in enumerate(self._accesses):
            self._place = place
            yield access

    def admits(self, key: Key, nbytes: int, cost: float = 1.0) -> bool:  # noqa: ARG002
        if not self._bypass:
            return True
        coming = self._next[self._place]
        short = self._held + nbytes - self.capacity
        for victim in self._ranking:
            if short <= 0:
                break
            if -self._ranking.rank(victim)[0] <= coming:
                return False
            short -= self._sizes[victim]
        return short <= 0

    def insert(self, key: Key, nbytes: int, cost: float = 1.0) -> None:  # noqa: ARG002
        self._held += nbytes - self._sizes.get(key, 0)
        self._sizes[key] = nbytes
        self.touch(key)

    def touch(self, key: Key) -> None:
        if key not in self._sizes:
            raise KeyError(key)
        self._ranking.set(key, (-self._next[self._place], self._place))

    def evict(self, key: Key) -> None:
        self._held -= self._sizes.pop(key)
        self._ranking.drop(key)

    def remove(self, key: Key) -> None:
        self._held -= self._sizes.pop(key, 0)
        self._ranking.drop(key)

    def victims(self) -> Iterator[Key]:
        return iter(self._ranking)

    def __contains__(self, key: object) -> bool:
        return key in self._sizes

    def __len__(self) -> int:
        return len(self._sizes)


def next_reads(accesses: Sequence[Access]) -> list[float]:
    """For each access, the place at which its value is read next, or ``NEVER``."""
    following: dict[str, float] = {}
    places = [NEVER] * len(accesses)
    for place in range(len(accesses) - 1, -1, -1):
        access = accesses[place]
        places[place] = following.get(access.key, NEVER)
        following[access.key] = place if access.op == "get" else NEVER
    return places
