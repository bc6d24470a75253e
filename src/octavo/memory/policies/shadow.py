"""A tier that is only played: what a policy would have missed, on a sample of the keys."""

from __future__ import annotations

from collections.abc import Callable

from octavo.memory.policies.base import Key, Policy


class Shadow:
    """Keys and sizes of a tier under one policy, and the cost of what it missed.

    Args:
        policy: of the played tier, empty.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        #: Sum of the costs of misses, each times the weight that it had.
        self.missed = 0.0
        #: Told of every key that has to go for another.
        self.told: Callable[[Key], None] | None = None
        self._sizes: dict[Key, int] = {}
        self._used = 0

    def read(self, key: Key, nbytes: int, cost: float, weight: float) -> None:
        """``key`` was read; a miss counts ``cost`` times ``weight``."""
        if key in self._sizes:
            self.policy.touch(key)
            return
        self.missed += cost * weight
        if nbytes <= self.policy.capacity and self.policy.admits(key, nbytes, cost):
            self.write(key, nbytes, cost)

    def write(self, key: Key, nbytes: int, cost: float) -> None:
        """A value of ``key`` has come in; others make room."""
        nbytes = max(nbytes, 1)  # so that empty values are bounded too
        if nbytes > self.policy.capacity:
            if key in self._sizes:
                self._evict(key)
            return
        self._make_room(self._used - self._sizes.get(key, 0) + nbytes, key)
        self._used += nbytes - self._sizes.get(key, 0)
        self._sizes[key] = nbytes
        self.policy.insert(key, nbytes, cost)

    def remove(self, key: Key) -> None:
        """``key`` is gone for good, or no longer in the sample."""
        self._used -= self._sizes.pop(key, 0)
        self.policy.remove(key)

    def resize(self, capacity: int) -> None:
        self.policy.capacity = capacity
        self._make_room(self._used, None)

    def keep(self, sampled: Callable[[Key], bool]) -> None:
        """Removes the keys that are not ``sampled``."""
        for key in [key for key in self._sizes if not sampled(key)]:
            self.remove(key)

    def _make_room(self, wanted: int, spared: Key) -> None:
        """Lets keys go until ``wanted`` bytes, less theirs, fit."""
        if wanted <= self.policy.capacity:
            return
        leaving = []
        for victim in self.policy.victims():
            if victim == spared and victim in self._sizes:
                continue
            leaving.append(victim)
            wanted -= self._sizes[victim]
            if wanted <= self.policy.capacity:
                break
        for victim in leaving:
            self._evict(victim)

    def _evict(self, key: Key) -> None:
        self._used -= self._sizes.pop(key)
        self.policy.evict(key)
        if self.told is not None:
            self.told(key)

    def __contains__(self, key: object) -> bool:
        return key in self._sizes
