"""The grid of a table without a lattice of lines: columns by rivers, rows by baselines.

Serves tables with level rules only (booktabs) and tables without any rule. Upright rules, where
there are some, are taken as boundaries of columns as well.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from octavo.media.page import Word
from octavo.readers.tables.columns import Columns, Piece, pieces_of, rivers, with_extents
from octavo.readers.tables.rows import Draft, body_rows, header_rows
from octavo.readers.tables.rulings import Level, Rule
from octavo.readers.tables.text import (
    CHUNK_GAP,
    Chunk,
    Line,
    box_of,
    cell_text,
    chunks_of,
    is_value,
    lines_of,
)
from octavo.types import Box, Table, TableCell

_GOES_RIGHT = frozenset(
    {"$", "€", "£", "¥", "₹", "₩", "US$", "(", "−", "-", "+", "±", "<", ">", "~"}
)
_GOES_LEFT = frozenset({"%", ")", ")%", "%)", "†", "‡", "*", "**", "***", "§", "pp", "°"})


@dataclass(frozen=True, slots=True)
class Aligned:
    """A table and what its finder needs to judge it."""

    table: Table
    columns: int
    #: Words in each line of each cell of the body, by column.
    run_lengths: tuple[tuple[int, ...], ...]


def structure(
    words: Sequence[Word],
    box: Box,
    levels: Sequence[Level],
    uprights: Sequence[Rule],
    em: float,
) -> Aligned | None:
    """The table of ``words``, or None when they have fewer than two columns or rows."""
    lines = lines_of(words)
    if len(lines) < 2:
        return None
    inner = [lv for lv in levels if lines[0].middle < lv.at < lines[-1].middle]
    full = [lv for lv in inner if _edge_to_edge(lv, box, em)]
    header_end = full[0].at if full else None
    rows = [chunks_of(line.words, CHUNK_GAP * em) for line in lines]
    head = sum(1 for line in lines if header_end is not None and line.middle < header_end)
    columns, head_guess = _columns(rows, head, box, uprights, em)
    if columns is None:
        return None
    placed = [pieces_of(row, columns, em) for row in rows]
    placed, columns = _tidy(placed, columns, rows)
    if len(columns) < 2:
        return None
    if not head:
        head = _guessed_head(placed, lines, inner, head_guess)
    drafts = header_rows(placed[:head], lines[:head], inner, columns, em)
    heads = len(drafts)
    drafts += body_rows(placed[head:], lines[head:], inner, len(columns))
    if len(drafts) < 2 or len(drafts) == heads:
        return None
    runs: list[list[int]] = [[] for _ in range(len(columns))]
    for pieces in placed[head:]:
        for piece in pieces:
            runs[piece.first].append(len(piece.chunk.words))
    return Aligned(
        _table(drafts, heads, len(columns)), len(columns), tuple(tuple(run) for run in runs)
    )


def _edge_to_edge(level: Level, box: Box, em: float) -> bool:
    """A rule under the whole header; a partial one leaves out at least the first column."""
    return (
        level.rules[0].start < box.left + 2 * em
        and level.rules[-1].end > box.right - 2 * em
        and level.covers(box.left, box.right) > 0.7
    )


def _columns(
    rows: Sequence[Sequence[Chunk]], head: int, box: Box, uprights: Sequence[Rule], em: float
) -> tuple[Columns | None, int]:
    """Columns from the body, and how many lines stood above it when no rule says so.

    A heading over several columns blocks their rivers: without a rule under the header, up to
    three lines are left out from the top while that shows more columns, or fewer that are only
    the space between two words of a heading.
    """
    cuts = sorted(
        rule.at
        for rule in uprights
        if box.left + em < rule.at < box.right - em and rule.covers(box.top, box.bottom) > 0.4
    )
    strips = list(zip([box.left, *cuts], [*cuts, box.right], strict=True))
    best: list[float] = []
    merit = (0, 0)
    skipped = 0
    for skip in (head,) if head else (0, 1, 2, 3):
        body = [row for row in rows[skip:] if len(row) > 1 or cuts]
        if len(body) < (1 if head else 3):
            break
        found = list(cuts)
        for left, right in strips:
            inside = [[c for c in row if left < (c.left + c.right) / 2 < right] for row in body]
            found += rivers(inside, left, right, em)
        found.sort()
        filled = _filled(rows, [box.left - em, *found, box.right + em])
        if found and (filled, filled - len(found) - 1) > merit:
            best, skipped, merit = found, skip, (filled, filled - len(found) - 1)
    if not best and not head:
        best = _two_rows(rows, box, em)
    if not best:
        return None, 0
    below = rows[head or skipped :]
    return with_extents([box.left - em, *best, box.right + em], below), skipped


def _filled(rows: Sequence[Sequence[Chunk]], bounds: Sequence[float]) -> int:
    """How many columns have a chunk that lies wholly in them."""
    return sum(
        any(left <= chunk.left and chunk.right <= right for row in rows for chunk in row)
        for left, right in itertools.pairwise(bounds)
    )


def _two_rows(rows: Sequence[Sequence[Chunk]], box: Box, em: float) -> list[float]:
    return rivers(rows, box.left, box.right, em) if len(rows) == 2 else []


def _tidy(
    placed: list[list[Piece]], columns: Columns, rows: Sequence[Sequence[Chunk]]
) -> tuple[list[list[Piece]], Columns]:
    """Join columns that hold only signs to their numbers, and halves that are never both full."""
    at = 0
    while at < len(columns) - 1:
        if _belong_together(placed, at):
            bounds = columns.bounds[: at + 1] + columns.bounds[at + 2 :]
            columns = with_extents(bounds, rows)
            placed = [_joined(pieces, at) for pieces in placed]
        else:
            at += 1
    return placed, columns


def _belong_together(placed: Sequence[Sequence[Piece]], at: int) -> bool:
    left: list[str] = []
    right: list[str] = []
    together = 0
    for pieces in placed:
        a = [p for p in pieces if p.first == p.last == at]
        b = [p for p in pieces if p.first == p.last == at + 1]
        left += [p.chunk.text for p in a]
        right += [p.chunk.text for p in b]
        together += bool(a and b)
    if left and all(text in _GOES_RIGHT for text in left):
        return True
    if right and all(text in _GOES_LEFT for text in right):
        return True
    if len(placed) >= 5 and len(right) == 1 and len(left) > 1:
        return True  # a far-off unit in a heading, not a column
    return not together and bool(left) != bool(right)


def _joined(pieces: Sequence[Piece], at: int) -> list[Piece]:
    """The pieces of a line after the columns ``at`` and ``at + 1`` have become one."""
    out: list[Piece] = []
    for piece in pieces:
        first = piece.first - (piece.first > at)
        last = piece.last - (piece.last > at)
        if out and out[-1].last == first == last == out[-1].first == at:
            both = (*out[-1].chunk.words, *piece.chunk.words)
            out[-1] = Piece(Chunk(both, both[0].box.left, both[-1].box.right), at, at)
        else:
            out.append(Piece(piece.chunk, first, last))
    return out


def _guessed_head(
    placed: Sequence[Sequence[Piece]],
    lines: Sequence[Line],
    levels: Sequence[Level],
    skipped: int,
) -> int:
    """Header lines where no rule ends them: bold, or words above numbers."""
    if skipped:
        return skipped + _wordy(placed[skipped:])
    bold = 0
    for line in lines:
        if not all(word.bold for word in line.words):
            break
        bold += 1
    if 0 < bold < len(lines) - 1 and bold <= 3:
        return bold
    cut = [lv.at for lv in levels if lv.at < lines[min(3, len(lines) - 1)].middle]
    if cut and len(levels) == 1:
        return sum(1 for line in lines if line.middle < cut[0])
    return _wordy(placed)


def _wordy(placed: Sequence[Sequence[Piece]]) -> int:
    """Leading lines without a number, above lines that have numbers in the same columns."""
    head = 0
    for pieces in placed[:4]:
        if any(is_value(p.chunk.text) for p in pieces if p.first > 0):
            break
        head += 1
    body = [p for pieces in placed[head:] for p in pieces if p.first > 0]
    numbers = sum(1 for p in body if is_value(p.chunk.text))
    if head == 0 or head >= min(4, len(placed)) or not body or numbers < 0.4 * len(body):
        return 0
    return head


def _table(drafts: Sequence[Draft], heads: int, cols: int) -> Table:
    cells: list[TableCell] = []
    covered = {
        (row + down, at)
        for row, draft in enumerate(drafts)
        for part in draft.parts
        for down in range(1, part.row_span)
        for at in range(part.first, part.last + 1)
    }
    for row, draft in enumerate(drafts):
        parts = {part.first: part for part in draft.parts}
        at = 0
        while at < cols:
            part = parts.get(at)
            if (row, at) in covered:
                at += 1
            elif part is None:
                cells.append(TableCell(row, at, "", header=row < heads))
                at += 1
            else:
                cells.append(
                    TableCell(
                        row=row,
                        col=at,
                        text=cell_text(part.words),
                        row_span=part.row_span,
                        col_span=part.last - at + 1,
                        header=row < heads,
                        box=box_of(part.words),
                    )
                )
                at = part.last + 1
    return Table(len(drafts), cols, tuple(cells))
