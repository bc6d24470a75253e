"""Adaptive replacement: recency and frequency, balanced by what was evicted too early."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from octavo.memory.policies.base import Key, Policy


class _Queue:
    """Keys with their bytes, the oldest first."""

    __slots__ = ("_sizes", "nbytes")

    def __init__(self) -> None:
        self._sizes: OrderedDict[Key, int] = OrderedDict()
        self.nbytes = 0

    def append(self, key: Key, nbytes: int) -> None:
        self._sizes[key] = nbytes
        self.nbytes += nbytes

    def discard(self, key: Key) -> int | None:
        """Bytes of ``key``, or ``None`` where it was not in the queue."""
        nbytes = self._sizes.pop(key, None)
        if nbytes is not None:
            self.nbytes -= nbytes
        return nbytes

    def drop_oldest(self) -> None:
        self.nbytes -= self._sizes.popitem(last=False)[1]

    def renew(self, key: Key) -> None:
        self._sizes.move_to_end(key)

    def items(self) -> Iterator[tuple[Key, int]]:
        return iter(self._sizes.items())

    def __contains__(self, key: object) -> bool:
        return key in self._sizes

    def __len__(self) -> int:
        return len(self._sizes)


@dataclass(frozen=True, slots=True)
class _Coming:
    """What the next eviction makes room for."""

    key: Key
    target: float
    was_frequent: bool


class ARC(Policy):
    """Two queues, keys used once and keys used again, and a target size for the first.

    Ghosts (keys without values) of each queue show which was cut too short: when one comes back,
    the target moves towards its queue. Every size is in bytes: a ghost moves the target by its
    own bytes times the ratio of the ghosts. The tier and its ghosts together hold at most twice
    the capacity. Every operation is O(1), amortized.

    With equal sizes, and an owner that asks :meth:`admits`, evicts, then inserts, this is the
    algorithm of Megiddo and Modha, "ARC: A Self-Tuning, Low Overhead Replacement Cache", FAST
    2003, figure 4, step for step.
    """

    name: ClassVar[str] = "arc"

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self._once, self._again = _Queue(), _Queue()
        self._once_ghosts, self._again_ghosts = _Queue(), _Queue()
        self._target = 0.0
        self._coming: _Coming | None = None

    def admits(self, key: Key, nbytes: int, cost: float = 1.0) -> bool:  # noqa: ARG002
        """Always. Notes the key, because who goes first depends on who comes."""
        self._coming = self._expect(key, max(nbytes, 1))
        return True

    def insert(self, key: Key, nbytes: int, cost: float = 1.0) -> None:  # noqa: ARG002
        nbytes = max(nbytes, 1)  # so that ghosts of empty values are bounded too
        coming = self._coming
        if coming is None or coming.key != key:
            coming = self._expect(key, nbytes)
        self._target, self._coming = coming.target, None
        seen = [queue.discard(key) for queue in self._queues()]
        queue = self._once if seen == [None] * len(seen) else self._again
        queue.append(key, nbytes)
        self._trim_ghosts()

    def touch(self, key: Key) -> None:
        if key in self._again:
            self._again.renew(key)
            return
        nbytes = self._once.discard(key)
        if nbytes is None:
            raise KeyError(key)
        self._again.append(key, nbytes)

    def evict(self, key: Key) -> None:
        nbytes = self._once.discard(key)
        if nbytes is not None:
            self._once_ghosts.append(key, nbytes)
            return
        nbytes = self._again.discard(key)
        if nbytes is None:
            raise KeyError(key)
        self._again_ghosts.append(key, nbytes)

    def remove(self, key: Key) -> None:
        for queue in self._queues():
            queue.discard(key)
        if self._coming is not None and self._coming.key == key:
            self._coming = None

    def victims(self) -> Iterator[Key]:
        coming = self._coming
        target = self._target if coming is None else coming.target
        was_frequent = coming is not None and coming.was_frequent
        left = self._once.nbytes
        once, again = self._once.items(), self._again.items()
        old_once, old_again = next(once, None), next(again, None)
        while old_once is not None or old_again is not None:
            cut_once = left > target or (was_frequent and left >= target)
            if old_again is None or (old_once is not None and cut_once):
                assert old_once is not None  # one of the two is there
                key, nbytes = old_once
                left -= nbytes
                old_once = next(once, None)
            else:
                key = old_again[0]
                old_again = next(again, None)
            yield key

    def _expect(self, key: Key, nbytes: int) -> _Coming:
        """The target that ``key`` will set when it comes in."""
        once, again = self._once_ghosts.nbytes, self._again_ghosts.nbytes
        if key in self._once_ghosts:
            grown = self._target + nbytes * max(1.0, again / once)
            return _Coming(key, min(grown, float(self.capacity)), False)
        if key in self._again_ghosts:
            cut = self._target - nbytes * max(1.0, once / again)
            return _Coming(key, max(cut, 0.0), True)
        return _Coming(key, self._target, False)

    def _trim_ghosts(self) -> None:
        once, again = self._once.nbytes, self._again.nbytes
        while self._once_ghosts and once + self._once_ghosts.nbytes > self.capacity:
            self._once_ghosts.drop_oldest()
        rest = 2 * self.capacity - once - again - self._once_ghosts.nbytes
        while self._again_ghosts and self._again_ghosts.nbytes > rest:
            self._again_ghosts.drop_oldest()

    def _queues(self) -> tuple[_Queue, ...]:
        return (self._once, self._again, self._once_ghosts, self._again_ghosts)

    def __contains__(self, key: object) -> bool:
        return key in self._once or key in self._again

    def __len__(self) -> int:
        return len(self._once) + len(self._again)
