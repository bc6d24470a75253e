"""Words to lines: right neighbours are linked unless a column gutter runs between them.

No page-wide rows are formed: the columns of a page need not share a grid of baselines. Lengths
are in em, the font size of the words concerned.
"""

from __future__ import annotations

import itertools
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from octavo.media.page import Ruling, Word
from octavo.readers.mend import is_cjk
from octavo.types import Box, union_all

SPACE_EM = 0.14  # a narrower gap joins two words without a space (superscripts, split runs)
JOIN_EM = 0.55  # a narrower gap is always a space
SPLIT_EM = 2.6  # a wider gap always separates
LOOSE_EM = 1.6  # between: a gutter separates, and so does this without one
GUTTER_EM = 0.3  # a gutter keeps at least this much free over its rows
GUTTER_ROWS = 4


@dataclass(frozen=True)
class Line:
    """Words of one line, in reading order. Derived values are computed once."""

    words: tuple[Word, ...]

    @cached_property
    def box(self) -> Box:
        return union_all(word.box for word in self.words)

    @cached_property
    def letters(self) -> int:
        return sum(len(word.text) for word in self.words)

    @cached_property
    def font_size(self) -> float:
        sizes = sorted((word.font_size, len(word.text)) for word in self.words)
        half, seen = self.letters / 2, 0
        for size, count in sizes:
            seen += count
            if seen >= half:
                return size
        return sizes[-1][0]

    @cached_property
    def baseline(self) -> float:
        return median(w.baseline for w in self.words if w.font_size >= 0.8 * self.font_size)

    @cached_property
    def bold(self) -> bool:
        return sum(len(w.text) for w in self.words if w.bold) > 0.6 * self.letters

    @cached_property
    def italic(self) -> bool:
        return sum(len(w.text) for w in self.words if w.italic) > 0.6 * self.letters

    @cached_property
    def mono(self) -> bool:
        return sum(len(w.text) for w in self.words if w.mono) > 0.6 * self.letters

    @cached_property
    def confidence(self) -> float:
        weight = max(self.letters, 1)
        return sum(w.confidence * len(w.text) for w in self.words) / weight

    @cached_property
    def rtl(self) -> bool:
        return is_rtl("".join(word.text for word in self.words))

    @cached_property
    def text(self) -> str:
        return join_words(self.words)


def is_rtl(text: str) -> bool:
    """Whether most letters run from right to left (Unicode bidirectional classes R and AL)."""
    right = left = 0
    for char in text:
        kind = unicodedata.bidirectional(char)
        if kind in ("R", "AL"):
            right += 1
        elif kind == "L":
            left += 1
    return right > left


def join_words(words: Sequence[Word]) -> str:
    """The text of words in reading order, with spaces between them.

    Words set alike are divided because there is a space; a mark of another size or height
    (a note reference, an index) may touch its word, and then the gap decides.
    """
    out: list[str] = []
    for i, word in enumerate(words):
        if i:
            before = words[i - 1]
            if abs(word.angle) > 45:
                gap = -before.box.overlap_y(word.box)
            else:
                gap = -before.box.overlap_x(word.box)
            em = min(before.font_size, word.font_size)
            if gap > SPACE_EM * em or (gap > -0.3 * em and _set_alike(before, word)):
                out.append(" ")
        out.append(word.text)
    return "".join(out)


def _set_alike(a: Word, b: Word) -> bool:
    if is_cjk(a.text[-1]) or is_cjk(b.text[0]):
        return False
    em = max(a.font_size, b.font_size)
    return abs(a.font_size - b.font_size) < 0.1 * em and abs(a.baseline - b.baseline) < 0.1 * em


def make_line(words: Iterable[Word]) -> Line:
    """A line of words given in any order."""
    ordered = sorted(words, key=lambda w: w.box.left)
    if is_rtl("".join(w.text for w in ordered)):
        ordered = _right_to_left(ordered)
    return Line(tuple(ordered))


def _right_to_left(words: list[Word]) -> list[Word]:
    """Words of a right-to-left line in reading order; runs of left-to-right words keep theirs."""
    out: list[Word] = []
    run: list[Word] = []
    for word in reversed(words):
        if any(unicodedata.bidirectional(c) in ("R", "AL") for c in word.text):
            out += reversed(run)
            run = []
            out.append(word)
        elif run or any(unicodedata.bidirectional(c) == "L" for c in word.text):
            run.append(word)
        else:
            out.append(word)
    return out + list(reversed(run))


def merge_lines(lines: Iterable[Line]) -> Line:
    """One line out of pieces that stand on the same baseline."""
    return make_line(word for line in lines for word in line.words)


class _Words:
    """The words of a page, ordered by height for window queries."""

    def __init__(self, words: Sequence[Word]) -> None:
        self.words = sorted(words, key=lambda w: w.box.top)
        self.tops = [w.box.top for w in self.words]
        self.tallest = max((w.box.height for w in words), default=0.0)

    def between(self, top: float, bottom: float) -> list[Word]:
        low = bisect_left(self.tops, top - self.tallest)
        high = bisect_right(self.tops, bottom)
        return [w for w in self.words[low:high] if w.box.bottom > top]


def _right_neighbour(word: Word, page: _Words) -> Word | None:
    best: Word | None = None
    for other in page.between(word.box.top, word.box.bottom):
        if other is word or other.box.left < word.box.left:
            continue
        small = min(word.box.height, other.box.height)
        if other.box.left < word.box.right - 0.5 * small:
            continue
        if word.box.overlap_y(other.box) < 0.5 * small:
            continue
        if best is None or other.box.left < best.box.left:
            best = other
    return best


