"""Finding the lines of a picture: a differentiable-binarization detector and its boxes."""

from __future__ import annotations

import itertools

import numpy as np

from octavo.media.page import Pixels
from octavo.readers.ocr_models import DETECTOR, Model
from octavo.readers.ocr_quads import Quad, find_quads, split_doubles

#: The network halves its input five times.
_STEP = 32
#: Height of the letter x, in pixels, at which the detector is asked to look.
TARGET_LETTER = 9.5
_MIN_RATIO, _MAX_RATIO = 0.4, 2.0
#: Pixels of a page that the detector sees at most.
_MAX_PIXELS = 4_000_000
#: Pixels that it sees at once; it holds about 250 bytes for each.
_STRIP_PIXELS = 800_000
#: Rows above and below a strip that are seen with it and not kept.
_MARGIN = 2 * _STEP


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
        chance = np.empty((high, wide), np.float32)
        for top, bottom, first, last in strips(high, wide):
            # The network was trained on blue, green, red between -1 and 1.
            batch = cv2.dnn.blobFromImage(
                shrunk[top:bottom], 1 / 127.5, mean=(127.5, 127.5, 127.5), swapRB=True
            )
            chance[first:last] = self._model(batch)[0, 0, first - top : last - top]
        return split_doubles(pixels, find_quads(chance, width, height))


def strips(high: int, wide: int) -> list[tuple[int, int, int, int]]:
    """Rows to look at together, and those of them to keep: top, bottom, first, last."""
    count = -(-high * wide // _STRIP_PIXELS)
    edges = [round(high * i / count / _STEP) * _STEP for i in range(count)] + [high]
    out = []
    for first, last in itertools.pairwise(edges):
        top = max(0, first - _MARGIN)
        bottom = min(high, last + _MARGIN)
        out.append((top, bottom, first, last))
    return out


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
    return min(ratio, float((_MAX_PIXELS / area) ** 0.5))


def _multiple(side: float) -> int:
    return max(_STEP, round(side / _STEP) * _STEP)
