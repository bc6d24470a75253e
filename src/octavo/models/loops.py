"""Finds an answer that says the same over and over, token by token."""

from __future__ import annotations

from typing import Final

import numpy as np

#: Tokens of the longest passage whose repetition is found: a long row of a table.
LONGEST: Final = 512
#: What is repeated must be so many tokens altogether: "......" is no loop, nor is a row of zeros.
LEAST: Final = 48


class Loops:
    """Watches one answer.

    For each distance it counts how many of the last tokens equal the one that far before them: a
    passage of ``p`` tokens that stands there ``n`` times has a count of ``(n - 1) p`` at ``p``.

    Args:
        times: so often a passage must stand there, at least 2.
    """

    def __init__(self, times: int) -> None:
        distances_p = np.arange(1, LONGEST + 1)
        self._needed_p = np.maximum(distances_p * times, LEAST) - distances_p
        self._counts_p = np.zeros(LONGEST, np.int64)
        # The newest first; -1 is no token.
        self._last_p = np.full(LONGEST, -1, np.int64)

    def came(self, token: int) -> bool:
        """Whether the answer loops with this token."""
        same_p = self._last_p == token
        self._counts_p = (self._counts_p + 1) * same_p
        self._last_p[1:] = self._last_p[:-1].copy()
        self._last_p[0] = token
        return bool((self._counts_p >= self._needed_p).any())
