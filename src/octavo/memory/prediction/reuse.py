"""How soon values are used again, learned by class of value and by age.

Shapes: c class of value, a age.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

import numpy as np
from numpy.typing import NDArray

from octavo.memory.prediction.base import Key

#: Ages fall into four steps an octave; older than 2**22 uses is as good as never.
_STEPS: Final = 4 * 22
#: Groups of like values, and octaves of the mean interval, that are told apart.
_GROUPS: Final = 48
_OCTAVES: Final = 64
#: Keys remembered when the tier is empty, and the most beyond twice those in the tier.
_REMEMBERED: Final = 400
_REMEMBERED_MOST: Final = 65_536
#: Uses between two estimates: few at first, then at least these, and one for each key known.
_FIRST: Final = 64
_SETTLED: Final = 2048
#: What remains of the counts from one estimate to the next.
_DECAY: Final = 0.8
#: What a key used only once is believed to bring, of what such keys brought lately: a flood of
#: new keys must not push out proven ones before it is known for what it is.
_NEWCOMER: Final = 0.3
#: Passes through an age step that the coarser class counts for in the finer.
_PRIOR: Final = 2.0

#: Chance of a use at an age step of which nothing is known, and the highest believed.
_UNSEEN: Final = 0.02
_SURE: Final = 0.98

Floats = NDArray[np.float64]


def _step(age: int) -> int:
    if age < 4:
        return age
    octave = age.bit_length()
    return min(4 * (octave - 2) + ((age >> (octave - 3)) & 3), _STEPS - 1)


#: Of young ages, which are most of them.
_STEP_OF: Final = [_step(age) for age in range(4096)]


def step_of(age: int) -> int:
    """The step of an age in uses."""
    return _STEP_OF[age] if age < 4096 else _step(age)


def _starts() -> list[int]:
    """The first age of each step, and of one more."""
    return [0, 1, 2, 3] + [(4 + step % 4) << (step // 4 - 1) for step in range(4, _STEPS + 1)]


_WIDTHS_A: Final[Floats] = np.diff(np.array(_starts(), dtype=np.float64))


class _Class:
    """Values alike in size and cost, lately used again after about the same interval."""

    __slots__ = ("entered", "left", "octave", "passed_a", "rates", "reused", "reused_a")

    def __init__(self, octave: int) -> None:
        self.octave = octave
        # Since the last estimate: keys that came to an age step, left before it, were used at it.
        self.entered = [0] * (_STEPS + 1)
        self.left = [0] * (_STEPS + 1)
        self.reused = [0] * _STEPS
        # Decayed over all time: keys that lived through an age step, and were used at it.
        self.passed_a = np.zeros(_STEPS)
        self.reused_a = np.zeros(_STEPS)
        self.rates: list[float] = _UNKNOWN

    def account(self, alive: list[int]) -> None:
        """Takes the counts since the last estimate into those of all time.

        Args:
            alive: keys of this class at each age step now; from here they are counted anew.
        """
        came_a = np.array(self.entered) - np.array(self.left) - np.array(alive)
        self.passed_a = _DECAY * self.passed_a + np.cumsum(came_a)[:_STEPS]
        self.reused_a = _DECAY * self.reused_a + np.array(self.reused)
        self.entered = alive
        self.left = [0] * (_STEPS + 1)
        self.reused = [0] * _STEPS


class _Group:
    """Values alike in size and cost: one class for each octave of the mean interval."""

    __slots__ = ("classes",)

    def __init__(self) -> None:
        self.classes: list[_Class | None] = [None] * (_OCTAVES + 1)

    def of(self, octave: int) -> _Class:
        found = self.classes[octave]
        if found is None:
            self.classes[octave] = found = _Class(octave)
        return found


class _Past:
    """What is known of one key."""

    __slots__ = ("group", "kind", "last", "mean")

    def __init__(self, group: _Group) -> None:
        self.group = group
        self.kind = group.of(0)
        self.last = 0
        self.mean = 0


class Reuse:
    """Estimates how many uses again a kept value brings for each use of anything.

    A value's class is its size and cost, by powers of four, and the octave of the decayed mean of
    its intervals. For each class and age the chance of a use at that age is counted over values
    in the tier and out of it, with the keys that have not come back so far (the estimator of
    Kaplan and Meier, 1958, with decay); thin classes lean on coarser ones. The rate is then the
    best ratio of expected uses again to expected time kept, over all times at which one may give
    up: the index of Gittins (1979). Ranking by it, weighted by cost and bytes, is the idea of LHD
    (Beckmann, Chen and Cidon, NSDI 2018), with what was evicted counted too.

    Keys are remembered beyond their stay in the tier, those used least recently are forgotten:
    see :meth:`bound`.
    """

    def __init__(self) -> None:
        self._max_keys = _REMEMBERED
        self._past: OrderedDict[Key, _Past] = OrderedDict()
        self._groups: dict[tuple[int, int], _Group] = {}
        self._now = 0
        self._due = _FIRST

    def observe(self, key: Key, nbytes: int, cost: float) -> None:
        """``key``, of these bytes and this cost, was used just now."""
        now = self._now = self._now + 1
        past = self._past.get(key)
        if past is None:
            self._past[key] = past = _Past(self._group(nbytes, cost))
            past.kind.entered[0] += 1
            while len(self._past) > self._max_keys:
                self._drop(self._past.popitem(last=False)[1])
        else:
            self._past.move_to_end(key)
            age = now - past.last
            step = _STEP_OF[age] if age < 4096 else _step(age)
            kind = past.kind
            kind.reused[step] += 1
            kind.left[step + 1] += 1
            past.mean = mean = (past.mean + age) >> 1 if past.mean else age
            past.kind = kind = past.group.of(mean.bit_length())
            kind.entered[0] += 1
        past.last = now
        if now >= self._due:
            self._estimate()

    def rate(self, key: Key) -> float:
        """Uses again that keeping ``key`` brings, for each use of anything; 0.0 if unknown.

        That of a key used only once is taken with a deduction.
        """
        past = self._past.get(key)
        return past.kind.rates[step_of(self._now - past.last)] if past is not None else 0.0

    def last_use(self, key: Key) -> int:
        """The number of the last use of ``key``; -1 if unknown."""
        past = self._past.get(key)
        return past.last if past is not None else -1

    @property
    def now(self) -> int:
        """The number of the last use of any key."""
        return self._now

    def bound(self, kept: int) -> None:
        """Remembers sixteen times as many keys as are ``kept`` in the tier, within limits."""
        self._max_keys = min(_REMEMBERED + 16 * kept, max(_REMEMBERED_MOST, 2 * kept))

    def forget(self, key: Key) -> None:
        past = self._past.pop(key, None)
        if past is not None:
            self._drop(past)

    def _drop(self, past: _Past) -> None:
        past.kind.left[step_of(self._now - past.last)] += 1

    def _group(self, nbytes: int, cost: float) -> _Group:
        name = (nbytes.bit_length() // 2, math.frexp(cost)[1] // 2)
        if name not in self._groups and len(self._groups) == _GROUPS:
            name = next(iter(self._groups))
        return self._groups.setdefault(name, _Group())

    def _estimate(self) -> None:
        """Counts how long the keys have lived, and makes the rates of all classes anew."""
        self._due = self._now + min(self._now, max(_SETTLED, len(self._past)))
        kinds = [kind for group in self._groups.values() for kind in group.classes if kind]
        alive = {id(kind): [0] * (_STEPS + 1) for kind in kinds}
        for past in self._past.values():
            alive[id(past.kind)][step_of(self._now - past.last)] += 1
        for kind in kinds:
            kind.account(alive[id(kind)])
        rates_ca = _rates(
            np.array([kind.octave for kind in kinds]),
            np.stack([kind.reused_a for kind in kinds]),
            np.stack([kind.passed_a for kind in kinds]),
        )
        rates_ca[[kind.octave == 0 for kind in kinds]] *= _NEWCOMER
        for kind, rates in zip(kinds, rates_ca.tolist(), strict=True):
            kind.rates = rates


def _rates(octaves_c: NDArray[np.int64], reused_ca: Floats, passed_ca: Floats) -> Floats:
    """The index of each class at each age, from the keys used at it and those that passed it."""
    chances_ca = np.empty_like(reused_ca)
    for octave in np.unique(octaves_c):
        alike = octaves_c == octave
        coarse_a = _chance(reused_ca[alike].sum(0), passed_ca[alike].sum(0), _UNSEEN)
        chances_ca[alike] = _chance(reused_ca[alike], passed_ca[alike], coarse_a)
    alive_ca = np.cumprod(1.0 - chances_ca, axis=1)
    alive_ca = np.hstack([np.ones((len(alive_ca), 1)), alive_ca[:, :-1]])
    zeros_c1 = np.zeros((len(alive_ca), 1))
    gain_ca = np.hstack([zeros_c1, np.cumsum(alive_ca * chances_ca, axis=1)])
    # One that is used within a step leaves it half way through.
    spent_ca = alive_ca * (1.0 - chances_ca / 2) * _WIDTHS_A
    spent_ca = np.hstack([zeros_c1, np.cumsum(spent_ca, axis=1)])
    rates_ca = chances_ca / _WIDTHS_A
    # Beyond the oldest key there is nothing to wait for.
    oldest = int(np.flatnonzero(passed_ca.any(axis=0)).max(initial=0)) + 1
    for age in range(oldest):
        reliable = alive_ca[:, age] > 1e-9
        gained_ca = gain_ca[reliable, age + 1 : oldest + 2] - gain_ca[reliable, age, None]
        kept_ca = spent_ca[reliable, age + 1 : oldest + 2] - spent_ca[reliable, age, None]
        rates_ca[reliable, age] = (gained_ca / kept_ca).max(axis=1)
    return rates_ca


def _chance(reused_a: Floats, passed_a: Floats, prior_a: Floats | float) -> Floats:
    """Of the keys that reach an age step, the share used at it."""
    chance_a: Floats = (reused_a + _PRIOR * prior_a) / (passed_a + _PRIOR)
    return np.minimum(chance_a, _SURE)


#: Before anything is known: each step is as likely as the other, so a young key rather than an old.
_UNKNOWN: Final[list[float]] = (_UNSEEN / _WIDTHS_A).tolist()
