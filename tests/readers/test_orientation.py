"""Orientation of drawn pages in all four turns."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from octavo.media.page import Pixels
from octavo.readers import orientation
from octavo.readers.orientation import find_rotation, turn

TEXT = "Meanwhile the engineer described three possible routes for the canal,\n" * 24


def draw(text: str, size: int) -> Pixels:
    image = Image.new("RGB", (1240, 1754), "white")
    ImageDraw.Draw(image).text((140, 180), text, "black", ImageFont.load_default(size))
    return np.asarray(image)


class ReadsWhen:
    """Finds a page legible when it equals the upright one."""

    def __init__(self, upright: Pixels) -> None:
        self.upright = upright
        self.asked = 0

    def legibility(self, pixels: Pixels) -> float:
        self.asked += 1
        return 0.95 if np.array_equal(pixels, self.upright) else 0.4


@pytest.mark.parametrize("text", [TEXT, "Chapter One", "A short note\nof two lines."])
@pytest.mark.parametrize("lies", [0, 90, 180, 270])
def test_finds_the_turn_that_rights_the_page(text: str, lies: int) -> None:
    upright = draw(text, 32)
    rotation, sure = find_rotation(turn(upright, lies))
    assert (rotation + lies) % 360 == 0
    assert sure > 0.5


def test_turn_is_clockwise() -> None:
    picture = np.zeros((2, 3, 3), np.uint8)
    picture[0, 0] = 255  # the top left corner goes to the top right
    assert turn(picture, 90).shape == (3, 2, 3)
    assert turn(picture, 90)[0, 1, 0] == 255
    assert np.array_equal(turn(turn(picture, 90), 270), picture)


def test_blank_pages_stay() -> None:
    assert find_rotation(np.full((1000, 700, 3), 255, np.uint8)) == (0, 0.0)
    assert find_rotation(np.full((1, 1, 3), 9, np.uint8)) == (0, 0.0)


@pytest.mark.parametrize(
    ("chances", "expected"), [((0.1, 0.1, 0.55, 0.25), 180), ((0.3, 0.2, 0.25, 0.25), 0)]
)
def test_an_unsure_verdict_is_settled_by_reading(
    monkeypatch: pytest.MonkeyPatch, chances: tuple[float, ...], expected: int
) -> None:
    upright = draw("Chapter One", 60)
    monkeypatch.setattr(
        orientation, "_classify", lambda tiles: np.array([chances] * len(tiles), np.float32)
    )
    lying = turn(upright, expected)
    assert find_rotation(lying) == (0, pytest.approx(chances[0]))  # nobody to ask: stays
    assert find_rotation(lying, ReadsWhen(upright))[0] == expected
    # The page reads well as it lies: the classifier is overruled.
    assert find_rotation(lying, ReadsWhen(lying))[0] == 0
