"""The tables of a Markdown text as grids: pipe tables and HTML tables, spans expanded.

A cell that spans several places stands in each of them as the same object, so that a neighbour
can be told from the cell itself by identity.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

from benchmarks.documents.normalise import plain

#: A span beyond this is taken for a slip of the writer, not for a wide cell.
_MAX_SPAN = 1000
_RULE_ROW = re.compile(r"^\s*\|?\s*:?-{1,}:?\s*(\|\s*:?-{1,}:?\s*)*\|?\s*$")
_PIPE = re.compile(r"(?<!\\)\|")


@dataclass(eq=False, slots=True)
class Cell:
    """One cell; compared by identity."""

    text: str


@dataclass(slots=True)
class Grid:
    """``rows[r][c]`` is the cell that covers the place, or ``None``."""

    rows: list[list[Cell | None]] = field(default_factory=list)

    def at(self, row: int, col: int) -> Cell | None:
        if 0 <= row < len(self.rows) and 0 <= col < len(self.rows[row]):
            return self.rows[row][col]
        return None

    def places(self) -> Iterator[tuple[int, int, Cell]]:
        """Every covered place; a spanning cell comes once for each."""
        for r, row in enumerate(self.rows):
            for c, cell in enumerate(row):
                if cell is not None:
                    yield r, c, cell

    def walk(self, row: int, col: int, down: int, right: int) -> Iterator[Cell]:
        """The other cells met going from a place in one direction, nearest first."""
        last = self.at(row, col)
        height, width = len(self.rows), max(map(len, self.rows), default=0)
        row, col = row + down, col + right
        while 0 <= row < height and 0 <= col < width:
            cell = self.at(row, col)
            if cell is not None and cell is not last:
                yield cell
                last = cell
            row, col = row + down, col + right


def find_tables(markdown: str) -> list[Grid]:
    """All tables of ``markdown``, HTML ones first, each kind in order."""
    parser = _TableParser()
    parser.feed(markdown)
    parser.close()
    return [*parser.grids, *_pipe_tables(markdown)]


def _pipe_tables(markdown: str) -> Iterator[Grid]:
    grid = Grid()
    for line in [*markdown.splitlines(), ""]:
        if _PIPE.search(line):
            if not _RULE_ROW.match(line):
                grid.rows.append([Cell(plain(cell)) for cell in _split(line)])
        elif grid.rows:
            if len(grid.rows) > 1:
                yield grid
            grid = Grid()


def _split(line: str) -> list[str]:
    line = line.strip()
    parts = _PIPE.split(line)
    if parts and line.startswith("|"):
        parts = parts[1:]
    if len(parts) > 1 and not parts[-1].strip():
        parts = parts[:-1]
    return parts


class _TableParser(HTMLParser):
    """Fills grids as a browser does: a row-span reserves places in the rows below."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.grids: list[Grid] = []
        self._open: list[Grid] = []
        self._row: int = -1
        self._pieces: list[str] | None = None
        self._spans: tuple[int, int] = (1, 1)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self._end_cell()
            self._open.append(Grid())
            self._row = -1
        elif tag == "tr" and self._open:
            self._end_cell()
            self._row += 1
            self._grow(self._row)
        elif tag in ("td", "th") and self._open:
            self._end_cell()
            if self._row < 0:
                self._row = 0
                self._grow(0)
            given = dict(attrs)
            self._spans = (_span(given.get("rowspan")), _span(given.get("colspan")))
            self._pieces = []
        elif tag == "br" and self._pieces is not None:
            self._pieces.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th", "tr"):
            self._end_cell()
        elif tag == "table" and self._open:
            self._end_cell()
            self.grids.append(self._open.pop())
            self._row = len(self._open[-1].rows) - 1 if self._open else -1
        elif tag in ("p", "div", "li") and self._pieces is not None:
            self._pieces.append(" ")

    def handle_data(self, data: str) -> None:
        if self._pieces is not None:
            self._pieces.append(data)

    def close(self) -> None:
        super().close()
        self._end_cell()
        self.grids.extend(self._open)
        self._open.clear()

    def _grow(self, row: int) -> None:
        rows = self._open[-1].rows
        while len(rows) <= row:
            rows.append([])

    def _end_cell(self) -> None:
        if self._pieces is None or not self._open:
            return
        cell = Cell(plain("".join(self._pieces)))
        self._pieces = None
        rows, (down, right) = self._open[-1].rows, self._spans
        here = rows[self._row]
        col = next((c for c, held in enumerate(here) if held is None), len(here))
        for r in range(self._row, self._row + down):
            self._grow(r)
            row = rows[r]
            row.extend([None] * (col + right - len(row)))
            row[col : col + right] = [cell] * right


def _span(value: str | None) -> int:
    digits = (value or "").strip()
    return min(max(int(digits), 1), _MAX_SPAN) if digits.isdigit() else 1
