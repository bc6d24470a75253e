"""Learned: who will be used last, judged by how soon values like it were used again."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import ClassVar, Final

from octavo.memory.policies.base import Key, Policy
from octavo.memory.prediction.reuse import Reuse

#: The order of keys is made anew after this share of them has changed, and at least so many.
_STALE_SHARE: Final = 16
_STALE_LEAST: Final = 8
#: Of more keys than this a random choice is ranked, so that no owner waits for long.
_RANKED: Final = 4096
#: Keys admitted and not yet inserted that are known as such: several threads may read at once.
_COMING: Final = 64


class Coming:
    """The keys last admitted, whose use was counted then and not again when they are inserted."""

    def __init__(self) -> None:
        self._keys: dict[Key, None] = {}

    def add(self, key: Key) -> None:
        self._keys[key] = None
        if len(self._keys) > _COMING:
            del self._keys[next(iter(self._keys))]

    def discard(self, key: Key) -> bool:
        """Whether ``key`` was among them; now it is not."""
        if key not in self._keys:
            return False
        del self._keys[key]
        return True


class Learned(Policy):
    """The key whose bytes bring the least goes first: expected uses again x cost / bytes.

    A key just read is left out when those that would have to go for it are worth more. On a
    cyclic scan every key's worth rises until its turn comes, so the newcomer is always worth
    least: what is in the tier stays, as in a pinned set.

    A touch is O(1). The order of keys is kept and made anew only when a sixteenth of them has
    changed, so a victim costs O(log n), amortized. Of many thousand keys only a random choice is
    ranked each time, as in LHD.

    Args:
        capacity: bytes of the tier.
        reuse: the estimate, where another policy has one of the same keys; its owner tells it of
            the uses. By default one of its own.
    """

    name: ClassVar[str] = "learned"

    def __init__(self, capacity: int, reuse: Reuse | None = None) -> None:
        super().__init__(capacity)
        self._observes = reuse is None
        self._reuse = Reuse() if reuse is None else reuse
        self._held: dict[Key, tuple[int, float]] = {}
        self._used = 0
        self._coming = Coming()
        self._order: list[Key] = []
        self._draw = Random(0)
        self._made = 0
        self._changes = 0

    def admits(self, key: Key, nbytes: int, cost: float = 1.0) -> bool:
        self._observe(key, nbytes, cost)
        admitted = self._worth_it(key, nbytes, cost)
        if admitted:
            self._coming.add(key)
        return admitted

    def insert(self, key: Key, nbytes: int, cost: float = 1.0) -> None:
        if not self._coming.discard(key):
            self._observe(key, nbytes, cost)
        self._used += nbytes - self._held.get(key, (0, 0.0))[0]
        self._held[key] = (nbytes, cost)
        self._changed()

    def touch(self, key: Key) -> None:
        if self._observes:
            nbytes, cost = self._held[key]
            self._reuse.observe(key, nbytes, cost)

    def evict(self, key: Key) -> None:
        self._used -= self._held.pop(key)[0]
        self._changed()

    def remove(self, key: Key) -> None:
        if key in self._held:
            self.evict(key)
        if self._observes:
            self._reuse.forget(key)
        self._coming.discard(key)

    def victims(self) -> Iterator[Key]:
        order = self._ranked()
        late: list[Key] = []
        listed = set()
        for place in range(len(order) - 1, -1, -1):
            key = order[place]
            if key not in self._held:
                continue
            listed.add(key)
            if self._reuse.last_use(key) > self._made:
                late.append(key)
            else:
                yield key
        late += [key for key in self._held if key not in listed]
        late.sort(key=self._worth)
        yield from late

    def _ranked(self) -> list[Key]:
        """The keys, who goes first last; those that went since are taken from the end."""
        stale = min(len(self._held), _RANKED) // _STALE_SHARE
        if self._changes >= max(stale, _STALE_LEAST):
            ranked = list(self._held)
            if len(ranked) > _RANKED:
                ranked = self._draw.sample(ranked, _RANKED)
            self._order = sorted(ranked, key=self._worth, reverse=True)
            self._made, self._changes = self._reuse.now, 0
        while self._order and self._order[-1] not in self._held:
            self._order.pop()
        return self._order

    def _worth_it(self, key: Key, nbytes: int, cost: float) -> bool:
        """Whether ``key`` brings at least what those bring that would have to go for it."""
        short = self._used + nbytes - self.capacity
        if short <= 0:
            return True
        left = cost * self._reuse.rate(key)
        for victim in self.victims():
            size, price = self._held[victim]
            left -= price * self._reuse.rate(victim)
            short -= size
            if left < 0 or short <= 0:
                break
        return left >= 0

    def _changed(self) -> None:
        self._changes += 1
        if self._observes:
            self._reuse.bound(len(self._held))

    def _worth(self, key: Key) -> float:
        nbytes, cost = self._held[key]
        return cost * self._reuse.rate(key) / max(nbytes, 1)

    def _observe(self, key: Key, nbytes: int, cost: float) -> None:
        if self._observes:
            self._reuse.observe(key, nbytes, cost)

    def __contains__(self, key: object) -> bool:
        return key in self._held

    def __len__(self) -> int:
        return len(self._held)
