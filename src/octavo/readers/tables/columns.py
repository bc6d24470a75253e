"""Columns from the white rivers between words, and which columns a piece of text lies in."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from octavo.media.page import Word
from octavo.readers.tables.text import Chunk, chunks_of, is_value

#: Bins of the projection per em.
_BINS = 8
#: A gap below this many ems may be a space between words; it blocks a river by ``_SPACE`` of a row.
_TIGHT = 0.5
_SPACE = 0.5
#: The median gap over a river, in ems, that makes it a boundary of columns.
_WIDE = 0.75
#: The same where only two rows speak for the river.
_WIDE_FEW = 1.0


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk of one line and the columns ``first``..``last`` that it covers."""

    chunk: Chunk
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Columns:
    """Boundaries of ``len(bounds) - 1`` columns, and the extent of the body text in each."""

    bounds: tuple[float, ...]
    extents: tuple[tuple[float, float], ...]

    def __len__(self) -> int:
        return len(self.extents)

    def at(self, x: float) -> int:
        inner = self.bounds[1:-1]
        return sum(1 for bound in inner if bound <= x)


def rivers(
    rows: Sequence[Sequence[Chunk]], left: float, right: float, em: float, wide: float = _WIDE
) -> list[float]:
    """x of the boundaries between the columns of ``rows`` within ``left``..``right``.

    A river is a run of x where (nearly) no row has ink: one row in eight may cross it. It counts
    when the median gap of the rows with text on both sides is wider than a space.
    """
    rows = [row for row in rows if row]
    if not rows or right - left < em:
        return []
    cost = _crossings(rows, left, right, em)
    allowed = 0.0 if len(rows) < 4 else 0.5 if len(rows) < 8 else len(rows) / 8
    free = np.flatnonzero(np.diff(np.concatenate(([0], (cost <= allowed).astype(np.int8), [0]))))
    out = []
    for start, end in zip(free[::2].tolist(), free[1::2].tolist(), strict=True):
        # Of a wide run only the emptiest part is the river: the widest, as a space between the
        # words of a heading over it is a narrow one.
        low = cost[start:end] <= cost[start:end].min() + _SPACE
        edges = np.flatnonzero(np.diff(np.concatenate(([0], low.astype(np.int8), [0]))))
        widest = int(np.argmax(edges[1::2] - edges[::2]))
        a, b = start + int(edges[2 * widest]), start + int(edges[2 * widest + 1])
        middle = left + (a + b) / 2 * em / _BINS
        if _is_boundary(rows, middle, (end - start) / _BINS, em, wide):
            out.append(middle)
    return out


