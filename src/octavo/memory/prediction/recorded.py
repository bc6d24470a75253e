"""A predictor that knows an earlier run and says what followed there."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from octavo.memory.prediction.base import Key

#: Last uses that must be those before a place of the recording for the run to be there.
_CONTEXT: Final = 3
#: Places compared in one search, and uses that may be left out within a stretch.
_SEARCHED: Final = 64
_SKIPPED: Final = 4
#: Uses in a row that do not fit, after which the run has left the recording.
_PATIENCE: Final = 2


class Recorded:
    """Finds where a run is in the recording of an earlier one, and names what followed there.

    A run is taken to begin where the recording begins. A use a few places ahead was skipped to,
    one that does not fit is passed over. After a few of those the run has departed: the predictor
    names nothing, until the last three uses are again three in a row of the recording.

    Args:
        keys: the uses of the earlier run, in order.
    """

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = list(keys)
        self._places: dict[Key, list[int]] = {}
        for place, key in enumerate(self._keys):
            self._places.setdefault(key, []).append(place)
        self._recent: deque[Key] = deque(maxlen=_CONTEXT)
        self._next = 0
        self._strays = 0

    @property
    def aligned(self) -> bool:
        """Whether the run is somewhere in the recording."""
        return self._strays < _PATIENCE

    def observe(self, key: Key) -> None:
        self._recent.append(key)
        place = self._nearby(key) if self.aligned else None
        if place is None:
            place = self._search(key)
        if place is None:
            self._strays += 1
        else:
            self._next, self._strays = place + 1, 0

    def upcoming(self, count: int) -> list[Key]:
        if not self.aligned:
            return []
        # A key may come many times before another does; the walk must end all the same.
        ahead = self._keys[self._next : self._next + _SEARCHED + 4 * count]
        known = (key for key in dict.fromkeys(ahead) if key in self._places)
        return [key for key, _ in zip(known, range(count), strict=False)]

    def distance(self, key: Key) -> float:
        """Uses until ``key`` is used, itself included; its mean spacing while not aligned."""
        places = self._places.get(key)
        if places is None:
            return math.inf
        if not self.aligned:
            return len(self._keys) / len(places)
        index = bisect_left(places, self._next)
        return places[index] - self._next + 1.0 if index < len(places) else math.inf

    def forget(self, key: Key) -> None:
        self._places.pop(key, None)

    def _nearby(self, key: Key) -> int | None:
        """The place of ``key`` among the next few."""
        for place in range(self._next, min(self._next + _SKIPPED + 1, len(self._keys))):
            if self._keys[place] == key:
                return place
        return None

    def _search(self, key: Key) -> int | None:
        """A place of ``key`` that has the last uses before it; rather one ahead."""
        places = self._places.get(key)
        if places is None or len(self._recent) < _CONTEXT:
            return None
        index = bisect_left(places, self._next)
        ahead = places[index : index + _SEARCHED]
        behind = places[max(index - _SEARCHED, 0) : index]
        return next((place for place in (*ahead, *reversed(behind)) if self._fits(place)), None)

    def _fits(self, place: int) -> bool:
        first = place + 1 - _CONTEXT
        recent: Sequence[Key] = self._recent
        return first >= 0 and all(self._keys[first + i] == recent[i] for i in range(_CONTEXT))
