"""From the characters read in a line to words with boxes.

The recognizer says what stands in a line and only roughly where. The ink of the line says
where words begin and end, how large the letters are and where they stand.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from octavo.media.page import Word
from octavo.readers.ocr_recognize import LINE_PX, STEP_PX, Gray, Reading
from octavo.types import Box

#: Parts of the size of a font, as in common book faces.
_ASCENT, _X_HEIGHT, _DESCENT = 0.73, 0.53, 0.22
_LOW_LETTERS = frozenset("acemnorsuvwxzäöüàâçèéêëîïñôùû")
_DEEP_LETTERS = frozenset("gjpqyçQ,;()[]{}|")
#: A gap this many sizes wide parts two columns.
_GUTTER = 1.6


@dataclass(frozen=True, slots=True)
class _Face:
    """Size and place of the letters in a crop, pixels of the crop."""

    size: float
    baseline: float


def split_reading(reading: Reading, scale: float) -> list[list[Word]]:
    """The words of a reading in page units, parted where the gap is as wide as a gutter."""
    spans = _word_spans(reading.text)
    if not spans:
        return []
    ink = _ink(reading.crop)
    columns = ink.any(axis=0)
    edges = _edges(reading, spans, columns)
    face = _measure(ink, reading.text, edges[0][0], edges[-1][1])
    lines: list[list[Word]] = [[]]
    before: float | None = None
    for (start, end), (left, right) in zip(spans, edges, strict=True):
        if before is not None and left - before > _GUTTER * face.size:
            lines.append([])
        lines[-1].append(_word(reading, (start, end), (left, right), face, scale))
        before = right
    return lines


def _word_spans(text: str) -> list[tuple[int, int]]:
    spans, start = [], None
    for i, letter in enumerate([*text, " "]):
        if letter.isspace():
            if start is not None:
                spans.append((start, i))
            start = None
        elif start is None:
            start = i
    return spans


def _ink(crop: Gray) -> npt.NDArray[np.bool_]:
    """Where the crop has ink, whether it is dark on light or light on dark."""
    import cv2

    _, ink = cv2.threshold(crop, 0, 1, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
    if np.count_nonzero(ink) * 2 > ink.size:
        ink = 1 - ink
    return ink.astype(np.bool_)


def _edges(
    reading: Reading, spans: list[tuple[int, int]], columns: npt.NDArray[np.bool_]
) -> list[tuple[float, float]]:
    """Left and right of each word: the widest white between the letters beside a space."""
    inked = np.flatnonzero(columns)
    width = float(len(columns))
    left = float(inked[0]) if len(inked) else 0.0
    right = float(inked[-1]) + 1 if len(inked) else width
    cuts = []
    for (_, end), (start, _) in itertools.pairwise(spans):
        a, b = reading.places[end - 1], reading.places[start]
        cuts.append(_widest_white(columns, float(a), float(b)))
    lefts = [left, *(cut[1] for cut in cuts)]
    rights = [*(cut[0] for cut in cuts), right]
    return list(zip(lefts, rights, strict=True))


def _widest_white(columns: npt.NDArray[np.bool_], a: float, b: float) -> tuple[float, float]:
    first, last = int(max(a, 0)), int(min(b, len(columns) - 1))
    white = ~columns[first : last + 1]
    if last <= first or not white.any():
        middle = (a + b) / 2
        return middle - STEP_PX / 4, middle + STEP_PX / 4
    bounds = np.flatnonzero(np.diff(np.concatenate(([0], white.astype(np.int8), [0]))))
    starts, ends = bounds[::2], bounds[1::2]
    widest = int(np.argmax(ends - starts))
    return first + float(starts[widest]), first + float(ends[widest])


def _measure(ink: npt.NDArray[np.bool_], text: str, left: float, right: float) -> _Face:
    """Size and baseline from the rows that the ink fills and the letters that fill them."""
    rows = ink[:, int(left) : max(int(right), int(left) + 1)].sum(axis=1).astype(np.float64)
    peak = float(np.percentile(rows, 90)) if rows.any() else 0.0
    filled = np.flatnonzero(rows > 0.35 * peak)
    if peak <= 0 or not len(filled):
        return _Face(size=LINE_PX * 0.75, baseline=LINE_PX * 0.75)
    top, bottom = float(filled[0]), float(filled[-1]) + 1
    low = sum(letter in _LOW_LETTERS for letter in text)
    letters = sum(not letter.isspace() for letter in text)
    high = _X_HEIGHT if low * 3 > letters else _ASCENT
    return _Face(size=(bottom - top) / high, baseline=bottom)


def _word(
    reading: Reading,
    span: tuple[int, int],
    edges: tuple[float, float],
    face: _Face,
    scale: float,
) -> Word:
    left, right = edges
    points = np.array([[left, face.baseline, 1], [right, face.baseline, 1]])
    places = points @ reading.to_page.T / scale
    # One pixel across the line, in page units.
    across = float(np.hypot(*reading.to_page[:, 1])) / scale
    size = face.size * across
    if reading.upright:
        base = float(places[:2, 0].mean())
        box = Box(
            base - 0.8 * size,
            float(places[:2, 1].min()),
            base + 0.2 * size,
            float(places[:2, 1].max()),
        )
    else:
        base = float(places[:2, 1].mean())
        box = Box(
            float(places[:2, 0].min()),
            base - 0.8 * size,
            float(places[:2, 0].max()),
            base + 0.2 * size,
        )
    return Word(
        text=reading.text[slice(*span)],
        box=box,
        baseline=base,
        font_size=size,
        angle=90.0 if reading.upright else 0.0,
        confidence=float(reading.chances[slice(*span)].mean()),
    )
