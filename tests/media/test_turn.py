"""Pictures and boxes turn alike."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from octavo.media.page import Pixels
from octavo.media.turn import turn, turn_box, turned_size
from octavo.types import Box

WIDE, HIGH = 300, 200
BOX = Box(125, 75, 185, 115)


def picture() -> Pixels:
    pixels = np.full((HIGH, WIDE, 3), 255, dtype=np.uint8)
    pixels[75:115, 125:185] = 0
    return pixels


def ink(pixels: Pixels) -> Box:
    ys, xs = np.nonzero(pixels[:, :, 0] < 128)
    return Box(xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_pixels_and_boxes_agree(rotation: int) -> None:
    turned = turn(picture(), rotation)
    assert turned.shape[1::-1] == turned_size(WIDE, HIGH, rotation)
    assert ink(turned) == turn_box(BOX, WIDE, HIGH, rotation)
    assert turned.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("skew", [-20.0, -1.5, 0.4, 3.0, 45.0])
def test_skewed_pixels_and_boxes_agree(rotation: int, skew: float) -> None:
    turned = turn(picture(), rotation, skew)
    assert turned.shape[1::-1] == turned_size(WIDE, HIGH, rotation)
    seen, said = ink(turned), turn_box(BOX, WIDE, HIGH, rotation, skew)
    for side in ("left", "top", "right", "bottom"):
        assert getattr(seen, side) == pytest.approx(getattr(said, side), abs=1.5), side


def test_clockwise_by_an_independent_library() -> None:
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    turned = Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(turn(pixels, 90), np.asarray(turned))


def test_counter_clockwise_by_an_independent_library() -> None:
    rotated = Image.fromarray(picture()).rotate(
        7, Image.Resampling.BILINEAR, fillcolor=(255, 255, 255)
    )
    difference = np.abs(turn(picture(), 0, 7).astype(int) - np.asarray(rotated).astype(int))
    assert difference.mean() < 0.5


def test_the_corners_fill_with_white() -> None:
    black = np.zeros((100, 100, 3), dtype=np.uint8)
    turned = turn(black, 0, 45)
    assert turned[0, 0].tolist() == [255, 255, 255]
    assert turned[50, 50].tolist() == [0, 0, 0]


def test_the_source_is_left_alone() -> None:
    pixels = picture()
    turned = turn(pixels, 0, 3.0)
    turned[:] = 7
    assert np.array_equal(pixels, picture())


@pytest.mark.parametrize("rotation", [45, -90, 360])
def test_other_rotations_are_refused(rotation: int) -> None:
    with pytest.raises(ValueError, match="rotation"):
        turn(picture(), rotation)
