"""OCR of a page picture: lines and words with boxes, by the PP-OCRv6 models of RapidOCR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from octavo.media.page import Pixels, Word
from octavo.readers.ocr_detect import Detector
from octavo.readers.ocr_lines import split_reading
from octavo.readers.ocr_models import available_threads
from octavo.readers.ocr_quads import Quad
from octavo.readers.ocr_recognize import Recognizer
from octavo.types import Box, union_all

#: Below this mean chance of its characters a line is taken for dirt.
_MIN_CONFIDENCE = 0.5
_SAMPLE_LINES = 6
#: Paper left around a given box, as a part of its height: the recognizer knows lines with some.
_MARGIN = 0.12


@dataclass(frozen=True, slots=True)
class OcrLine:
    """Words on one line, left to right, with no gap between them as wide as a gutter.

    ``box`` is the union of the words' boxes, in page units; ``confidence`` is 0 to 1.
    """

    words: tuple[Word, ...]
    box: Box
    text: str
    confidence: float


class OcrEngine:
    """Reads page pictures. Loaded once and used for many pages; ``read`` is thread-safe.

    Args:
        threads: cores to use; all that the process may use when None.

    Raises:
        MissingDependency: RapidOCR's wheel, which holds the models, is not installed.
    """

    def __init__(self, *, threads: int | None = None) -> None:
        count = available_threads(threads)
        self._detector = Detector(threads=count)
        self._recognizer = Recognizer(threads=count)

    def read(self, pixels: Pixels, scale: float) -> list[OcrLine]:
        """The lines of an upright page, from the top to the bottom.

        Args:
            pixels: the page, RGB.
            scale: pixels a page unit; boxes and sizes are divided by it.
        """
        if min(pixels.shape[:2]) < 2:
            return []
        quads = self._detector.find(pixels)
        lines = []
        for reading in self._recognizer.read(pixels, quads):
            for words in split_reading(reading, scale):
                line = _line(words)
                if line.confidence >= _MIN_CONFIDENCE:
                    lines.append(line)
        return sorted(lines, key=lambda line: (line.box.top, line.box.left))

    def read_boxes(
        self, pixels: Pixels, scale: float, boxes: Sequence[Box]
    ) -> list[tuple[str, float]]:
        """What stands in each of ``boxes``, which nothing is searched in.

        Args:
            pixels: the page, RGB.
            scale: pixels a page unit.
            boxes: level boxes around words or lines, page units, as high as their letters.

        Returns:
            Text and confidence (0 to 1) for each box, in their order; ``("", 0.0)`` for a box
            that holds nothing legible or lies outside the page.
        """
        height, width = pixels.shape[:2]
        quads = {}
        for i, box in enumerate(boxes):
            pad = _MARGIN * box.height * scale
            left, right = box.left * scale - pad, box.right * scale + pad
            top, bottom = box.top * scale - pad, box.bottom * scale + pad
            left, right = max(left, 0.0), min(right, width - 1.0)
            top, bottom = max(top, 0.0), min(bottom, height - 1.0)
            if right - left >= 2 and bottom - top >= 2:
                corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
                quads[i] = Quad(np.array(corners, np.float32), 1.0)
        readings = self._recognizer.read(pixels, quads.values(), turn=False)
        out = [("", 0.0)] * len(boxes)
        for i, reading in zip(quads, readings, strict=True):
            if reading.text.strip():
                out[i] = reading.text.strip(), float(reading.chances.mean())
        return out

    def legibility(self, pixels: Pixels) -> float:
        """How well the longest lines can be read, 0 to 1; lines that run down the page count
        as unreadable. Tells which way up a page is for the price of a few lines."""
        quads = sorted(self._detector.find(pixels), key=lambda quad: -max(quad.width, quad.height))
        readings = self._recognizer.read(pixels, quads[:_SAMPLE_LINES])
        if not readings:
            return 0.0
        return sum(
            float(reading.chances.mean()) if reading.text and not reading.upright else 0.0
            for reading in readings
        ) / len(readings)

    def close(self) -> None:
        """End the threads. The engine cannot be used afterwards."""
        self._recognizer.close()


def _line(words: list[Word]) -> OcrLine:
    letters = sum(len(word.text) for word in words)
    return OcrLine(
        words=tuple(words),
        box=union_all(word.box for word in words),
        text=" ".join(word.text for word in words),
        confidence=sum(word.confidence * len(word.text) for word in words) / letters,
    )
