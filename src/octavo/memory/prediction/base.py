"""What a predictor is: it watches which keys are used and says which come next."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

Key = Hashable


class Predictor(Protocol):
    """Watches uses of keys. Not safe for threads: the owner locks."""

    def observe(self, key: Key) -> None:
        """``key`` was used just now."""

    def upcoming(self, count: int) -> list[Key]:
        """Up to ``count`` keys that will be used next, the soonest first, none twice.

        Only keys worth fetching ahead: a predictor that is not sure names fewer, or none.
        """

    def distance(self, key: Key) -> float:
        """Expected number of uses (of any key) until ``key`` is used; ``inf`` if never again."""

    def forget(self, key: Key) -> None:
        """``key`` is gone for good."""
