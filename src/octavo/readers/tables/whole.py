"""No word is lost: what stands in the box of a table stands in one of its cells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from octavo.media.page import Word
from octavo.readers.tables.text import box_of, cell_text
from octavo.types import Box, Table, TableCell

#: Characters that mending a hyphenated wrap takes away.
_MENDED = frozenset("-‐\u00ad")


def holds(table: Table, words: Iterable[Word]) -> bool:
    """Whether the letters of ``words`` are all in the cells; hyphens and spaces do not count."""
    wanted = _letters(word.text for word in words)
    return not wanted - _letters(cell.text for cell in table.cells)


def _letters(texts: Iterable[str]) -> Counter[str]:
    return Counter(
        char for text in texts for char in text if not char.isspace() and char not in _MENDED
    )


def with_turned(table: Table, words: Sequence[Word]) -> Table:
    """The table with words that are written along another direction put into its cells.

    A column's heading printed upwards goes to the cell of its column and row, or to the nearest
    one where that row has no text to tell its place.
    """
    at: dict[int, list[Word]] = {}
    for word in words:
        at.setdefault(_nearest(table, word.box), []).append(word)
    cells = list(table.cells)
    for index, strays in at.items():
        cell = cells[index]
        boxes = [box_of(strays)] if cell.box is None else [cell.box, box_of(strays)]
        text = f"{cell.text} {_turned_text(strays)}".strip()
        cells[index] = replace(cell, text=text, box=boxes[0].union(boxes[-1]))
    return replace(table, cells=tuple(cells))


def _turned_text(words: Sequence[Word]) -> str:
    """The words as read along their own direction."""
    upwards = sum(1 if word.angle > 0 else -1 for word in words) > 0
    level = []
    for word in words:
        box = word.box
        box = (
            Box(-box.bottom, box.left, -box.top, box.right)
            if upwards
            else Box(box.top, -box.right, box.bottom, -box.left)
        )
        level.append(replace(word, box=box, baseline=box.bottom - 0.2 * word.font_size, angle=0.0))
    return cell_text(level)


def _nearest(table: Table, box: Box) -> int:
    x, y = box.center
    rows = {c.row: c.box for c in table.cells if c.box is not None and c.row_span == 1}
    cols = {c.col: c.box for c in table.cells if c.box is not None and c.col_span == 1}

    def off(cell: TableCell) -> tuple[float, float]:
        row, col = rows.get(cell.row, cell.box), cols.get(cell.col, cell.box)
        down = 0.0 if row is None else max(row.top - y, y - row.bottom, 0.0)
        across = 0.0 if col is None else max(col.left - x, x - col.right, 0.0)
        return across + down, across

    return min(range(len(table.cells)), key=lambda index: off(table.cells[index]))
