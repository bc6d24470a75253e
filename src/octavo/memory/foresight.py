"""A predictor shared by threads."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from octavo.memory.policies.base import Key
from octavo.memory.prediction.base import Predictor


class Foresight:
    """Asks a predictor, one thread at a time. Its lock is the innermost: nothing waits in it."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._lock = threading.Lock()

    def after(self, key: Key, count: int) -> list[Key]:
        """``key`` was used; up to ``count`` keys that come next."""
        with self._lock:
            self._predictor.observe(key)
            return self._predictor.upcoming(count)

    def farthest_first(self, keys: Iterable[Key]) -> list[Key]:
        """The keys, the one that is used last first."""
        with self._lock:
            return sorted(keys, key=self._predictor.distance, reverse=True)
