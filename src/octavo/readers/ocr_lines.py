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
_GUTTER = 2.1
#: A gap this many sizes wide, and this many times wider than those between the letters of the
#: line, is a space that the recognizer passed over.
_SPACE, _CLEAR = 0.22, 2.2
#: And this part of the line's other spaces at least.
_ALIKE = 0.9
_LEAST_GAPS = 4


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
    columns: npt.NDArray[np.bool_] = np.asarray(ink.any(axis=0))
    left, right = _extent(columns)
    face = _measure(ink, reading.text, left, right)
    # The crop is narrower than the line was: a size along the line.
    along, across = np.hypot(*reading.to_page[:, :2])
    em = face.size * float(across / along)
    spans = _missed_spaces(reading, spans, columns, em)
    lines: list[list[Word]] = [[]]
    before: float | None = None
    for span, (start, end) in zip(spans, _edges(reading, spans, columns), strict=True):
        if before is not None and start - before > _GUTTER * em:
            lines.append([])
        lines[-1].append(_word(reading, span, (start, end), face, scale))
        before = end
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
    dark: npt.NDArray[np.bool_] = ink.astype(np.bool_)
    return dark


def _missed_spaces(
    reading: Reading, spans: list[tuple[int, int]], columns: npt.NDArray[np.bool_], em: float
) -> list[tuple[int, int]]:
    """The spans, parted where the paper shows a space between two letters of one."""
    text, places = reading.text, reading.places
    gaps: dict[int, float] = {}
    for start, end in spans:
        for i in range(start, end - 1):
            gaps[i] = _gap(columns, places, i, i + 1)
    if len(gaps) < _LEAST_GAPS:
        return spans
    usual = float(np.quantile(list(gaps.values()), 0.8))
    least = max(_SPACE * em, _CLEAR * usual)
    spaces = [_gap(columns, places, a - 1, b) for (_, a), (b, _) in itertools.pairwise(spans)]
    if spaces:
        least = max(least, _ALIKE * float(np.median(spaces)))
    cuts = {i + 1 for i, gap in gaps.items() if gap >= least and _may_part(text[i], text[i + 1])}
    out: list[tuple[int, int]] = []
    for start, end in spans:
        inner = [cut for cut in range(start + 1, end) if cut in cuts]
        out.extend(itertools.pairwise([start, *inner, end]))
    return out


def _gap(
    columns: npt.NDArray[np.bool_], places: npt.NDArray[np.float32], left: int, right: int
) -> float:
    """Width of the white between two letters, pixels of the crop."""
    white = _widest_white(columns, float(places[left]), float(places[right]))
    return white[1] - white[0] if white else 0.0


def _may_part(left: str, right: str) -> bool:
    """Whether a space may stand between: scripts without spaces and numbers are left alone."""
    latin = left < "\u0530" and right < "\u0530"
    if left.isdigit() or right.isdigit():
        return latin and (left.isalpha() or right.isalpha())
    return latin and (left.isalnum() or left in ",.;:)!?%") and (right.isalnum() or right == "(")


def _extent(columns: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Where the ink begins and ends; the whole crop when it has none."""
    inked = np.flatnonzero(columns)
    return (float(inked[0]), float(inked[-1]) + 1) if len(inked) else (0.0, float(len(columns)))


def _edges(
    reading: Reading, spans: list[tuple[int, int]], columns: npt.NDArray[np.bool_]
) -> list[tuple[float, float]]:
    """Left and right of each word: the widest white between the letters beside a space."""
    left, right = _extent(columns)
    cuts = []
    for (_, end), (start, _) in itertools.pairwise(spans):
        a, b = reading.places[end - 1], reading.places[start]
        middle = float(a + b) / 2
        touching = middle - STEP_PX / 4, middle + STEP_PX / 4
        cuts.append(_widest_white(columns, float(a), float(b)) or touching)
    lefts = [left, *(cut[1] for cut in cuts)]
    rights = [*(cut[0] for cut in cuts), right]
    return list(zip(lefts, rights, strict=True))


def _widest_white(columns: npt.NDArray[np.bool_], a: float, b: float) -> tuple[float, float] | None:
    first, last = int(max(a, 0)), int(min(b, len(columns) - 1))
    white = ~columns[first : last + 1]
    if last <= first or not white.any():
        return None
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
