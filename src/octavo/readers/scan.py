"""Pages without a sound text layer: turned upright, levelled and read from their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from octavo.media.page import Page, Pixels, Ruling, Word
from octavo.media.turn import turn
from octavo.readers.lines import Line
from octavo.readers.ocr import OcrEngine
from octavo.readers.ocr_detect import letter_height
from octavo.readers.orientation import find_rotation
from octavo.readers.skew import find_skew
from octavo.readers.strokes import add_bullets, drawings, ink_of, measure, weigh
from octavo.readers.tables import rulings_from_pixels
from octavo.types import Box

#: Where the letter x is lower than this a larger drawing of the page is read.
_SMALL_PRINT_PX = 10.0
_LARGEST_ZOOM = 1.7
_LEAST_SKEW = 0.25  # degrees; less does not bend a line by a letter's height


@dataclass(frozen=True, slots=True)
class Scan:
    """What was read, in units of the page after ``rotation`` and ``skew`` (see PageResult)."""

    lines: tuple[Line, ...]
    rulings: tuple[Ruling, ...]
    shapes: tuple[Box, ...]
    rotation: int
    skew: float


class ScanReader:
    """The OCR engine and what surrounds it; loads at first use.

    Args:
        dpi: resolution for PDF pages. max_long_edge_px: cap for it.
    """

    def __init__(self, dpi: float, max_long_edge_px: int | None) -> None:
        self._dpi = dpi
        self._cap = max_long_edge_px
        self._loaded: OcrEngine | None = None

    @property
    def _engine(self) -> OcrEngine:
        if self._loaded is None:
            self._loaded = OcrEngine()
        return self._loaded

    def close(self) -> None:
        if self._loaded is not None:
            self._loaded.close()
            self._loaded = None

    def read(self, page: Page) -> Scan:
        """Read a whole page."""
        scale = page.natural_scale(self._dpi, self._cap)
        pixels = page.render(scale)
        rotation, _ = find_rotation(pixels, self._engine)
        pixels = turn(pixels, rotation, 0.0)
        skew = find_skew(pixels)
        skew = round(skew, 2) if abs(skew) >= _LEAST_SKEW else 0.0
        pixels = turn(pixels, 0, skew)
        larger = self._zoom(page, pixels, scale)
        if larger > 1.15 * scale:
            scale = larger
            pixels = turn(page.render(scale), rotation, skew)
        lines = self._engine.read(pixels, scale)
        rulings = rulings_from_pixels(pixels, scale)
        ink = ink_of(pixels)
        found = measure([Line(line.words) for line in lines if line.words], ink, scale)
        found = weigh(found, ink, scale)
        shapes = drawings(found, ink, scale)
        return Scan(tuple(add_bullets(found, ink, scale)), rulings, shapes, rotation, skew)

    def _zoom(self, page: Page, pixels: Pixels, scale: float) -> float:
        """The scale at which small print is large enough, or the same one."""
        height = letter_height(pixels)
        if height is None or height >= _SMALL_PRINT_PX:
            return scale
        factor = min(1.25 * _SMALL_PRINT_PX / height, _LARGEST_ZOOM)
        return page.natural_scale(self._dpi * factor, self._cap)

    def read_boxes(self, page: Page, boxes: Sequence[Box]) -> list[tuple[str, float]]:
        """Text and confidence of single level words of the page, as it lies."""
        scale = page.natural_scale(self._dpi, self._cap)
        return self._engine.read_boxes(page.render(scale), scale, boxes)

    def read_region(self, page: Page, box: Box) -> list[Word]:
        """The words in one spot of the page, as it lies, in page units."""
        scale = page.natural_scale(self._dpi, self._cap)
        inside = Box(
            max(box.left, 0.0),
            max(box.top, 0.0),
            min(box.right, page.width),
            min(box.bottom, page.height),
        )
        if inside.area <= 0:
            return []
        lines = self._engine.read(page.render(scale, inside), scale)
        return [_moved(w, inside.left, inside.top) for line in lines for w in line.words]


def _moved(word: Word, x: float, y: float) -> Word:
    box = Box(word.box.left + x, word.box.top + y, word.box.right + x, word.box.bottom + y)
    return replace(word, box=box, baseline=word.baseline + y)
