"""Candidates for tables without rules: runs of lines made of short, aligned chunks."""

from __future__ import annotations

from collections.abc import Sequence

from octavo.media.page import Word
from octavo.readers.tables.text import Chunk, Line, box_of, chunks_of, lines_of
from octavo.types import Box

#: A gap between chunks, in ems: wider than in justified text.
_GAP = 1.1
#: A chunk with at least this many words and this many ems may be a line of running text.
_LONG_WORDS = 5
_LONG_EMS = 14.0
#: Rows of a table are at most this many line heights apart.
_STEP = 2.6


def candidates(words: Sequence[Word], em: float) -> list[Box]:
    """Boxes around three or more lines with at least two short chunks each."""
    lines = lines_of(words)
    rows = [chunks_of(line.words, _GAP * em) for line in lines]
    prose = _prose(rows, lines, em)
    rows = [[c for c in row if id(c) not in prose] for row in rows]
    out: list[Box] = []
    run: list[int] = []
    for at, row in enumerate(rows):
        if not row:
            continue
        apart = run and lines[at].middle - lines[run[-1]].middle > _STEP * 1.2 * em
        if run and (apart or not _over(rows[run[-1]], row)):
            out += _boxes(run, rows)
            run = []
        run.append(at)
    out += _boxes(run, rows)
    return out


def _prose(rows: Sequence[Sequence[Chunk]], lines: Sequence[Line], em: float) -> set[int]:
    """Ids of long chunks that have another long chunk right above or below."""
    long: list[tuple[int, Chunk]] = [
        (at, c)
        for at, row in enumerate(rows)
        for c in row
        if len(c.words) >= _LONG_WORDS and c.right - c.left >= _LONG_EMS * em
    ]
    out: set[int] = set()
    for index, (at, chunk) in enumerate(long):
        for other_at, other in long[index + 1 :]:
            if lines[other_at].middle - lines[at].middle > _STEP * em:
                break
            if other_at > at and min(chunk.right, other.right) - max(
                chunk.left, other.left
            ) > 0.5 * (chunk.right - chunk.left):
                out.update((id(chunk), id(other)))
    return out


def _over(above: Sequence[Chunk], below: Sequence[Chunk]) -> bool:
    """Some chunk of the one line lies over one of the other."""
    return any(a.left < b.right and b.left < a.right for a in above for b in below)


def _boxes(run: Sequence[int], rows: Sequence[Sequence[Chunk]]) -> list[Box]:
    """The part of a run from its first to its last line with two chunks, where there are three."""
    several = [at for at in run if len(rows[at]) > 1]
    if len(several) < 3 or len(several) < 0.6 * sum(
        1 for at in run if several[0] <= at <= several[-1]
    ):
        return []
    words = [
        word
        for at in run
        if several[0] <= at <= several[-1]
        for chunk in rows[at]
        for word in chunk.words
    ]
    return [box_of(words)]
