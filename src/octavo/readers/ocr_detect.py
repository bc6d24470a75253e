"""Finding the lines of a picture: a differentiable-binarization detector and its boxes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from octavo.media.page import Pixels
from octavo.readers.ocr_models import DETECTOR, Model

#: The network halves its input five times.
_STEP = 32
#: Height of the letter x, in pixels, at which the detector is asked to look.
TARGET_LETTER = 12.0
_MIN_RATIO, _MAX_RATIO = 0.4, 2.0
#: Pixels that the detector sees at most; it holds about 150 bytes for each.
_MAX_PIXELS = 4_000_000
_INK, _BOX = 0.3, 0.5
_UNCLIP = 1.6
_MIN_SIDE = 3.0


@dataclass(frozen=True, slots=True)
class Quad:
    """A turned rectangle around a line: corners clockwise from the top left, pixels."""

    corners: npt.NDArray[np.float32]
    score: float

    @property
    def width(self) -> float:
        return float(np.linalg.norm(self.corners[1] - self.corners[0]))

    @property
    def height(self) -> float:
        return float(np.linalg.norm(self.corners[3] - self.corners[0]))


class Detector:
    """Finds lines of text. Calls are thread-safe."""

    def __init__(self, *, threads: int) -> None:
        self._model = Model(DETECTOR, threads=threads)

    def find(self, pixels: Pixels, ratio: float | None = None) -> list[Quad]:
        """Lines in no particular order; ``ratio`` overrides the size that the detector sees."""
        import cv2

        height, width = pixels.shape[:2]
        if ratio is None:
            ratio = detection_ratio(letter_height(pixels), height * width)
        wide, high = (_multiple(side * ratio) for side in (width, height))
        shrunk = cv2.resize(
            pixels, (wide, high), interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
        )
        # The network was trained on blue, green, red between -1 and 1.
        batch = cv2.dnn.blobFromImage(shrunk, 1 / 127.5, mean=(127.5, 127.5, 127.5), swapRB=True)
        chance = self._model(batch)[0, 0]
        return _quads(chance, width / wide, height / high, width, height)


def letter_height(pixels: Pixels) -> float | None:
    """The height in pixels of the smaller print's letters without ascenders, by a look at
    connected blots; None when there are too few to tell."""
    import cv2

    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    # Grain of the paper would pass for tiny letters.
    gray = cv2.GaussianBlur(gray, (3, 3), 0)
    _, ink = cv2.threshold(gray, 0, 255, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
    if np.count_nonzero(ink) * 2 > ink.size:
        ink = 255 - ink
    _, _, stats, _ = cv2.connectedComponentsWithStats(ink, connectivity=8)
    wide = stats[1:, cv2.CC_STAT_WIDTH]
    high = stats[1:, cv2.CC_STAT_HEIGHT]
    area = stats[1:, cv2.CC_STAT_AREA]
    letters = (
        (high >= 4)
        & (high <= 120)
        & (wide >= 0.3 * high)
        & (wide <= 3 * high)
        & (area >= 0.15 * wide * high)
    )
    heights = high[letters]
    if len(heights) < 20:
        return None
    return float(np.percentile(heights[heights >= 0.4 * np.median(heights)], 20))


def detection_ratio(letter: float | None, area: int) -> float:
    """By how much to shrink or enlarge a picture of ``area`` pixels for the detector."""
    ratio = 1.0 if letter is None else TARGET_LETTER / letter
    ratio = min(max(ratio, _MIN_RATIO), _MAX_RATIO)
    return min(ratio, (_MAX_PIXELS / area) ** 0.5)


def _multiple(side: float) -> int:
    return max(_STEP, round(side / _STEP) * _STEP)


def _quads(
    chance: npt.NDArray[np.float32], per_x: float, per_y: float, width: int, height: int
) -> list[Quad]:
    import cv2

    mask = (chance > _INK).astype(np.uint8)
    mask = cv2.dilate(mask, np.ones((2, 2), np.uint8))
    contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    quads = []
    for contour, links in zip(contours, hierarchy[0] if hierarchy is not None else (), strict=True):
        if links[3] >= 0:  # the edge of a hole
            continue
        center, (side_a, side_b), angle = cv2.minAreaRect(contour)
        if min(side_a, side_b) < _MIN_SIDE:
            continue
        score = _mean_chance(chance, cv2.boxPoints((center, (side_a, side_b), angle)))
        if score < _BOX:
            continue
        # The network marks the core of a line; this is the usual way back to its outline.
        grow = side_a * side_b * _UNCLIP / (side_a + side_b)
        corners = cv2.boxPoints((center, (side_a + grow, side_b + grow), angle))
        corners *= (per_x, per_y)
        corners[:, 0] = corners[:, 0].clip(0, width - 1)
        corners[:, 1] = corners[:, 1].clip(0, height - 1)
        quads.append(Quad(_clockwise(corners), score))
    return [quad for quad in quads if quad.width > _MIN_SIDE and quad.height > _MIN_SIDE]


def _mean_chance(chance: npt.NDArray[np.float32], corners: Any) -> float:
    import cv2

    high, wide = chance.shape
    left, top = np.floor(corners.min(axis=0)).astype(int).clip(0, (wide - 1, high - 1))
    right, bottom = np.ceil(corners.max(axis=0)).astype(int).clip(0, (wide - 1, high - 1))
    mask = np.zeros((bottom - top + 1, right - left + 1), np.uint8)
    cv2.fillPoly(mask, [(corners - (left, top)).astype(np.int32)], 1)
    return float(cv2.mean(chance[top : bottom + 1, left : right + 1], mask)[0])


def _clockwise(corners: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The same corners, starting at the top left one."""
    by_x = corners[np.argsort(corners[:, 0], kind="stable")]
    left, right = by_x[:2], by_x[2:]
    left = left[np.argsort(left[:, 1], kind="stable")]
    right = right[np.argsort(right[:, 1], kind="stable")]
    return np.stack([left[0], right[0], right[1], left[1]]).astype(np.float32)
