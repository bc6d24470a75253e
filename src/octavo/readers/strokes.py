"""What the pixels of a scan tell besides its words: weight of the letters, bullets, drawings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import numpy as np
import numpy.typing as npt

from octavo.media.page import Pixels, Word
from octavo.readers.lines import Line
from octavo.types import Box

_BOLD = 1.16  # strokes this much thicker than usual are bold, or large
_LEAST_LETTERS = 4
_LEAST_REACH = 0.66  # em
_Mask = npt.NDArray[np.uint8]


def ink_of(pixels: Pixels) -> _Mask:
    """1 where a pixel is clearly darker than the paper around it."""
    import cv2

    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    size = max(grey.shape) // 40 | 1
    paper = cv2.blur(grey, (size, size))
    ink: _Mask = (grey.astype(np.int16) < paper.astype(np.int16) - 28).astype(np.uint8)
    return ink


def measure(lines: Sequence[Line], ink: _Mask, scale: float) -> list[Line]:
    """The lines, sizes that the detector's boxes overstate brought down to what the ink allows.

    The ink of a line reaches over seven tenths of the font size at least (capitals, ascenders).
    """
    return [_measured(line, ink, scale) for line in lines]


def _measured(line: Line, ink: _Mask, scale: float) -> Line:
    if any(ord(c) > 0x2E80 for c in line.text):
        return line
    box = line.box.scale(scale)
    top, left = max(int(box.top), 0), max(int(box.left), 0)
    patch = ink[top : int(box.bottom) + 1, left : int(box.right) + 1]
    if min(patch.shape) < 4:
        return line
    profile = patch.mean(axis=1)
    profile[profile > 0.75] = 0.0  # a rule of the table
    peak = int(profile.argmax())
    empty = profile < 0.04 * profile[peak]
    above, below = np.flatnonzero(empty[:peak]), np.flatnonzero(empty[peak:])
    first = int(above[-1]) + 1 if len(above) else 0
    last = peak + int(below[0]) - 1 if len(below) else len(profile) - 1
    most = (last - first + 1) / _LEAST_REACH / scale
    if line.font_size <= 1.25 * most or most < 0.4 * line.font_size:
        return line
    shrink = most / line.font_size
    baseline = min(line.baseline, (top + last + 1) / scale)
    return Line(tuple(_reset(word, word.font_size * shrink, baseline) for word in line.words))


def _reset(word: Word, size: float, baseline: float) -> Word:
    box = Box(word.box.left, baseline - 0.8 * size, word.box.right, baseline + 0.2 * size)
    return replace(word, box=box, font_size=size, baseline=baseline)


def weigh(lines: Sequence[Line], ink: _Mask, scale: float) -> list[Line]:
    """The lines with bold words marked, by the thickness of their strokes.

    Thickness is twice the ink's area over the length of its edge. It is compared as it is, not in
    em: the size of a line is known less well from its box than its thickness from its ink.
    """
    import cv2

    inner = cv2.erode(ink, np.ones((3, 3), np.uint8))
    sums = [cv2.integral(mask) for mask in (ink, inner)]
    known: list[tuple[float, int]] = []
    for line in lines:
        thick = _thickness(line.words, sums, scale)
        if thick is not None:
            known.append((thick, line.letters))
    if len(known) < 5:
        return list(lines)
    usual = _weighted_median(known)
    out = []
    for line in lines:
        thick = _thickness(line.words, sums, scale)
        bold = thick is not None and thick > _BOLD * usual
        out.append(Line(tuple(replace(w, bold=True) for w in line.words)) if bold else line)
    return out


def _thickness(
    words: Sequence[Word], sums: list[npt.NDArray[np.int32]], scale: float
) -> float | None:
    if sum(len(w.text) for w in words) < _LEAST_LETTERS:
        return None
    area = core = 0
    for word in words:
        b = word.box.scale(scale)
        rows, cols = sums[0].shape
        x0, x1 = (min(max(int(v), 0), cols - 1) for v in (b.left, b.right))
        y0, y1 = (min(max(int(v), 0), rows - 1) for v in (b.top, b.bottom))
        for i, table in enumerate(sums):
            count = int(table[y1, x1] - table[y0, x1] - table[y1, x0] + table[y0, x0])
            area, core = (area + count, core) if i == 0 else (area, core + count)
    edge = area - core
    return 2 * area / edge if edge > 0 else None


def _weighted_median(values: list[tuple[float, int]]) -> float:
    half, seen = sum(weight for _, weight in values) / 2, 0
    for value, weight in sorted(values):
        seen += weight
        if seen >= half:
            return value
    return values[-1][0]


def add_bullets(lines: Sequence[Line], ink: _Mask, scale: float) -> list[Line]:
    """Lines with a bullet in front where a lone dot stands left of them.

    Text detection passes over dots; without them a list reads as prose.
    """
    import cv2

    out = []
    for line in lines:
        em = line.font_size * scale
        box = line.box.scale(scale)
        left, right = int(box.left - 2.6 * em), int(box.left - 0.25 * em)
        top, bottom = int(box.top), int(box.bottom)
        patch = ink[max(top, 0) : bottom, max(left, 0) : max(right, 0)]
        dot = None
        room = Box(left / scale, line.box.top, right / scale, line.box.bottom)
        free = not any(other.box.intersection(room) > 0 for other in lines if other is not line)
        if min(patch.shape) > 4 and not line.rtl and free:
            count, _, stats, _ = cv2.connectedComponentsWithStats(patch, connectivity=8)
            parts = [s for s in stats[1:count] if s[4] > 0.02 * em * em]
            dot = parts[0] if len(parts) == 1 and _is_dot(parts[0], em, patch.shape) else None
        if dot is None:
            out.append(line)
            continue
        x = (max(left, 0) + float(dot[0])) / scale
        first = line.words[0]
        spot = Box(x, first.box.top, x + float(dot[2]) / scale, first.box.bottom)
        out.append(Line((replace(first, text="•", box=spot, confidence=0.8), *line.words)))
    return out


def _is_dot(stats: npt.NDArray[np.int32], em: float, shape: tuple[int, ...]) -> bool:
    x, y, width, height, area = (float(v) for v in stats)
    inside = x > 0 and x + width < shape[1]
    middle = 0.12 < (y + height / 2) / shape[0] < 0.72
    compact = 0.6 < width / height < 1.7 and area > 0.55 * width * height
    return inside and middle and compact and 0.12 * em < width < 0.6 * em


def drawings(lines: Sequence[Line], ink: _Mask, scale: float) -> tuple[Box, ...]:
    """Boxes of ink that is too large to be a letter and is no part of a word or a long line."""
    import cv2

    shrink = 0.5
    size = (max(int(ink.shape[1] * shrink), 1), max(int(ink.shape[0] * shrink), 1))
    small = cv2.resize(ink, size, interpolation=cv2.INTER_AREA)
    count, _, stats, _ = cv2.connectedComponentsWithStats(small, connectivity=8)
    em = median(line.font_size for line in lines) if lines else 10.0
    factor = shrink * scale
    height, width = small.shape
    out = []
    for x, y, wide, high, area in stats[1:count]:
        at_edge = x == 0 or y == 0 or x + wide >= width or y + high >= height
        box = Box(x / factor, y / factor, (x + wide) / factor, (y + high) / factor)
        large = max(box.width, box.height) > 2.2 * em and area > 0.02 * wide * high
        thin = min(box.width, box.height) < 0.35 * em
        if large and not thin and not at_edge:
            out.append(box)
    return tuple(box for box in out if not _is_word(box, lines))


def _is_word(box: Box, lines: Sequence[Line]) -> bool:
    return any(box.covered_by(line.box.expand(0.15 * line.font_size)) > 0.6 for line in lines)
