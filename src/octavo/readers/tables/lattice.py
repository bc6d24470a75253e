"""Tables drawn as a lattice of lines: cells are what the lines enclose."""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from octavo.media.page import Word
from octavo.readers.tables.columns import rivers
from octavo.readers.tables.rulings import Rule
from octavo.readers.tables.text import (
    CHUNK_GAP,
    Line,
    box_of,
    cell_text,
    chunks_of,
    is_value,
    lines_of,
)
from octavo.types import Box, Table, TableCell

#: Lines that end this near to each other, in ems, meet.
_MEET = 0.5
#: The share of a cell's side that a line must run along to close it.
_CLOSED = 0.5
#: Rivers inside a ruled column must be wider than elsewhere: most are wide spaces.
_RIVER = 1.5


@dataclass(frozen=True, slots=True)
class Lattice:
    """Level and upright rules that meet."""

    level: tuple[Rule, ...]
    upright: tuple[Rule, ...]

    @property
    def box(self) -> Box:
        return Box(
            min([r.start for r in self.level] + [r.at for r in self.upright]),
            min([r.start for r in self.upright] + [r.at for r in self.level]),
            max([r.end for r in self.level] + [r.at for r in self.upright]),
            max([r.end for r in self.upright] + [r.at for r in self.level]),
        )


def lattices(level: Sequence[Rule], upright: Sequence[Rule], em: float) -> list[Lattice]:
    """Group the rules that meet, directly or over others."""
    near = _MEET * em
    parent = list(range(len(level) + len(upright)))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    for a, rule in enumerate(level):
        for b, wall in enumerate(upright, len(level)):
            if (
                rule.start - near <= wall.at <= rule.end + near
                and wall.start - near <= rule.at <= wall.end + near
            ):
                parent[root(a)] = root(b)
    groups: dict[int, tuple[list[Rule], list[Rule]]] = defaultdict(lambda: ([], []))
    for at in range(len(parent)):
        first, second = groups[root(at)]
        if at < len(level):
            first.append(level[at])
        else:
            second.append(upright[at - len(level)])
    return [Lattice(tuple(a), tuple(b)) for a, b in groups.values() if a and b]


def with_loose_rules(lattice: Lattice, level: Sequence[Rule], em: float) -> Lattice:
    """Add the level rules that lie over the lattice without meeting an upright one.

    Tables with upright rules that stop short of the level ones fall apart otherwise.
    """
    box = lattice.box
    more = [
        rule
        for rule in level
        if rule not in lattice.level
        and box.top - em <= rule.at <= box.bottom + em
        and rule.start >= box.left - em
        and rule.end <= box.right + em
    ]
    return Lattice((*lattice.level, *more), lattice.upright)


def _positions(rules: Sequence[Rule], near: float) -> list[float]:
    out: list[list[float]] = []
    for at in sorted(rule.at for rule in rules):
        if out and at - out[-1][-1] <= near:
            out[-1].append(at)
        else:
            out.append([at])
    return [sum(group) / len(group) for group in out]


