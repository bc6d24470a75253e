"""Octavo's OCR beside RapidOCR as it comes: seconds a page and errors, on drawn pages.

Both run in one process, one page after the other in turn, so that a busy machine slows both.
Pages are A4 at 200 dpi with known text; the error is the character error rate against it.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from octavo.media.page import Pixels
from octavo.readers.ocr import OcrEngine

A4_200_DPI = (1654, 2339)
_MARGIN = 120
#: Name, size of the font in pixels, columns, worn.
PAGES = (
    ("one column", 30, 1, False),
    ("two columns, worn", 24, 2, True),
    ("three columns of small print", 16, 3, False),
)
_TEXT = (
    "The commission met again in the afternoon and heard further evidence from the witnesses who "
    "had travelled from the northern districts, where the harvest had failed for the third year. "
    "Mr. Harcourt observed that prices had risen by 14.5% since January 1887, and that the county "
    "treasurer held only $2,318 against debts of $9,640; he proposed (with some hesitation) that "
    "the matter be deferred. It was replied that delay could not be justified: the roads were "
    "nearly impassable, the mills idle, and the schools closed. Students of zoology may wish to "
    "examine the quaint jawbone kept in the museum at Exeter, bought by auction. See Table 3."
).split()


@dataclass(frozen=True, slots=True)
class DrawnLine:
    """A line of text and where it was drawn, pixels."""

    text: str
    left: float
    middle: float
    right: float


@dataclass(frozen=True, slots=True)
class Found:
    """A line that an engine read, pixels."""

    text: str
    left: float
    middle: float
    right: float


def draw_page(font_px: int, columns: int, *, worn: bool) -> tuple[Pixels, list[DrawnLine]]:
    """A page of running text; ``worn`` adds blur, grain, yellow paper and JPEG loss."""
    page = Image.new("RGB", A4_200_DPI, "white")
    canvas = ImageDraw.Draw(page)
    font = ImageFont.load_default(font_px)
    pitch = (A4_200_DPI[0] - 2 * _MARGIN) / columns
    lines: list[DrawnLine] = []
    at = 0
    for column in range(columns):
        left = _MARGIN + column * pitch
        top = float(_MARGIN)
        while top < A4_200_DPI[1] - _MARGIN:
            words = [_TEXT[at % len(_TEXT)]]
            while font.getlength(" ".join([*words, _TEXT[(at + 1) % len(_TEXT)]])) < pitch - 40:
                at += 1
                words.append(_TEXT[at % len(_TEXT)])
            at += 1
            text = " ".join(words)
            canvas.text((left, top), text, "black", font)
            lines.append(DrawnLine(text, left, top + 0.65 * font_px, left + font.getlength(text)))
            top += 1.4 * font_px
    return (_wear(page) if worn else np.asarray(page)), lines


def _wear(page: Image.Image) -> Pixels:
    blurred = np.asarray(page.filter(ImageFilter.GaussianBlur(0.7)), np.float32)
    old = (150 + blurred * 0.35) * (1, 0.95, 0.8)
    old += np.random.default_rng(0).normal(0, 6, old.shape)
    file = io.BytesIO()
    Image.fromarray(old.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=60)
    return np.asarray(Image.open(file).convert("RGB"))


def error_rate(found: list[Found], drawn: list[DrawnLine]) -> float:
    """Edits for each drawn character, each found line compared with the drawn one it covers."""
    parts: list[list[Found]] = [[] for _ in drawn]
    wrong = 0
    for line in found:
        over = [
            (abs(truth.middle - line.middle), i)
            for i, truth in enumerate(drawn)
            if min(truth.right, line.right) > max(truth.left, line.left)
        ]
        if over:
            parts[min(over)[1]].append(line)
        else:
            wrong += len(line.text)
    for truth, pieces in zip(drawn, parts, strict=True):
        text = " ".join(piece.text for piece in sorted(pieces, key=lambda piece: piece.left))
        wrong += edits(truth.text, text)
    return wrong / sum(len(truth.text) for truth in drawn)


def edits(a: str, b: str) -> int:
    """Levenshtein's distance."""
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (letter != other))
    return row[-1]


def _octavo(engine: OcrEngine, pixels: Pixels) -> list[Found]:
    return [
        Found(line.text, line.box.left, sum(line.box.center[1:]), line.box.right)
        for line in engine.read(pixels, 1.0)
    ]


def _rapidocr(engine: Any, pixels: Pixels) -> list[Found]:
    result = engine(np.ascontiguousarray(pixels[:, :, ::-1]))
    if result.txts is None:
        return []
    return [
        Found(text, float(box[:, 0].min()), float(box[:, 1].mean()), float(box[:, 0].max()))
        for text, box in zip(result.txts, result.boxes, strict=True)
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("ocr")
    group.add_argument("--ocr-rounds", type=int, default=3, help="counted rounds of each page")


def run(options: argparse.Namespace) -> Mapping[str, object]:
    """Times and errors by page, and the mean of the ratios; the first round is not counted.

    Processor seconds are of the whole process, all threads together; the ratio of those hardly
    depends on what else the machine does.
    """
    from rapidocr import RapidOCR

    rounds = 1 if options.fast else int(options.ocr_rounds)
    stock = RapidOCR(params={"Global.log_level": "critical"})
    ours = OcrEngine()
    readers: dict[str, Callable[[Pixels], list[Found]]] = {
        "rapidocr": lambda pixels: _rapidocr(stock, pixels),
        "octavo": lambda pixels: _octavo(ours, pixels),
    }
    pages = {
        name: _measure(readers, *draw_page(font_px, columns, worn=worn), rounds)
        for name, font_px, columns, worn in (PAGES[:1] if options.fast else PAGES)
    }
    ours.close()
    for name, page in pages.items():
        print(name, json.dumps(page))
    return {
        "rounds": rounds,
        "pages": pages,
        "times_faster": statistics.geometric_mean(p["times_faster"] for p in pages.values()),
        "times_less_processor": statistics.geometric_mean(
            p["times_less_processor"] for p in pages.values()
        ),
    }


def _measure(
    readers: Mapping[str, Callable[[Pixels], list[Found]]],
    pixels: Pixels,
    drawn: list[DrawnLine],
    rounds: int,
) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {reader: [] for reader in readers}
    processor: dict[str, list[float]] = {reader: [] for reader in readers}
    errors: dict[str, float] = {}
    for _ in range(rounds + 1):
        for reader, read in readers.items():
            start, used = time.perf_counter(), time.process_time()
            found = read(pixels)
            seconds[reader].append(time.perf_counter() - start)
            processor[reader].append(time.process_time() - used)
            errors[reader] = error_rate(found, drawn)
    clock = {reader: statistics.median(times[1:]) for reader, times in seconds.items()}
    used_s = {reader: statistics.median(times[1:]) for reader, times in processor.items()}
    return {
        "seconds": clock,
        "processor_seconds": used_s,
        "times_faster": clock["rapidocr"] / clock["octavo"],
        "times_less_processor": used_s["rapidocr"] / used_s["octavo"],
        "character_error_rate": errors,
    }
