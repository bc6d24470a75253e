"""Bytes of media features that sequences need at the same time; equal media count once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from octavo.engine.sequence import Media
from octavo.errors import BudgetExceeded, ConfigError


class FeatureBudget:
    """Counts holders of features by the key of their medium.

    Args:
        nbytes: that all held features may take together.
    """

    def __init__(self, nbytes: int) -> None:
        if nbytes < 0:
            raise ConfigError(f"a feature budget of {nbytes} bytes")
        self.nbytes = nbytes
        self.used = 0
        self._held: dict[bytes, int] = {}
        self._holders: dict[bytes, int] = {}

    def admit(self, medium: Media, owner: str) -> None:
        """Refuses what could never be held.

        Raises:
            BudgetExceeded: it is larger than the whole budget.
        """
        if medium.nbytes > self.nbytes:
            raise BudgetExceeded(
                f"features of {medium.nbytes} bytes do not fit in {self.nbytes}",
                where=owner,
                next_step="give features more memory, or the medium fewer pixels or seconds",
            )

    def hold(self, medium: Media) -> bool:
        """One holder more; False when the bytes do not fit now."""
        if medium.key not in self._held:
            if self.used + medium.nbytes > self.nbytes:
                return False
            self._held[medium.key] = medium.nbytes
            self._holders[medium.key] = 0
            self.used += medium.nbytes
        self._holders[medium.key] += 1
        return True

    def holds(self, key: bytes) -> bool:
        return key in self._held

    def let_go(self, medium: Media) -> bool:
        """One holder less; True when it was the last."""
        self._holders[medium.key] -= 1
        if self._holders[medium.key]:
            return False
        del self._holders[medium.key]
        self.used -= self._held.pop(medium.key)
        return True

    def check(self, holding: Iterable[Media]) -> None:
        """Compares the books with what all sequences hold.

        Raises:
            RuntimeError: they disagree.
        """
        counted = Counter(medium.key for medium in holding)
        if counted != Counter(self._holders) or self.used != sum(self._held.values()):
            raise RuntimeError(f"features: {self._holders} in the books, {counted} counted")
        if self.used > self.nbytes:
            raise RuntimeError(f"features of {self.used} bytes in a budget of {self.nbytes}")
