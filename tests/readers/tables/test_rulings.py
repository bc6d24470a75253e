"""Lines in pictures, and which drawn strokes count as rules."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from octavo.media.page import Ruling, Word
from octavo.readers.tables import find_tables, rulings_from_pixels
from octavo.readers.tables.rulings import rules_of
from octavo.types import Box


def picture(background: str = "white") -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (850, 1100), background)
    return image, ImageDraw.Draw(image)


@pytest.mark.parametrize("background", ["white", "#8db3e2", "#444444"])
@pytest.mark.parametrize("width", [1, 3])
def test_a_drawn_grid_comes_back(background: str, width: int) -> None:
    image, draw = picture(background)
    ys, xs = (200, 260, 320, 500), (100, 300, 420, 700)
    for y in ys:
        draw.line((100, y, 700, y), fill="black", width=width)
    for x in xs:
        draw.line((x, 200, x, 500), fill="black", width=width)
    found = rulings_from_pixels(np.asarray(image), 2.0)
    level = sorted((r.box.top + r.box.bottom) / 2 * 2 for r in found if r.horizontal)
    upright = sorted((r.box.left + r.box.right) / 2 * 2 for r in found if not r.horizontal)
    assert level == pytest.approx(ys, abs=2.5)
    assert upright == pytest.approx(xs, abs=2.5)
    assert all(abs(r.box.width - 300) < 4 for r in found if r.horizontal)


def test_letters_are_no_lines() -> None:
    image, draw = picture()
    for y in range(60, 1000, 22):
        draw.text((60, y), "The quick brown fox HILTE |||| ---- jumps over it " * 2, fill="black")
    assert rulings_from_pixels(np.asarray(image), 1.0) == ()


def test_a_slightly_slanted_line_is_one_line() -> None:
    image, draw = picture()
    draw.line((100, 300, 700, 303), fill="black", width=2)
    (found,) = rulings_from_pixels(np.asarray(image), 1.0)
    assert found.horizontal
    assert found.box.width == pytest.approx(600, abs=8)


def test_a_blank_picture_has_none() -> None:
    assert rulings_from_pixels(np.full((40, 30, 3), 255, np.uint8), 1.0) == ()


def test_double_and_broken_strokes_become_one_rule_and_underlines_none() -> None:
    word = Word("link", Box(300, 42, 340, 52), 50, 10)
    strokes = [
        Ruling(Box(10, 100, 60, 100.5), True),
        Ruling(Box(61, 100, 200, 100.5), True),
        Ruling(Box(10, 102, 200, 102.5), True),
        Ruling(Box(300, 51, 340, 51.4), True),
        Ruling(Box(5, 20, 5.5, 90), False),
    ]
    level, upright = rules_of(strokes, [word], 10)
    assert [(r.start, r.end) for r in level] == [(10, 200)]
    assert [(r.start, r.end) for r in upright] == [(20, 90)]


def test_a_thick_bar_counts_as_its_two_edges() -> None:
    level, _ = rules_of([Ruling(Box(10, 100, 200, 114), True)], [], 10)
    assert [r.at for r in level] == [100, 114]


def test_a_picture_of_a_table_is_read_like_a_drawn_one() -> None:
    image, draw = picture()
    words = []
    for row in range(4):
        draw.line((100, 200 + 40 * row, 700, 200 + 40 * row), fill="black")
        for col in range(3):
            x, y = 110 + 200 * col, 210 + 40 * row
            words.append(Word(f"r{row}c{col}", Box(x, y, x + 50, y + 20), y + 16, 20))
    draw.line((100, 360, 700, 360), fill="black")
    for x in (100, 300, 500, 700):
        draw.line((x, 200, x, 360), fill="black")
    rulings = rulings_from_pixels(np.asarray(image), 1.0)
    (found,) = find_tables(words, rulings, page=Box(0, 0, 850, 1100))
    assert found.kind == "ruled"
    assert [c.text for c in found.table.cells] == [f"r{r}c{c}" for r in range(4) for c in range(3)]
