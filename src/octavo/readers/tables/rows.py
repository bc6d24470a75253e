"""Rows from lines: which lines are one row, and which headings stand over several columns."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from octavo.media.page import Word
from octavo.readers.tables.columns import Columns, Piece
from octavo.readers.tables.heads import shared_out
from octavo.readers.tables.rulings import Level
from octavo.readers.tables.text import Line, is_value

#: Lines closer than this share of their height overlap: they are one row.
_INTERLOCKED = 0.62
#: The same for headings in different columns.
_LACED = 0.85
#: White strips between rows are wider than those within by this share of a line's height.
_STRIP = 0.3
#: Lines closer than this share of the usual distance between rows are one row.
_CLOSE = 0.85


@dataclass(frozen=True, slots=True)
class Part:
    """The words of one cell and the columns that it covers."""

    words: tuple[Word, ...]
    first: int
    last: int
    row_span: int = 1


@dataclass(slots=True)
class Draft:
    """A row in the making."""

    parts: list[Part] = field(default_factory=list)

    def columns(self) -> set[int]:
        return {at for part in self.parts for at in range(part.first, part.last + 1)}

    def add(self, pieces: Sequence[Piece]) -> None:
        """Put another line into the row: text goes to the cell that it lies under."""
        for piece in pieces:
            words, first, last = piece.chunk.words, piece.first, piece.last
            touching = [p for p in self.parts if p.first <= last and first <= p.last]
            for part in touching:
                self.parts.remove(part)
                words = part.words + words
                first, last = min(first, part.first), max(last, part.last)
            self.parts.append(Part(words, first, last))
        self.parts.sort(key=lambda part: part.first)


def _draft(pieces: Sequence[Piece]) -> Draft:
    draft = Draft()
    draft.add(pieces)
    return draft


def header_rows(
    placed: Sequence[Sequence[Piece]],
    lines: Sequence[Line],
    levels: Sequence[Level],
    columns: Columns,
    em: float,
) -> list[Draft]:
    """Rows of the header. A rule, or a heading over several headings, parts two of them."""
    placed, lines = _interlaced(placed, lines)
    drafts: list[Draft] = []
    under: list[Level | None] = []
    for at, pieces in enumerate(placed):
        rule = _level_between(lines, levels, at)
        if rule is not None:
            wide = _over_rule(pieces, rule, columns)
        else:
            below = placed[at + 1] if at + 1 < len(placed) else ()
            wide = _over_next(pieces, below, columns, em)
            if at + 1 < len(placed) and all(p.first == p.last for p in wide):
                wide = shared_out(pieces, below, placed[-1], columns, em)
        above = _level_between(lines, levels, at - 1) if at else None
        if drafts and above is None and not _parts_below(drafts[-1], wide):
            drafts[-1].add(wide)
            continue
        if drafts:
            under[-1] = above
        drafts.append(_draft(wide))
        under.append(None)
    _reach_down(drafts, under, columns)
    _mend_wraps(drafts, under, columns)
    _reach_up(drafts, under, columns)
    return drafts


def _interlaced(
    placed: Sequence[Sequence[Piece]], lines: Sequence[Line]
) -> tuple[list[list[Piece]], list[Line]]:
    """Join a line with one that overlaps it, such as a heading in the middle of two levels."""
    out: list[list[Piece]] = []
    kept: list[Line] = []
    for pieces, line in zip(placed, lines, strict=True):
        taken = {at for p in (out[-1] if out else ()) for at in range(p.first, p.last + 1)}
        places = {at for p in pieces for at in range(p.first, p.last + 1)}
        if kept and line.middle - kept[-1].middle < _LACED * line.height and not taken & places:
            out[-1] = sorted((*out[-1], *pieces), key=lambda piece: piece.first)
        else:
            out.append(list(pieces))
            kept.append(line)
    return out, kept


def _level_between(lines: Sequence[Line], levels: Sequence[Level], at: int) -> Level | None:
    """A rule between a line and the next."""
    if not 0 <= at < len(lines) - 1:
        return None
    top, bottom = lines[at].middle, lines[at + 1].middle
    return next((lv for lv in levels if top < lv.at < bottom), None)


def _over_rule(pieces: Sequence[Piece], rule: Level, columns: Columns) -> list[Piece]:
    """A partial rule under a heading shows the columns that it stands over."""
    out = []
    for piece in pieces:
        first, last = piece.first, piece.last
        for stroke in rule.rules:
            over = [
                col
                for col, (low, high) in enumerate(columns.extents)
                if stroke.covers(low, high) > 0.5
            ]
            alone = over and not any(
                other is not piece and over[0] <= other.first <= over[-1] for other in pieces
            )
            middle = (piece.chunk.left + piece.chunk.right) / 2
            if alone and stroke.start <= middle <= stroke.end and len(over) < len(columns):
                first, last = min(first, over[0]), max(last, over[-1])
        out.append(replace(piece, first=first, last=last))
    return out


def _over_next(
    pieces: Sequence[Piece], below: Sequence[Piece], columns: Columns, em: float
) -> list[Piece]:
    """Without rules, headings over two columns show by running over the boundary between them.

    All headings of the line must do so: one wide heading over narrow numbers may as well.
    """
    heads = [p for p in pieces if p.last > 0]
    taken = {at for p in pieces for at in range(p.first, p.last + 1)}
    filled = {p.first for p in below if p.first == p.last}
    out = {}
    for piece in heads:
        first = columns.at(piece.chunk.left + 0.5 * em)
        last = columns.at(piece.chunk.right - 0.5 * em)
        over = set(range(min(first, piece.first), max(last, piece.last) + 1))
        if len(over) < 2 or over - filled or (over - {piece.first, piece.last}) & taken:
            return list(pieces)
        out[id(piece)] = replace(piece, first=min(over), last=max(over))
    if len(out) < 2:
        return list(pieces)
    return [out.get(id(piece), piece) for piece in pieces]


def _parts_below(above: Draft, pieces: Sequence[Piece]) -> bool:
    """True when a heading over several columns has its own heading below in some of them."""
    for part in above.parts:
        if part.last == part.first:
            continue
        below = [p for p in pieces if part.first <= p.first and p.last <= part.last]
        if len(below) > 1 or (below and below[0].last - below[0].first < part.last - part.first):
            return True
    return False


def _reach_down(drafts: list[Draft], under: Sequence[Level | None], columns: Columns) -> None:
    """A heading with nothing below it in the header reaches down to the body."""
    for row, draft in enumerate(drafts):
        for at, part in enumerate(draft.parts):
            span = 1
            places = set(range(part.first, part.last + 1))
            while row + span < len(drafts) and not places & drafts[row + span].columns():
                rule = under[row + span - 1]
                low, high = columns.extents[part.first]
                if rule is not None and part.first == part.last and rule.covers(low, high) > 0.6:
                    break
                span += 1
            draft.parts[at] = replace(part, row_span=span)


def _reach_up(drafts: list[Draft], under: Sequence[Level | None], columns: Columns) -> None:
    """A heading in the middle of its levels covers the ones above it as those below."""
    for row in range(1, len(drafts)):
        for part in list(drafts[row].parts):
            low, high = columns.extents[part.first]
            top = row
            while top and part.row_span > 1 and part.first == part.last:
                rule = under[top - 1]
                covered = any(
                    p.first <= part.first <= p.last and above + p.row_span > top - 1
                    for above in range(top)
                    for p in drafts[above].parts
                )
                if covered or (rule is not None and rule.covers(low, high) > 0.3):
                    break
                top -= 1
            if top < row:
                drafts[row].parts.remove(part)
                drafts[top].parts.append(replace(part, row_span=part.row_span + row - top))
                drafts[top].parts.sort(key=lambda p: p.first)


def _mend_wraps(drafts: list[Draft], under: Sequence[Level | None], columns: Columns) -> None:
    """A heading under no other heading that wraps beside one over several is one cell."""
    for row in range(len(drafts) - 1):
        for part in list(drafts[row].parts):
            if part.first != part.last or part.row_span > 1:
                continue
            rule = under[row]
            next_row = drafts[row + 1].parts
            below = next((p for p in next_row if p.first == p.last == part.first), None)
            low, high = columns.extents[part.first]
            if below is None or (rule is not None and rule.covers(low, high) > 0.3):
                continue
            at = drafts[row].parts.index(part)
            span = 1 + below.row_span
            drafts[row].parts[at] = replace(part, words=part.words + below.words, row_span=span)
            drafts[row + 1].parts.remove(below)


def body_rows(
    placed: Sequence[Sequence[Piece]],
    lines: Sequence[Line],
    levels: Sequence[Level],
    cols: int,
) -> list[Draft]:
    """Rows of the body: a line opens a row unless it goes on with the one above."""
    usual = _usual_step(placed, lines, cols)
    if usual is None and not _ruled_off(lines, levels):
        parted = _by_gaps(placed, lines)
        if parted:
            return [_section(draft, cols) for draft in parted]
    numeric = _numeric_columns(placed)
    drafts: list[Draft] = []
    pending = False
    for at, pieces in enumerate(placed):
        if not pieces:
            continue
        if drafts and at and _level_between(lines, levels, at - 1) is None:
            step = lines[at].middle - lines[at - 1].middle
            overlap = step < _INTERLOCKED * min(lines[at].height, lines[at - 1].height)
            close = usual is not None and step < _CLOSE * usual
            if overlap or (pending and close) or _goes_on(drafts[-1], pieces, close, numeric):
                drafts[-1].add(pieces)
                pending = pending and {p.first for p in pieces} == {0}
                continue
        drafts.append(_draft(pieces))
        # A label that wraps has its numbers beside its last line in some tables.
        pending = {p.first for p in pieces} == {0} and usual is not None
    return [_section(draft, cols) for draft in drafts]


def _ruled_off(lines: Sequence[Line], levels: Sequence[Level]) -> bool:
    """Some rule between the lines runs along most of their width."""
    left = min(line.words[0].box.left for line in lines)
    right = max(line.words[-1].box.right for line in lines)
    between = (_level_between(lines, levels, at) for at in range(len(lines)))
    return any(level is not None and level.covers(left, right) > 0.5 for level in between)


def _by_gaps(placed: Sequence[Sequence[Piece]], lines: Sequence[Line]) -> list[Draft]:
    """Rows told apart by white strips from edge to edge that are of two clearly different widths.

    Serves cells that stand beside the middle of others: hardly a line has all columns.
    """
    if len(lines) < 4:
        return []
    size = statistics.median(line.height for line in lines)
    bottom = lines[0].bottom
    gaps = []
    for line in lines[1:]:
        gaps.append(line.top - bottom)
        bottom = max(bottom, line.bottom)
    strips = sorted(gaps)
    jumps = [(b - a, (a + b) / 2) for a, b in itertools.pairwise(strips)]
    jump, cut = max(jumps)
    wide = [gap for gap in gaps if gap > cut]
    if jump < _STRIP * size or len(wide) < 2 or jump < 0.5 * (max(wide) - min(wide)):
        return []
    drafts = [_draft(placed[0])]
    for gap, pieces in zip(gaps, placed[1:], strict=True):
        if gap > cut:
            drafts.append(_draft(pieces))
        else:
            drafts[-1].add(pieces)
    return drafts if all(len(draft.parts) > 1 for draft in drafts) else []


def _usual_step(
    placed: Sequence[Sequence[Piece]], lines: Sequence[Line], cols: int
) -> float | None:
    """The median distance between neighbouring lines that both fill most columns."""
    full = [len(pieces) >= max(2, 0.6 * cols) for pieces in placed]
    steps = [
        lines[at].middle - lines[at - 1].middle
        for at in range(1, len(placed))
        if full[at] and full[at - 1]
    ]
    return statistics.median(steps) if len(steps) >= 2 else None


def _numeric_columns(placed: Sequence[Sequence[Piece]]) -> set[int]:
    """Columns in which a number opens a row; in others it may end a text that wraps."""
    tally: dict[int, list[bool]] = {}
    for piece in (piece for pieces in placed for piece in pieces if piece.first):
        tally.setdefault(piece.first, []).append(is_value(piece.chunk.text))
    return {at for at, values in tally.items() if sum(values) > 0.4 * len(values)}


def _goes_on(above: Draft, pieces: Sequence[Piece], close: bool, numeric: set[int]) -> bool:
    texts = [piece.chunk.text for piece in pieces]
    places = {at for p in pieces for at in range(p.first, p.last + 1)}
    if any(piece.last > piece.first for piece in pieces):
        return False
    if any(is_value(t) and p.first in numeric for p, t in zip(pieces, texts, strict=True)):
        return False
    if not places <= above.columns():
        return False
    if close:
        return True
    if 0 not in places:
        return len(places) < len(above.columns())
    return all(text[0].islower() for text in texts) and len(above.columns()) > len(places)


def _section(draft: Draft, cols: int) -> Draft:
    """A title inside the table covers all columns."""
    if len(draft.parts) != 1:
        return draft
    part = draft.parts[0]
    styled = all(word.bold or word.italic for word in part.words)
    if part.last > part.first or (part.first == 0 and styled):
        return Draft([replace(part, first=0, last=cols - 1)])
    return draft
