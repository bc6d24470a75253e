"""Words to lines, lines to chunks, chunks to the text of a cell.

Lengths are measured in ems (the median font size of the words at hand), so that points of a PDF
and pixels of a scan go through the same code.
"""

from __future__ import annotations

import bisect
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from octavo.media.page import Word
from octavo.readers.lines import make_line
from octavo.types import Box, union_all

#: A wider gap between two words of a line, in ems, parts them into two chunks. A space is 0.25
#: to 0.33 em wide; justified lines stretch it to 0.5.
CHUNK_GAP = 0.6
#: Baselines that differ by less than this share of the font size are one.
SAME_BASELINE = 0.4
#: A superscript belongs to the line that holds more than this share of its height.
LEANING = 0.5

_NUMBER = re.compile(
    r"""^[(\[<>≤≥~≈±+\-−–—$€£¥₹₩%]*\s*          # signs and currency in front
        (?:\d[\d.,:/×x^·'\s]*|\.\d+)             # digits with separators
        (?:e[-−+]?\d+)?\s*
        (?:[-−–±(/]\s*[\d.,\s%]+)?               # a range, an error, a share
        (?:%|‰|°C?|[kKMGT]?[Bb]?|pp|ms|[a-z]{1,2})?[)\]*†‡§¶a-c\s]*$""",
    re.VERBOSE,
)
_BLANK = frozenset(
    {"-", "–", "—", "−", "--", "---", "n/a", "N/A", "na", "NA", "ns", "…", "...", "x"}
)
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Words of one line with no wide gap between them, left to right."""

    words: tuple[Word, ...]
    left: float
    right: float

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)


@dataclass(frozen=True, slots=True)
class Line:
    """Words that share a baseline, left to right."""

    words: tuple[Word, ...]
    top: float
    bottom: float

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2

    @property
    def height(self) -> float:
        return self.bottom - self.top


def em_of(words: Sequence[Word]) -> float:
    """The median font size, page units; 10 when there are no words."""
    return statistics.median(w.font_size for w in words) if words else 10.0


def lines_of(words: Iterable[Word]) -> list[Line]:
    """Cluster words into lines, top to bottom.

    Words of the usual size are told apart by their baselines, which hold where the boxes of an
    OCR engine are too tall. Smaller ones (superscripts, signs) join the line that they lean on.
    """
    ordered = sorted(words, key=lambda w: (w.baseline, w.box.left))
    if not ordered:
        return []
    # Not the median: a cell may hold one word and its superscript.
    small = 0.75 * sorted(word.font_size for word in ordered)[3 * len(ordered) // 4]
    groups: list[list[Word]] = []
    bases: list[float] = []
    for word in ordered:
        if word.font_size < small:
            continue
        near = SAME_BASELINE * word.font_size
        # In the order of baselines a word can only join the line opened last.
        if bases and word.baseline - bases[-1] <= near:
            groups[-1].append(word)
        else:
            groups.append([word])
            bases.append(word.baseline)
    lines = [_line(group) for group in groups]
    lines = _with_small(lines, [w for w in ordered if w.font_size < small])
    return sorted(lines, key=lambda line: line.middle)


def _line(words: Sequence[Word]) -> Line:
    base = statistics.median(word.baseline for word in words)
    size = statistics.median(word.font_size for word in words)
    ordered = sorted(words, key=lambda word: word.box.left)
    return Line(tuple(ordered), base - 0.8 * size, base + 0.2 * size)


def _with_small(lines: list[Line], small: Sequence[Word]) -> list[Line]:
    """Put small words into the line that they lean on; those that lean on none make their own."""
    joined: dict[int, list[Word]] = {}
    alone: list[list[Word]] = []
    middles = [line.middle for line in lines]
    for word in small:
        at = bisect.bisect(middles, word.box.center[1])
        near = [i for i in (at - 1, at) if 0 <= i < len(lines)]
        best = max(near, key=lambda i: _leaning(word, lines[i]), default=-1)
        if best >= 0 and _leaning(word, lines[best]) > LEANING:
            joined.setdefault(best, []).append(word)
        elif alone and word.baseline - alone[-1][0].baseline <= SAME_BASELINE * word.font_size:
            alone[-1].append(word)
        else:
            alone.append([word])
    out = []
    for at, line in enumerate(lines):
        words = sorted((*line.words, *joined.get(at, ())), key=lambda word: word.box.left)
        out.append(Line(tuple(words), line.top, line.bottom))
    return out + [_line(group) for group in alone]


def _leaning(word: Word, line: Line) -> float:
    """The share of a small word's height that lies in a line."""
    shared = min(line.bottom, word.box.bottom) - max(line.top, word.box.top)
    return shared / max(word.box.height, 1e-6)


def chunks_of(words: Sequence[Word], gap: float) -> list[Chunk]:
    """Part the words of one line, left to right, where more than ``gap`` page units are free."""
    out: list[Chunk] = []
    run: list[Word] = []
    right = 0.0
    for word in words:
        if run and word.box.left - right > gap:
            out.append(Chunk(tuple(run), run[0].box.left, right))
            run = []
        right = max(right, word.box.right) if run else word.box.right
        run.append(word)
    if run:
        out.append(Chunk(tuple(run), run[0].box.left, right))
    return out


def cell_text(words: Sequence[Word]) -> str:
    """The text of a cell: lines in order, single spaces, hyphenated wraps mended."""
    parts: list[str] = []
    for line in lines_of(words):
        text = make_line(line.words).text
        if parts and _hyphenated(parts[-1], text):
            parts[-1] = parts[-1][:-1] + text
        elif parts and _CJK.match(parts[-1][-1]) and _CJK.match(text[0]):
            parts[-1] += text
        else:
            parts.append(text)
    return " ".join(parts)


def _hyphenated(above: str, below: str) -> bool:
    return len(above) > 2 and above[-1] in "-‐\u00ad" and above[-2].isalpha() and below[0].islower()


def is_numeric(text: str) -> bool:
    """A number with its sign, currency, unit, error or footnote marker."""
    return bool(_NUMBER.match(text))


def is_value(text: str) -> bool:
    """A number, or one of the marks that stand where a number is missing."""
    return text in _BLANK or is_numeric(text)


def box_of(words: Sequence[Word]) -> Box:
    return union_all(word.box for word in words)
