"""A small predictor for keys whose order nobody knows: it learns while it watches."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

from octavo.memory.prediction.base import Key

#: Followers kept of one context, and the count at which all counts are halved (so that the last
#: few dozen uses of a context decide).
_FOLLOWERS: Final = 4
_FULL: Final = 32
#: How often a context must have been seen before it is believed.
_SEEN: Final = 2
#: Repetitions of one interval after which a key is expected to keep it.
_STEADY: Final = 2
#: How far the chain of likely followers is walked for a distance.
_NEAR: Final = 4


class _Followers:
    """What came after one context, with decayed counts."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts: dict[Key, float] = {}
        self.total = 0.0

    def add(self, key: Key) -> None:
        counts = self.counts
        self.total += 1.0
        if key in counts:
            counts[key] += 1.0
        else:
            if len(counts) == _FOLLOWERS:
                del counts[min(counts, key=counts.__getitem__)]
            counts[key] = 1.0
        if self.total > _FULL:
            self.total /= 2
            for follower in counts:
                counts[follower] /= 2

    def likeliest(self, shorter: _Followers | None) -> tuple[Key, float] | None:
        """The likeliest follower and its probability.

        Args:
            shorter: what came after a shorter context; its share counts for two uses of this one,
                so that a context seen seldom is not believed for a chance repetition.
        """
        if self.total < _SEEN or not self.counts:
            return None
        key = max(self.counts, key=self.counts.__getitem__)
        if shorter is None:
            return key, self.counts[key] / (self.total + 1.0)
        share = shorter.counts.get(key, 0.0) / (shorter.total + 1.0)
        return key, (self.counts[key] + 2.0 * share) / (self.total + 2.0)


class _Rhythm:
    """When a key was used last, the interval before that, and the decayed mean of intervals."""

    __slots__ = ("due", "interval", "last", "mean", "steady")

    def __init__(self, now: int) -> None:
        self.last = now
        self.interval = 0
        self.mean = 0.0
        self.steady = 0
        self.due = 0


class LearnedOrder:
    """Predicts from what used to follow the last two uses, and from keys with a steady beat.

    Followers of the last two uses, or of the last one where those two were never seen, as in
    prediction by partial matching (Cleary and Witten 1984; for prefetching Vitter and Krishnan
    1996). A key whose intervals were equal three times is expected after that interval. Both are
    forgotten for the keys and contexts used least recently, so that memory is bounded.

    Args:
        max_keys: keys remembered; contexts are at most four times as many.
        confidence: how likely a key must be for :meth:`upcoming` to name it.
    """

    def __init__(self, *, max_keys: int = 16_384, confidence: float = 0.45) -> None:
        self._max_keys = max_keys
        self._confidence = confidence
        self._now = 0
        self._rhythms: OrderedDict[Key, _Rhythm] = OrderedDict()
        self._contexts: OrderedDict[Hashable, _Followers] = OrderedDict()
        #: When a steady key is expected; at most one place for each key.
        self._due: dict[int, Key] = {}
        self._last: tuple[Key, ...] = ()
        self._near: tuple[int, list[Key]] = (-1, [])

    def observe(self, key: Key) -> None:
        self._now += 1
        self._beat(key)
        last = self._last
        if last:
            self._follow(last[-1:], key)
            if len(last) == 2:
                self._follow(last, key)
        self._last = (last[-1], key) if last else (key,)

    def upcoming(self, count: int) -> list[Key]:
        found: dict[Key, None] = {}
        context, likely = self._last, 1.0
        # A key may come again before others do; the walk ends after twice as many uses.
        for step in range(1, 2 * count + 1):
            if len(found) == count:
                break
            guess = self._guess(context)
            if guess is not None:
                likely *= guess[1]
                context = (*context[-1:], guess[0])
            due = self._due.get(self._now + step) if step <= count else None
            if due is not None and self._rhythms[due].steady >= _STEADY:
                found[due] = None
            elif guess is not None and likely >= self._confidence:
                found[guess[0]] = None
            if guess is None or likely < self._confidence:
                context, likely = (), 0.0
        return list(found)[:count]

    def distance(self, key: Key) -> float:
        """Expected uses until ``key`` is used, itself included; ``inf`` for a key never seen.

        A key that is overdue is taken to need as long again as it is late.
        """
        rhythm = self._rhythms.get(key)
        if rhythm is None:
            return math.inf
        if self._near[0] != self._now:
            self._near = (self._now, self.upcoming(_NEAR))
        if key in self._near[1]:
            return self._near[1].index(key) + 1.0
        age = self._now - rhythm.last
        expected = rhythm.interval if rhythm.steady else rhythm.mean
        if not expected:
            return float(max(age, len(self._rhythms)))
        return max(expected - age, age - expected, 1.0)

    def forget(self, key: Key) -> None:
        rhythm = self._rhythms.pop(key, None)
        if rhythm is not None and self._due.get(rhythm.due) == key:
            del self._due[rhythm.due]
        self._contexts.pop((key,), None)
        self._near = (-1, [])

    def _beat(self, key: Key) -> None:
        """Notes the interval since the last use of ``key``, and when it is due if it is steady."""
        now = self._now
        rhythm = self._rhythms.get(key)
        if rhythm is None:
            self._rhythms[key] = _Rhythm(now)
            if len(self._rhythms) > self._max_keys:
                self.forget(next(iter(self._rhythms)))
            return
        self._rhythms.move_to_end(key)
        interval = now - rhythm.last
        if self._due.get(rhythm.due) == key:
            del self._due[rhythm.due]
        if interval == rhythm.interval:
            rhythm.steady += 1
            rhythm.due = now + interval
            self._due[rhythm.due] = key
        else:
            rhythm.steady = 0
        rhythm.mean = interval if not rhythm.mean else rhythm.mean + (interval - rhythm.mean) / 4
        rhythm.last, rhythm.interval = now, interval

    def _follow(self, context: tuple[Key, ...], key: Key) -> None:
        followers = self._contexts.get(context)
        if followers is None:
            self._contexts[context] = followers = _Followers()
            if len(self._contexts) > 4 * self._max_keys:
                self._contexts.popitem(last=False)
        else:
            self._contexts.move_to_end(context)
        followers.add(key)

    def _guess(self, context: tuple[Key, ...]) -> tuple[Key, float] | None:
        """The likeliest next use after these, and its probability."""
        last = self._contexts.get(context[-1:])
        both = self._contexts.get(context) if len(context) == 2 else None
        guess = both.likeliest(last) if both is not None else None
        if guess is None and last is not None:
            guess = last.likeliest(None)
        return guess if guess is not None and guess[0] in self._rhythms else None