class _Grid:
    """Boundaries, and for each place whether its right and lower side are closed."""

    def __init__(self, lattice: Lattice, words: Sequence[Word], em: float) -> None:
        self.lattice, self.words, self.em = lattice, words, em
        self.xs = _positions(lattice.upright, _MEET * em)
        self.ys = _positions(lattice.level, _MEET * em)
        self._outer_borders()
        self._drop_strays()
        #: Boundaries that no line draws: found from the words alone.
        self.soft_x: set[float] = set()
        self.soft_y: set[float] = set()

    def _outer_borders(self) -> None:
        """Where the outer border is not drawn, the ends of the crossing rules stand for it."""
        box, em = self.lattice.box, self.em
        for edge, at, ends in (
            (box.left, 0, self.xs),
            (box.right, len(self.xs), self.xs),
            (box.top, 0, self.ys),
            (box.bottom, len(self.ys), self.ys),
        ):
            end = ends[0] if at == 0 else ends[-1]
            if abs(edge - end) > em:
                ends.insert(0 if at == 0 else len(ends), edge)

    def _drop_strays(self) -> None:
        """Leave out boundaries whose rules close no side of a cell: strokes of letters, specks."""
        xs, ys, em = self.xs, self.ys, self.em
        level, upright = self.lattice.level, self.lattice.upright
        self.ys = [
            y
            for y in ys
            if y in (ys[0], ys[-1])
            or any(_closed(level, y, a, b, em) for a, b in itertools.pairwise(xs))
        ]
        self.xs = [
            x
            for x in xs
            if x in (xs[0], xs[-1])
            or any(_closed(upright, x, a, b, em) for a, b in itertools.pairwise(self.ys))
        ]

    def soften(self) -> None:
        """Part ruled columns and rows that hold several columns or rows of words."""
        rows = [chunks_of(line.words, CHUNK_GAP * self.em) for line in lines_of(self.words)]
        for left, right in zip(self.xs[:-1], self.xs[1:], strict=True):
            inside = [[c for c in row if left - 1 < c.left and c.right < right + 1] for row in rows]
            several = [row for row in inside if len(row) > 1]
            if len(several) >= 3 and 2 * len(several) > sum(1 for row in inside if row):
                self.soft_x.update(rivers(several, left, right, self.em, _RIVER))
        for top, bottom in zip(self.ys[:-1], self.ys[1:], strict=True):
            band = [w for w in self.words if top < w.box.center[1] < bottom]
            self.soft_y.update(self._row_cuts(band))
        self.xs = sorted({*self.xs, *self.soft_x})
        self.ys = sorted({*self.ys, *self.soft_y})

    def _row_cuts(self, band: Sequence[Word]) -> list[float]:
        """Cuts between the lines of a band that holds several rows, or none.

        Lines are rows when they agree over the columns: nearly all columns have every line.
        Two lines say little, so they must be numbers one above the other as well.
        """
        lines = lines_of(band)
        if len(lines) < 2:
            return []
        bounds = sorted({*self.xs, *self.soft_x})
        filled = [_filled(line, bounds) for line in lines]
        used = set().union(*filled)
        if len(used) < 2 or any(0 not in f and len(f) < len(used) for f in filled):
            return []
        whole = sum(1 for f in filled if len(f) >= 0.7 * len(used))
        numbers = sum(
            1 for line in lines if sum(1 for word in line.words if is_value(word.text)) > 0
        )
        if whole < len(lines) * 0.8 or (numbers < len(lines) and (len(lines) < 3 or not numbers)):
            return []
        return [(a.bottom + b.top) / 2 for a, b in itertools.pairwise(lines)]

    def open_right(self, row: int, col: int) -> bool:
        """Nothing parts this place from the one to its right."""
        x, top, bottom = self.xs[col + 1], self.ys[row], self.ys[row + 1]
        if x in self.soft_x:
            return any(
                w.box.left + 0.2 * self.em < x < w.box.right - 0.2 * self.em
                for w in self.words
                if top < w.box.center[1] < bottom
            )
        return not _closed(self.lattice.upright, x, top, bottom, self.em)

    def open_below(self, row: int, col: int) -> bool:
        y, left, right = self.ys[row + 1], self.xs[col], self.xs[col + 1]
        if y in self.soft_y:
            low = max((v for v in self.ys if v < y and v not in self.soft_y), default=y)
            high = min((v for v in self.ys if v > y and v not in self.soft_y), default=y)
            inside = [
                w
                for w in self.words
                if left < w.box.center[0] < right and low < w.box.center[1] < high
            ]
            return len(lines_of(inside)) == 1
        return not _closed(self.lattice.level, y, left, right, self.em)


def _filled(line: Line, bounds: Sequence[float]) -> set[int]:
    return {sum(1 for b in bounds[1:-1] if b < word.box.center[0]) for word in line.words}


def _closed(rules: Sequence[Rule], at: float, start: float, end: float, em: float) -> bool:
    share = sum(rule.covers(start, end) for rule in rules if abs(rule.at - at) <= _MEET * em)
    return share >= _CLOSED