def _crossings(
    rows: Sequence[Sequence[Chunk]], left: float, right: float, em: float
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """How many rows have ink at each bin; a narrow gap between words counts as half."""
    bins = int((right - left) / em * _BINS) + 1
    cost = np.zeros(bins)
    for row in rows:
        mask = np.zeros(bins)
        before = None
        for word in (word for chunk in row for word in chunk.words):
            a, b = ((x - left) / em * _BINS for x in (word.box.left, word.box.right))
            if before is not None and 0 < a - before < _TIGHT * _BINS:
                low, high = max(int(before), 0), max(int(a) + 1, 0)
                mask[low:high] = np.maximum(mask[low:high], _SPACE)
            mask[max(int(a), 0) : max(int(np.ceil(b)), 0)] = 1.0
            before = b
        cost += mask
    return cost


def _is_boundary(
    rows: Sequence[Sequence[Chunk]], x: float, free: float, em: float, wide: float
) -> bool:
    gaps: list[float] = []
    some_left = some_right = False
    for row in rows:
        words = [word.box for chunk in row for word in chunk.words]
        before = [box.right for box in words if box.center[0] < x]
        after = [box.left for box in words if box.center[0] >= x]
        some_left |= bool(before)
        some_right |= bool(after)
        if before and after:
            gaps.append((min(after) - max(before)) / em)
    if not (some_left and some_right):
        return False
    if not gaps:
        return free >= 1.0
    return statistics.median(gaps) >= (max(wide, _WIDE_FEW) if len(gaps) < 3 else wide)


def with_extents(bounds: Sequence[float], rows: Sequence[Sequence[Chunk]]) -> Columns:
    """The extents are those of the words that lie wholly in one column."""
    low = [float("inf")] * (len(bounds) - 1)
    high = [float("-inf")] * (len(bounds) - 1)
    for row in rows:
        for word in (word for chunk in row for word in chunk.words):
            for at in range(len(low)):
                if bounds[at] <= word.box.center[0] < bounds[at + 1]:
                    if word.box.left >= bounds[at] - 1 and word.box.right <= bounds[at + 1] + 1:
                        low[at] = min(low[at], word.box.left)
                        high[at] = max(high[at], word.box.right)
                    break
    extents = tuple(
        (a, b) if a < b else (bounds[at], bounds[at + 1])
        for at, (a, b) in enumerate(zip(low, high, strict=True))
    )
    return Columns(tuple(bounds), extents)


def pieces_of(row: Sequence[Chunk], columns: Columns, em: float) -> list[Piece]:
    """Part the chunks of a line at the boundaries that they do not bridge, and place them.

    Two chunks never share a column unless they must: the one that covers more of it keeps it,
    the other moves to the nearest free column, so that a heading wider than its numbers stays
    in its own column.
    """
    parts = [part for chunk in row for part in _parted(chunk, columns, em)]
    if len(parts) == 1:
        return [Piece(parts[0], *_alone(parts[0], columns, em))]
    places = [_covered(part, columns, em) for part in parts]
    for at in range(1, len(parts)):
        (a0, a1), (b0, b1) = places[at - 1], places[at]
        if b0 > a1:
            continue
        # Both want the columns b0..a1.
        if a1 > a0:
            a1 = max(a0, b0 - 1)
        if b0 <= a1 < b1:
            b0 = a1 + 1
        places[at - 1], places[at] = (a0, a1), (b0, max(b0, b1))
    _spread(parts, places, columns)
    return [Piece(part, a, b) for part, (a, b) in zip(parts, places, strict=True)]


def _spread(parts: list[Chunk], places: list[tuple[int, int]], columns: Columns) -> None:
    """Where two chunks still share a column, move the outer one into a free neighbour."""
    taken = {at for a, b in places for at in range(a, b + 1)}
    for at in range(1, len(parts)):
        (a0, a1), (b0, b1) = places[at - 1], places[at]
        if a0 != a1 or b0 != b1 or a0 != b0:
            continue
        low, high = columns.extents[a0]
        middle = (low + high) / 2
        left_off = abs((parts[at - 1].left + parts[at - 1].right) / 2 - middle)
        right_off = abs((parts[at].left + parts[at].right) / 2 - middle)
        if right_off >= left_off and b0 + 1 < len(columns) and b0 + 1 not in taken:
            places[at] = (b0 + 1, b0 + 1)
            taken.add(b0 + 1)
        elif a0 > 0 and a0 - 1 not in taken:
            places[at - 1] = (a0 - 1, a0 - 1)
            taken.add(a0 - 1)


def _parted(chunk: Chunk, columns: Columns, em: float) -> list[Chunk]:
    crossed = [x for x in columns.bounds[1:-1] if chunk.left < x < chunk.right]
    if not crossed or len(chunk.words) == 1:
        return [chunk]
    homes = [columns.at(word.box.center[0]) for word in chunk.words]
    if len(set(homes)) == len(homes) and all(is_value(word.text) for word in chunk.words):
        # Numbers set tight, or boxed too wide by an OCR engine, each in a column of its own.
        return [_chunk([word]) for word in chunk.words]
    if any(
        w.box.left + 0.15 * em < x < w.box.right - 0.15 * em for x in crossed for w in chunk.words
    ):
        return [chunk]
    words = chunk.words
    gaps = [b.box.left - a.box.right for a, b in itertools.pairwise(words)]
    out: list[Chunk] = []
    start = 0
    for at, gap in enumerate(gaps):
        middle = (words[at].box.right + words[at + 1].box.left) / 2
        near = any(
            words[at].box.right - 0.2 * em <= x <= words[at + 1].box.left + 0.2 * em
            for x in crossed
        ) and columns.at(words[at].box.center[0]) != columns.at(words[at + 1].box.center[0])
        others = [g for other, g in enumerate(gaps) if other != at]
        space = statistics.median(others) if others else 0.3 * em
        if near and gap > max(0.33 * em, 1.2 * space) and middle > chunk.left:
            out.append(_chunk(words[start : at + 1]))
            start = at + 1
    out.append(_chunk(words[start:]))
    return out


def _chunk(words: Sequence[Word]) -> Chunk:
    return chunks_of(words, float("inf"))[0]


def _covered(chunk: Chunk, columns: Columns, em: float) -> tuple[int, int]:
    """The columns whose body text the chunk lies over; at least the one at its middle."""
    hit = []
    for at, (low, high) in enumerate(columns.extents):
        shared = min(high, chunk.right) - max(low, chunk.left)
        if shared > min(0.4 * (high - low), 1.0 * em):
            hit.append(at)
    home = columns.at((chunk.left + chunk.right) / 2)
    if not hit:
        return _straddled(chunk, columns, home)
    if len(hit) == 1 and len(chunk.words) > 0:
        return hit[0], hit[0]
    return hit[0], hit[-1]


def _alone(chunk: Chunk, columns: Columns, em: float) -> tuple[int, int]:
    """The only text of a line bridges the columns whose boundary it clearly runs over."""
    first, last = _covered(chunk, columns, em)
    low = columns.at(chunk.left + 0.5 * em)
    high = columns.at(chunk.right - 0.5 * em)
    return (low, high) if high - low > last - first else (first, last)


def _straddled(chunk: Chunk, columns: Columns, home: int) -> tuple[int, int]:
    """A heading centred over the river between two columns belongs to both."""
    for at in range(len(columns) - 1):
        x = columns.bounds[at + 1]
        middle = (chunk.left + chunk.right) / 2
        if chunk.left < x < chunk.right:
            both = (columns.extents[at][0] + columns.extents[at + 1][1]) / 2
            if abs(middle - both) < 0.25 * chunk.right - 0.25 * chunk.left:
                return at, at + 1
    return home, home
