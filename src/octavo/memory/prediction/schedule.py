"""A predictor for keys whose order is known: the layers of a model, the pages of a document."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence

from octavo.memory.prediction.base import Key

_NEVER = 1 << 62


class Schedule:
    """Knows the order of uses because the caller gave it.

    Each use that is the next of the schedule moves it on by one. A use further ahead means that
    the run skipped what lies between, one behind that it went back once: whichever is nearer.
    Keys that are not in the schedule change nothing. Whatever the guess, two uses in the order of
    the schedule put it right.

    Args:
        keys: in the order of their use; a key may stand there more than once.
        cyclic: whether it begins again at its end.
    """

    def __init__(self, keys: Sequence[Key], *, cyclic: bool = False) -> None:
        self._period = len(keys)
        self._cyclic = cyclic
        # Two rounds of a cycle, so that whatever follows a place in the first is one stretch.
        self._keys = [*keys, *keys] if cyclic else list(keys)
        self._places: dict[Key, list[int]] = {}
        before: list[int] = []
        for place, key in enumerate(self._keys):
            places = self._places.setdefault(key, [])
            before.append(places[-1] if places else -1)
            places.append(place)
        self._before = _FirstBelow(before)
        self._next = 0
        #: Where the run is if the last use, which did not fit, was no stray one.
        self._perhaps: int | None = None

    def observe(self, key: Key) -> None:
        places = self._places.get(key)
        if places is None:
            return
        perhaps, self._perhaps = self._perhaps, None
        ahead = self._ahead(places)
        if ahead == 0:
            self._move(self._next + 1)
        elif perhaps is not None and self._fits(perhaps, key):
            self._move(perhaps + 1)
        elif ahead < (behind := self._behind(places)):
            self._move(self._next + ahead + 1)
        else:
            self._perhaps = self._next - behind + 1

    def upcoming(self, count: int) -> list[Key]:
        found: list[Key] = []
        place = self._next
        while len(found) < count:
            # The first use of a key from here on is one whose use before lies behind us.
            place = self._before.find(place, self._next)
            if place < 0:
                break
            found.append(self._keys[place])
            place += 1
        return found

    def distance(self, key: Key) -> float:
        """Uses until ``key`` is used, itself included: 1.0 is the very next."""
        places = self._places.get(key)
        if places is None:
            return math.inf
        ahead = self._ahead(places)
        return math.inf if ahead >= _NEVER else ahead + 1.0

    def forget(self, key: Key) -> None:
        for place in self._places.pop(key, ()):
            self._before.set(place, _NEVER)

    def _ahead(self, places: Sequence[int]) -> int:
        """Uses between now and the next of these places."""
        index = bisect_left(places, self._next)
        return places[index] - self._next if index < len(places) else _NEVER

    def _behind(self, places: Sequence[int]) -> int:
        """Uses since the last of these places, that one included."""
        index = bisect_left(places, self._next)
        if index:
            return self._next - places[index - 1]
        return self._next + self._period - places[len(places) // 2 - 1] if self._cyclic else _NEVER

    def _fits(self, place: int, key: Key) -> bool:
        place = place % self._period if self._cyclic else place
        return place < self._period and self._keys[place] == key

    def _move(self, place: int) -> None:
        self._next = place % self._period if self._cyclic else place


class _FirstBelow:
    """Numbers in a row; finds the first below a bound from a place on in O(log n).

    A binary tree of minima in one list: node ``i`` has the children ``2 i`` and ``2 i + 1``.
    """

    def __init__(self, values: Sequence[int]) -> None:
        self._size = 1 << max(len(values) - 1, 0).bit_length()
        self._least = [_NEVER] * (2 * self._size)
        self._least[self._size : self._size + len(values)] = values
        for node in range(self._size - 1, 0, -1):
            self._least[node] = min(self._least[2 * node], self._least[2 * node + 1])

    def set(self, place: int, value: int) -> None:
        node = place + self._size
        self._least[node] = value
        while node > 1:
            node //= 2
            self._least[node] = min(self._least[2 * node], self._least[2 * node + 1])

    def find(self, start: int, bound: int) -> int:
        """The first place from ``start`` on whose number is below ``bound``, else -1."""
        if start >= self._size:
            return -1
        node = start + self._size
        while self._least[node] >= bound:
            # To the right neighbour, as high up as it goes.
            while node & 1:
                node >>= 1
            if node == 0:
                return -1
            node += 1
        while node < self._size:
            node *= 2
            if self._least[node] >= bound:
                node += 1
        return node - self._size