def _free_interval(words: Iterable[Word], left: float, right: float) -> tuple[float, float]:
    """The widest part of ``left``..``right`` that no word covers."""
    inside = sorted(
        (w.box.left, w.box.right) for w in words if w.box.right > left and w.box.left < right
    )
    best, edge = (left, left), left
    for start, end in inside:
        if start - edge > best[1] - best[0]:
            best = (edge, start)
        edge = max(edge, end)
    return (edge, right) if right - edge > best[1] - best[0] else best


def _rows(words: Iterable[Word]) -> int:
    count, last = 0, float("-inf")
    for word in sorted(words, key=lambda w: w.baseline):
        if word.baseline - last > 0.6 * word.font_size:
            count += 1
            last = word.baseline
    return count


def _is_gutter(a: Word, b: Word, page: _Words) -> bool:
    """Whether the gap between two words goes on, free, through the rows above or below."""
    em = max(a.font_size, b.font_size)
    y = (a.box.top + a.box.bottom) / 2
    for top, bottom in ((y - 3.4 * em, y + 3.4 * em), (y - 6 * em, y), (y, y + 6 * em)):
        window = page.between(top, bottom)
        left, right = _free_interval(window, a.box.right, b.box.left)
        if right - left < GUTTER_EM * em:
            continue
        near_left = [w for w in window if -2.5 * em < left - w.box.right < 2.5 * em]
        near_right = [w for w in window if -2.5 * em < w.box.left - right < 2.5 * em]
        if min(_rows(near_left), _rows(near_right)) >= GUTTER_ROWS:
            return True
    return False


def _separated(a: Word, b: Word, page: _Words, rulings: Sequence[Ruling]) -> bool:
    em = min(a.font_size, b.font_size)
    gap = b.box.left - a.box.right
    if max(a.font_size, b.font_size) > 1.9 * em and not _is_script(a, b):
        return True
    if gap <= 0.2 * em:
        return False
    if gap > SPLIT_EM * em:
        return True
    middle = (a.box.top + a.box.bottom) / 2
    for rule in rulings:
        if (
            not rule.horizontal
            and a.box.right - 0.1 * em <= rule.box.left <= b.box.left + 0.1 * em
            and rule.box.top <= middle <= rule.box.bottom
        ):
            return True
    if gap <= JOIN_EM * em:
        # A river this narrow is a gutter only where the print is tight all around it.
        return gap > 0.42 * em and _is_gutter(a, b, page) and _tight(a, b, page)
    return gap > LOOSE_EM * em or _is_gutter(a, b, page)


def _is_script(a: Word, b: Word) -> bool:
    """A small mark set against a large word (note references, ordinals), and no drop cap."""
    return len(a.text) > 2 and abs(b.box.left - a.box.right) < 0.35 * max(a.font_size, b.font_size)


def _tight(a: Word, b: Word, page: _Words) -> bool:
    em = min(a.font_size, b.font_size)
    near = page.between(a.box.top - 4 * em, a.box.bottom + 4 * em)
    near.sort(key=lambda w: (round(w.baseline / max(em, 0.1)), w.box.left))
    gaps = sorted(
        right.box.left - left.box.right
        for left, right in itertools.pairwise(near)
        if abs(left.baseline - right.baseline) < 0.3 * em and right.box.left > left.box.right
    )
    return bool(gaps) and gaps[int(0.8 * (len(gaps) - 1))] < 0.75 * (b.box.left - a.box.right)


def build_lines(words: Sequence[Word], rulings: Sequence[Ruling] = ()) -> list[Line]:
    """Group level words into lines, or pieces of lines where a column gutter cuts them.

    Args:
        words: level words (``angle`` near 0) in any order.
        rulings: upright ones cut a line.
    """
    page = _Words(words)
    upright = [rule for rule in rulings if not rule.horizontal]
    following: dict[int, Word] = {}
    claimed: dict[int, tuple[float, int]] = {}
    for word in words:
        right = _right_neighbour(word, page)
        if right is None or _separated(word, right, page, upright):
            continue
        gap = right.box.left - word.box.right
        holder = claimed.get(id(right))
        if holder is None or gap < holder[0]:
            if holder is not None:
                following.pop(holder[1], None)
            claimed[id(right)] = (gap, id(word))
            following[id(word)] = right
    lines = []
    for word in words:
        if id(word) in claimed:
            continue
        chain = [word]
        while (after := following.get(id(chain[-1]))) is not None:
            chain.append(after)
        lines.append(make_line(chain))
    lines.sort(key=lambda line: (line.box.top, line.box.left))
    return _attach_initials(lines)


def _attach_initials(lines: list[Line]) -> list[Line]:
    """Put a drop cap in front of the line that it begins."""
    caps = [
        line
        for line in lines
        if len(line.words) == 1 and len(line.words[0].text) <= 2 and line.text[:1].isalpha()
    ]
    for cap in caps:
        size = cap.font_size
        right_of = [
            line
            for line in lines
            if line is not cap
            and line.font_size < 0.6 * size
            and -0.1 * size < line.box.left - cap.box.right < 0.6 * size
            and line.box.overlap_y(cap.box) > 0.4 * line.box.height
        ]
        if len(right_of) < 2:
            continue
        first = min(right_of, key=lambda line: line.box.top)
        head = first.words[0]
        joined = Word(
            cap.text + head.text,
            head.box,
            head.baseline,
            head.font_size,
            head.font,
            head.bold,
            head.italic,
        )
        lines = [line for line in lines if line is not cap]
        lines[lines.index(first)] = Line((joined, *first.words[1:]))
    return lines
