"""Which frames of a film are taken, from their times alone. Pure arithmetic.

A frame is on show from its own time until that of the next. Frames are named by their place in
order of showing, from 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]

#: Seconds that do not count: a frame at 2.9999999 is one at 3, times being rounded fractions.
_NEAR: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Span:
    """A segment of a film: ``number`` from 0, seconds, and its frames ``first`` to ``last``, which
    is not among them."""

    number: int
    start: float
    end: float
    first: int
    last: int


def cut(times: Times, length: float, segment_s: float | None) -> tuple[Span, ...]:
    """The film as segments of ``segment_s`` seconds; the last may be shorter.

    Segments in which no frame begins (a film that stands still) are left out, their numbers too.

    Args:
        times: when each frame is shown first, in seconds, rising from 0.
        length: of the film in seconds, above the last time.
    """
    if segment_s is None or segment_s >= length:
        return (Span(0, 0.0, length, 0, len(times)),)
    spans = []
    for number in range(math.ceil(length / segment_s - _NEAR)):
        start, end = number * segment_s, min((number + 1) * segment_s, length)
        first, last = (int(np.searchsorted(times, at - _NEAR)) for at in (start, end))
        if last > first:
            spans.append(Span(number, start, end, first, last))
    return tuple(spans)


def uniform(times: Times, span: Span, count: int) -> list[int]:
    """``count`` frames: the segment is cut into as many equal pieces of time, and of each the frame
    on show in its middle is taken. A segment with fewer frames gives what it has."""
    if span.last - span.first <= count:
        return list(range(span.first, span.last))
    piece = (span.end - span.start) / count
    taken = on_show(times, span, [span.start + (n + 0.5) * piece for n in range(count)])
    return fill(times, span, taken, count)


def by_rate(times: Times, span: Span, fps: float, count: int | None) -> list[int]:
    """The frame on show every ``1 / fps`` seconds from the segment's start; over ``count`` of them
    are thinned evenly. None is there twice."""
    wanted = max(1, math.ceil((span.end - span.start) * fps - _NEAR))
    taken = on_show(times, span, [span.start + n / fps for n in range(wanted)])
    if count is None or len(taken) <= count:
        return taken
    places = (np.arange(count) + 0.5) * len(taken) / count
    return [taken[int(place)] for place in places]


def by_scene(
    times: Times, span: Span, cuts: Sequence[tuple[int, float]], count: int | None
) -> list[int]:
    """The first frame of every scene; the strongest cuts where there are more than ``count``, and
    the middles of the longest gaps where there are fewer.

    Args:
        cuts: first frames of scenes within the segment, each with how strong the change is.
    """
    cuts = [cut for cut in cuts if span.first < cut[0] < span.last]
    if count is not None:
        cuts = sorted(cuts, key=lambda cut: (-cut[1], cut[0]))[: count - 1]
    taken = sorted({span.first, *(frame for frame, _ in cuts)})
    return taken if count is None else fill(times, span, taken, count)


def on_show(times: Times, span: Span, moments: Sequence[float]) -> list[int]:
    """Frames of the segment on show at these moments, each once, in order."""
    places = np.searchsorted(times, np.asarray(moments) + _NEAR, side="right") - 1
    return sorted({int(place) for place in places.clip(span.first, span.last - 1)})


def fill(times: Times, span: Span, taken: Sequence[int], count: int) -> list[int]:
    """``taken`` and further frames of the segment up to ``count``: each time the frame nearest to
    the middle of the longest time without one."""
    chosen = sorted(taken)
    while len(chosen) < min(count, span.last - span.first):
        chosen.append(_middle_of_longest_gap(times, span, chosen))
        chosen.sort()
    return chosen


def _middle_of_longest_gap(times: Times, span: Span, chosen: Sequence[int]) -> int:
    bounds = [span.first - 1, *chosen, span.last]
    gaps = []
    for before, after in pairwise(bounds):
        if after - before > 1:
            start = times[before] if before >= span.first else span.start
            end = times[after] if after < span.last else span.end
            gaps.append((end - start, -before, after))
    length, negated, after = max(gaps)
    before = -negated
    middle = (times[before] if before >= span.first else span.start) + length / 2
    inside = np.arange(before + 1, after)
    return int(inside[np.abs(times[inside] - middle).argmin()])
