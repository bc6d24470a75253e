"""A predictor shared by threads."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from octavo.memory.policies.base import Key
from octavo.memory.prediction.base import Predictor


class Foresight:
    """Asks a predictor, one thread at a time. Its lock is the innermost: nothing waits in it.

    Args:
        predictor: what is asked.
        every: uses after which it is asked without need; 1 for an order that is known.
    """

    def __init__(self, predictor: Predictor, *, every: int = 1) -> None:
        self._predictor = predictor
        self._every = every
        self._unseen: list[Key] = []
        self._lock = threading.Lock()

    @property
    def learns(self) -> bool:
        """Whether the order is learned: worth its cost only while some value is not at hand."""
        return self._every > 1

    def after(self, key: Key, count: int, *, now: bool) -> list[Key]:
        """``key`` was used; up to ``count`` keys that come next.

        Names keys when asked to do so ``now``, and else at every so many uses.
        """
        with self._lock:
            self._unseen.append(key)
            if not now and len(self._unseen) < self._every:
                return []
            self._catch_up()
            return self._predictor.upcoming(count)

    def farthest_first(self, keys: Iterable[Key]) -> list[Key]:
        """The keys, the one that is used last first."""
        with self._lock:
            self._catch_up()
            return sorted(keys, key=self._predictor.distance, reverse=True)

    def _catch_up(self) -> None:
        for key in self._unseen:
            self._predictor.observe(key)
        self._unseen.clear()