def structure(lattice: Lattice, words: Sequence[Word], em: float) -> Table | None:
    """The table of a lattice, or None when it encloses fewer than two rows or columns."""
    grid = _Grid(lattice, words, em)
    if len(grid.xs) < 2 or len(grid.ys) < 2:
        return None
    grid.soften()
    rows, cols = len(grid.ys) - 1, len(grid.xs) - 1
    if rows < 2 or cols < 2:
        return None
    owner = _merged(grid, rows, cols)
    texts: dict[tuple[int, int], list[Word]] = defaultdict(list)
    for word in words:
        x, y = word.box.center
        col = sum(1 for bound in grid.xs[1:-1] if bound < x)
        row = sum(1 for bound in grid.ys[1:-1] if bound < y)
        texts[owner[row][col]].append(word)
    return _compact(_cells(owner, texts, rows, cols))


def _merged(grid: _Grid, rows: int, cols: int) -> list[list[tuple[int, int]]]:
    """For each place the first place of its cell; cells are rectangles."""
    owner = [[(row, col) for col in range(cols)] for row in range(rows)]
    for row in range(rows):
        for col in range(cols):
            if owner[row][col] != (row, col):
                continue
            last = col
            while (
                last + 1 < cols
                and owner[row][last + 1] == (row, last + 1)
                and (grid.open_right(row, last))
            ):
                last += 1
            low = row
            while low + 1 < rows and all(grid.open_below(low, at) for at in range(col, last + 1)):
                inner = all(grid.open_right(low + 1, at) for at in range(col, last))
                outer = last + 1 < cols and grid.open_right(low + 1, last)
                if not inner or outer:
                    break
                low += 1
            for r in range(row, low + 1):
                for c in range(col, last + 1):
                    owner[r][c] = (row, col)
    return owner


def _cells(
    owner: list[list[tuple[int, int]]],
    texts: dict[tuple[int, int], list[Word]],
    rows: int,
    cols: int,
) -> Table:
    extent: dict[tuple[int, int], tuple[int, int]] = {}
    for row in range(rows):
        for col in range(cols):
            extent[owner[row][col]] = (row, col)
    cells = []
    for (row, col), (low, last) in sorted(extent.items()):
        words = texts.get((row, col), [])
        cells.append(
            TableCell(
                row=row,
                col=col,
                text=cell_text(words) if words else "",
                row_span=low - row + 1,
                col_span=last - col + 1,
                box=box_of(words) if words else None,
            )
        )
    return Table(rows, cols, tuple(cells))


def _compact(table: Table) -> Table | None:
    """Drop the rows and columns that no cell with text begins or ends in: slivers of borders."""
    rows = [
        r
        for r in range(table.rows)
        if any(c.text and c.row <= r < c.row + c.row_span and c.row_span == 1 for c in table.cells)
        or any(c.text and (c.row == r) for c in table.cells)
    ]
    cols = [k for k in range(table.cols) if any(c.text and c.col == k for c in table.cells)]
    if len(rows) < 2 or len(cols) < 2:
        return None
    cells = []
    for cell in table.cells:
        high = [r for r in rows if cell.row <= r < cell.row + cell.row_span]
        wide = [k for k in cols if cell.col <= k < cell.col + cell.col_span]
        if not high or not wide:
            continue
        cells.append(
            TableCell(
                rows.index(high[0]),
                cols.index(wide[0]),
                cell.text,
                len(high),
                len(wide),
                False,
                cell.box,
            )
        )
    return with_header(Table(len(rows), len(cols), tuple(cells)))


def with_header(table: Table) -> Table:
    """Mark the header: rows under spanning headings, or a first row of words above numbers."""
    heads = 1
    first = [c for c in table.cells if c.row == 0]
    deepest = max((c.row + c.row_span for c in first if c.col_span < table.cols), default=1)
    if any(1 < c.col_span < table.cols for c in first) and deepest > 1:
        heads = deepest
    elif len(first) == 1 and table.rows > 2:
        heads = 2
    heads = min(heads, table.rows - 1)
    values = [is_value(c.text) for c in first if c.text and c.col > 0]
    if values and statistics.mean(values) > 0.5 and heads == 1 and not _years(first):
        heads = 0
    cells = tuple(
        TableCell(c.row, c.col, c.text, c.row_span, c.col_span, c.row < heads, c.box)
        for c in table.cells
    )
    return Table(table.rows, table.cols, cells)


def _years(cells: Sequence[TableCell]) -> bool:
    texts = [c.text for c in cells if c.col > 0 and c.text]
    return all(len(text) == 4 and text.isdigit() for text in texts)
