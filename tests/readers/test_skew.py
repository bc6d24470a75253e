"""Skew of drawn pages that were turned by a known angle."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from octavo.readers.skew import find_skew

WORDS = ("further", "evidence", "from", "the", "northern", "districts", "where", "prices")


@functools.cache
def page(columns: int = 1, size: int = 22) -> Image.Image:
    image = Image.new("RGB", (1000, 1300), "white")
    canvas = ImageDraw.Draw(image)
    font = ImageFont.load_default(size)
    width = 840 / columns
    for column in range(columns):
        # Columns whose lines do not stand side by side, as in a newspaper.
        for row in range(28):
            text = " ".join(WORDS[(row + i) % len(WORDS)] for i in range(11))
            while font.getlength(text) > width - 30:
                text = text.rsplit(" ", 1)[0]
            canvas.text(
                (80 + column * width, 90 + 7 * column + row * 1.8 * size), text, "black", font
            )
    return image


@pytest.mark.parametrize("angle", [-12, -5.3, -1.1, -0.3, 0, 0.4, 2.7, 8.2, 12])
@pytest.mark.parametrize("columns", [1, 3])
def test_undoes_the_turn(angle: float, columns: int) -> None:
    turned = page(columns, 22 if columns == 1 else 16).rotate(
        angle, Image.Resampling.BICUBIC, expand=True, fillcolor="white"
    )
    assert find_skew(np.asarray(turned)) == pytest.approx(-angle, abs=0.1)


def test_a_dark_border_and_a_picture_do_not_mislead() -> None:
    turned = page().rotate(3.0, Image.Resampling.BICUBIC, fillcolor="white")
    canvas = ImageDraw.Draw(turned)
    canvas.rectangle((0, 0, 40, 1300), fill="black")
    canvas.rectangle((300, 300, 700, 520), fill="#777777")
    assert find_skew(np.asarray(turned)) == pytest.approx(-3.0, abs=0.1)


def test_no_text_is_level() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (800, 600, 3), dtype=np.uint8)
    assert find_skew(noise) == 0
    assert find_skew(np.full((800, 600, 3), 255, np.uint8)) == 0
    assert find_skew(np.zeros((3, 3, 3), np.uint8)) == 0
