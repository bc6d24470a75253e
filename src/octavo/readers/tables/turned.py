"""Tables printed sideways: the page as seen along their lines."""

from __future__ import annotations

from dataclasses import dataclass, replace

from octavo.media.page import Ruling, Word
from octavo.types import Box, Table


def turn_of(angle: float) -> int:
    """The writing direction, to the nearest quarter turn: 0, 90, 180 or 270."""
    return round(angle / 90) * 90 % 360


@dataclass(frozen=True, slots=True)
class View:
    """The page seen along the lines of text written at ``turn`` degrees counter-clockwise."""

    page: Box
    turn: int

    def box(self, box: Box) -> Box:
        if self.turn == 90:  # upwards: the page's bottom is the left
            return Box(
                self.page.bottom - box.bottom, box.left, self.page.bottom - box.top, box.right
            )
        if self.turn == 270:  # downwards: the page's top is the left
            return Box(box.top, self.page.right - box.right, box.bottom, self.page.right - box.left)
        return box

    def unbox(self, box: Box) -> Box:
        if self.turn == 90:
            return Box(
                box.top, self.page.bottom - box.right, box.bottom, self.page.bottom - box.left
            )
        if self.turn == 270:
            return Box(self.page.right - box.bottom, box.left, self.page.right - box.top, box.right)
        return box

    def word(self, word: Word) -> Word:
        if not self.turn:
            return word
        box = self.box(word.box)
        return replace(word, box=box, baseline=box.bottom - 0.2 * word.font_size, angle=0.0)

    def ruling(self, ruling: Ruling) -> Ruling:
        if not self.turn:
            return ruling
        return Ruling(self.box(ruling.box), not ruling.horizontal)

    def unturn(self, table: Table) -> Table:
        """The table with the boxes of its cells on the page as it is."""
        cells = tuple(
            replace(cell, box=None if cell.box is None else self.unbox(cell.box))
            for cell in table.cells
        )
        return replace(table, cells=cells)
