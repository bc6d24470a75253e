from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from octavo.media.page import Pixels, Word
from octavo.readers.lines import Line
from octavo.readers.strokes import add_bullets, drawings, ink_of, measure, weigh
from octavo.types import Box

SIZE = 24


class Sheet:
    """A page picture and the lines on it, with boxes that are known."""

    def __init__(self, paper: int = 255) -> None:
        self.image = Image.new("RGB", (900, 700), (paper, paper, paper))
        self.draw = ImageDraw.Draw(self.image)
        self.font = ImageFont.load_default(SIZE)
        self.lines: list[Line] = []

    def write(self, text: str, x: float, baseline: float, stroke: int = 0) -> None:
        self.draw.text((x, baseline), text, "black", self.font, anchor="ls", stroke_width=stroke)
        right = x + self.draw.textlength(text, self.font)
        box = Box(x, baseline - 0.8 * SIZE, right, baseline + 0.2 * SIZE)
        self.lines.append(Line((Word(text, box, baseline, SIZE),)))

    @property
    def pixels(self) -> Pixels:
        return np.asarray(self.image)


@pytest.fixture
def sheet() -> Sheet:
    sheet = Sheet(paper=228)
    for i in range(8):
        sheet.write(f"the binder folds the sheet {i}", 120, 120 + 40 * i)
    return sheet


def test_bold_lines_have_thicker_strokes(sheet: Sheet) -> None:
    sheet.write("Of sewing on cords", 120, 500, stroke=1)
    found = weigh(sheet.lines, ink_of(sheet.pixels), 1.0)
    assert [line.bold for line in found] == [False] * 8 + [True]


def test_a_dot_before_a_line_is_a_bullet(sheet: Sheet) -> None:
    sheet.draw.ellipse((92, 225, 101, 234), "black")  # before the line at 240
    sheet.draw.ellipse((92, 276, 96, 280), "black")  # a full stop's size and place, at 280
    found = add_bullets(sheet.lines, ink_of(sheet.pixels), 1.0)
    assert [line.text.startswith("• ") for line in found] == [i == 3 for i in range(8)]


def test_ink_left_of_a_line_is_no_bullet(sheet: Sheet) -> None:
    sheet.write("xx", 80, 120)
    found = add_bullets(sheet.lines, ink_of(sheet.pixels), 1.0)
    assert not any(line.text.startswith("•") for line in found)


def test_drawings_are_large_and_no_letters(sheet: Sheet) -> None:
    sheet.draw.rectangle((500, 450, 700, 600), outline="black", width=6)
    sheet.draw.line((0, 650, 899, 650), "black", 2)
    found = drawings(sheet.lines, ink_of(sheet.pixels), 1.0)
    assert len(found) == 1
    assert found[0].intersection(Box(500, 450, 700, 600)) > 0.95 * found[0].area


def test_boxes_that_are_too_tall_are_cut_to_the_ink(sheet: Sheet) -> None:
    word = sheet.lines[0].words[0]
    tall = Line((Word(word.text, word.box.expand(12), word.baseline + 6, 2 * SIZE),))
    found = measure([tall, sheet.lines[1]], ink_of(sheet.pixels), 1.0)
    assert found[0].font_size < 1.45 * SIZE
    assert found[1].font_size == SIZE


@pytest.mark.parametrize("shape", [(9000, 1), (1, 9000), (2, 2)])
def test_odd_pictures(shape: tuple[int, int]) -> None:
    pixels = np.full((*shape, 3), 255, dtype=np.uint8)
    ink = ink_of(pixels)
    assert drawings([], ink, 1.0) == ()
    assert weigh([], ink, 1.0) == []
