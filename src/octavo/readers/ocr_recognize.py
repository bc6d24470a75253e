"""Reading the letters of one line, with the place of each along the line."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from octavo.media.page import Pixels
from octavo.readers.ocr_models import RECOGNIZER, Model
from octavo.readers.ocr_quads import Quad

#: Height of a line as the recognizer sees it, pixels, and pixels to one of its time steps.
LINE_PX = 48
STEP_PX = 8
_MIN_PX = 48
#: Lines are made this much narrower than they are: time goes with the width, and clean print
#: does not suffer; worn print does, and gets more (docs/decisions/0002-ocr-engine.md).
SQUEEZE, SQUEEZE_WORN = 0.7, 0.9
#: A page is worn when more than this share of the lines that are tried first is doubtful.
_TRIED, _MOST_DOUBTS = 8, 0.2
#: A line is read again at this width when it holds more letters than this to a time step, or when
#: the mean chance of its letters is below this.
SQUEEZE_AGAIN, CROWDED, DOUBT = 1.2, 0.68, 0.93
#: Lines enlarged more than this are drawn smoothly.
_ENLARGED = 1.2
#: A line that is this much taller than wide runs upwards or downwards.
_UPRIGHT = 1.5
_BLANK = 0

Gray = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read in one quad.

    Attributes:
        text: the characters, spaces included.
        places: for each character, the middle of its time steps as pixels of ``crop``.
        chances: for each character, 0 to 1.
        crop: the line levelled, ``LINE_PX`` high, grey.
        to_page: 2 × 3, from pixels of ``crop`` to pixels of the page.
        upright: the line runs down the page and was turned to be read.
    """

    text: str
    places: npt.NDArray[np.float32]
    chances: npt.NDArray[np.float32]
    crop: Gray
    to_page: npt.NDArray[np.float64]
    upright: bool


class Recognizer:
    """Reads lines, several at a time. Calls are thread-safe."""

    def __init__(self, *, threads: int) -> None:
        # Lines differ in width: one line to a thread wastes nothing on padding and keeps all
        # cores busy, also while the letters of the last line are looked up.
        self._model = Model(RECOGNIZER, threads=1)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="octavo-ocr")
        self._letters = ["", *self._model.metadata("character").splitlines(), " "]

    def close(self) -> None:
        self._pool.shutdown()

    def read(self, pixels: Pixels, quads: Iterable[Quad], *, turn: bool = True) -> list[Reading]:
        """One reading for each quad, in their order; tall quads are turned unless told not to."""
        quads = list(quads)
        squeeze, tried = self._try_few(pixels, quads, turn)

        def one(i: int) -> Reading:
            first = tried.get(i) or self._read_at(pixels, quads[i], turn, squeeze)
            if not first.text or not _doubtful(first):
                return first
            again = self._read_at(pixels, quads[i], turn, SQUEEZE_AGAIN)
            return again if _mean(again.chances) >= _mean(first.chances) else first

        # The longest first, so that no thread is left alone with a long line at the end.
        order = sorted(range(len(quads)), key=lambda i: -quads[i].width / max(quads[i].height, 1))
        done = dict(zip(order, self._pool.map(one, order), strict=True))
        return [done[i] for i in range(len(quads))]

    def _try_few(
        self, pixels: Pixels, quads: list[Quad], turn: bool
    ) -> tuple[float, dict[int, Reading]]:
        """How far the lines of a page may be narrowed, and the readings that told.

        Clean print loses nothing when it is narrow, and is read in less time; of worn print too
        much would have to be read again.
        """
        if len(quads) < 2 * _TRIED:
            return SQUEEZE_WORN, {}
        few = range(0, len(quads), len(quads) // _TRIED)
        readings = self._pool.map(lambda i: self._read_at(pixels, quads[i], turn, SQUEEZE), few)
        tried = dict(zip(few, readings, strict=True))
        doubts = sum(_doubtful(reading) for reading in tried.values())
        if doubts > _MOST_DOUBTS * len(tried):
            return SQUEEZE_WORN, {}
        return SQUEEZE, tried

    def _read_at(self, pixels: Pixels, quad: Quad, turn: bool, squeeze: float) -> Reading:
        import cv2

        crop, to_page, upright = cut_line(pixels, quad, squeeze, turn=turn)
        batch = cv2.dnn.blobFromImage(crop, 1 / 127.5, mean=(127.5, 127.5, 127.5), swapRB=True)
        chance_tc = self._model(batch)[0]
        best = chance_tc.argmax(axis=1)
        first = np.flatnonzero((best != _BLANK) & (best != np.roll(best, 1)))
        if best[0] != _BLANK and (not len(first) or first[0] != 0):
            first = np.insert(first, 0, 0)
        # A character lasts until the best guess changes.
        changes = np.append(np.flatnonzero(best[1:] != best[:-1]) + 1, len(best))
        last = changes[np.searchsorted(changes, first, side="right")]
        return Reading(
            text="".join(self._letters[i] for i in best[first]),
            places=((first + last) / 2 * STEP_PX).astype(np.float32),
            chances=chance_tc[first, best[first]],
            crop=cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY),
            to_page=to_page,
            upright=upright,
        )


def _doubtful(reading: Reading) -> bool:
    """Whether a wider look may tell more: letters set as tight as the time steps, or guesses."""
    crowded = len(reading.text) * STEP_PX > CROWDED * reading.crop.shape[1]
    return crowded or _mean(reading.chances) < DOUBT


def _mean(chances: npt.NDArray[np.float32]) -> float:
    return float(chances.mean()) if len(chances) else 0.0


def cut_line(
    pixels: Pixels, quad: Quad, squeeze: float, *, turn: bool = True
) -> tuple[Pixels, npt.NDArray[np.float64], bool]:
    """The line of ``quad`` levelled and brought to the recognizer's height."""
    import cv2

    corners = quad.corners
    upright = turn and quad.height >= _UPRIGHT * quad.width
    if upright:  # read from the bottom to the top, as labels of axes are written
        corners = np.roll(corners, 1, axis=0)
    wide = float(np.linalg.norm(corners[1] - corners[0]))
    high = float(np.linalg.norm(corners[3] - corners[0]))
    scale = LINE_PX / high
    columns = max(_MIN_PX, round(wide * scale * squeeze / STEP_PX) * STEP_PX)
    target = np.array([[0, 0], [columns, 0], [0, LINE_PX]], np.float32)
    to_crop = cv2.getAffineTransform(corners[[0, 1, 3]].astype(np.float32), target)
    if scale < 0.5:  # far too large for plain interpolation: average first
        shrink = 2 * scale
        left, top = np.floor(corners.min(axis=0)).astype(int).clip(0)
        right, bottom = np.ceil(corners.max(axis=0)).astype(int) + 1
        part = pixels[top:bottom, left:right]
        small = cv2.resize(part, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        back = np.array([[1 / shrink, 0, left], [0, 1 / shrink, top], [0, 0, 1]])
        source, matrix = small, to_crop @ back
    else:
        source, matrix = pixels, to_crop
    crop = cv2.warpAffine(
        source,
        matrix,
        (columns, LINE_PX),
        flags=cv2.INTER_LINEAR if scale < _ENLARGED else cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if scale > _ENLARGED:  # the grain grew with the letters
        crop = cv2.GaussianBlur(crop, (3, 3), 0)
    return crop, cv2.invertAffineTransform(to_crop), upright
