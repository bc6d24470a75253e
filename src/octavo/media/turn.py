"""Turning a picture and its boxes upright, alike."""

from __future__ import annotations

import math

import numpy as np

from octavo.media.page import Pixels
from octavo.types import Box

_TURNS = (0, 90, 180, 270)


def turned_size(width: float, height: float, rotation: int) -> tuple[float, float]:
    """Width and height after a turn by ``rotation`` degrees clockwise."""
    return (height, width) if _checked(rotation) in (90, 270) else (width, height)


def turn(pixels: Pixels, rotation: int, skew: float = 0.0) -> Pixels:
    """A picture turned clockwise by ``rotation``, then counter-clockwise by ``skew``.

    Args:
        pixels: height × width × 3.
        rotation: 0, 90, 180 or 270 degrees.
        skew: degrees, any; the picture keeps its size, its corners are cut, and paper white
            comes in where nothing was.

    Raises:
        ValueError: another ``rotation``.
    """
    turned = np.ascontiguousarray(np.rot90(pixels, k=-_checked(rotation) // 90))
    if skew == 0.0:
        return turned
    # OpenCV takes most of the time that importing this package would need.
    import cv2

    high, wide = turned.shape[:2]
    # Pixel centres are whole numbers to OpenCV: the middle of the picture is half a pixel less.
    matrix = cv2.getRotationMatrix2D(((wide - 1) / 2, (high - 1) / 2), skew, 1.0)
    out: Pixels = cv2.warpAffine(
        turned,
        matrix,
        (wide, high),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(255, 255, 255),
    ).astype(np.uint8, copy=False)
    return out


def turn_box(box: Box, width: float, height: float, rotation: int, skew: float = 0.0) -> Box:
    """Where ``box`` lies after ``turn`` with the same arguments.

    Args:
        box: in a picture or page of ``width`` × ``height``.
        skew: as for ``turn``; the result is the upright box around the turned one.
    """
    match _checked(rotation):
        case 90:
            box = Box(height - box.bottom, box.left, height - box.top, box.right)
        case 180:
            box = Box(width - box.right, height - box.bottom, width - box.left, height - box.top)
        case 270:
            box = Box(box.top, width - box.right, box.bottom, width - box.left)
    if skew == 0.0:
        return box
    wide, high = turned_size(width, height, rotation)
    cosine, sine = math.cos(math.radians(skew)), math.sin(math.radians(skew))
    x, y = box.center
    x, y = x - wide / 2, y - high / 2
    # Counter-clockwise as seen, with y down.
    x, y = x * cosine + y * sine + wide / 2, y * cosine - x * sine + high / 2
    half_wide = (box.width * abs(cosine) + box.height * abs(sine)) / 2
    half_high = (box.width * abs(sine) + box.height * abs(cosine)) / 2
    return Box(x - half_wide, y - half_high, x + half_wide, y + half_high)


def _checked(rotation: int) -> int:
    if rotation not in _TURNS:
        raise ValueError(f"rotation must be one of {_TURNS}, not {rotation}")
    return rotation
