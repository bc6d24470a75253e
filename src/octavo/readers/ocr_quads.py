"""From the detector's map of chances to a turned rectangle around each line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from octavo.media.page import Pixels

_INK, _BOX = 0.3, 0.5
_UNCLIP = 1.6
_MIN_SIDE = 3.0
#: A blob at least this much longer than high is a line whose edges can be followed.
_LONG = 5.0
#: A rectangle is drawn tighter where the bulk of its blob is this part of its height or less.
_SLACK = 0.9
#: Columns of a blob that may stand out of its line, on either side.
_STRAY = 0.1
#: Two lines in one box: how much higher it is than others, how long, and how empty between.
_TALL, _SPLIT_LONG, _VALLEY = 1.55, 4.0, 0.35
_SPLIT_ROWS = 64


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


def find_quads(chance: npt.NDArray[np.float32], width: int, height: int) -> list[Quad]:
    """The lines of a map of chances, in pixels of a page of ``width`` × ``height``."""
    import cv2

    per_x, per_y = width / chance.shape[1], height / chance.shape[0]
    mask = (chance > _INK).astype(np.uint8)
    mask = cv2.dilate(mask, np.ones((2, 2), np.uint8))
    contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    quads = []
    for contour, links in zip(contours, hierarchy[0] if hierarchy is not None else (), strict=True):
        if links[3] >= 0:  # the edge of a hole
            continue
        rect = cv2.minAreaRect(contour)
        if min(rect[1]) < _MIN_SIDE:
            continue
        center, (side_a, side_b), angle = _tighter(contour, rect)
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


def _tighter(contour: Any, rect: Any) -> Any:
    """``rect``, or the one that follows the bulk of a long level blob.

    A raised footnote mark at one end tilts the smallest rectangle around a line and doubles its
    height; its letters would be read at half their size.
    """
    import cv2

    left, top, wide, high = cv2.boundingRect(contour)
    if wide < _LONG * high:
        return rect
    blob = np.zeros((high, wide), np.uint8)
    cv2.drawContours(blob, [contour], -1, 1, cv2.FILLED, offset=(-left, -top))
    x = np.arange(wide)
    upper = blob.argmax(axis=0).astype(np.float32)
    lower = high - blob[::-1].argmax(axis=0).astype(np.float32)
    middle = np.stack([x, (upper + lower) / 2], axis=1).astype(np.float32)
    along_x, along_y, _, _ = cv2.fitLine(middle, cv2.DIST_HUBER, 0, 0.01, 0.01).ravel()
    if along_x == 0:
        return rect
    slope = float(along_y / along_x)
    above = float(np.quantile(upper - slope * x, _STRAY))
    below = float(np.quantile(lower - slope * x, 1 - _STRAY))
    turn = float(np.arctan(slope))
    across = (below - above) * float(np.cos(turn))
    if not _MIN_SIDE <= across < _SLACK * min(rect[1]):
        return rect
    center = (left + wide / 2, top + (above + below) / 2 + slope * wide / 2)
    return center, (wide / float(np.cos(turn)), across), float(np.rad2deg(turn))


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


def split_doubles(pixels: Pixels, quads: Sequence[Quad]) -> list[Quad]:
    """``quads`` with those parted that hold two lines set tight, one above the other."""
    lines = [quad for quad in quads if quad.width > _SPLIT_LONG * quad.height]
    if len(lines) < 3:
        return list(quads)
    usual = float(np.median([quad.height for quad in lines]))
    out: list[Quad] = []
    for quad in quads:
        cut = None
        if quad.height > _TALL * usual and quad.width > _SPLIT_LONG * quad.height:
            cut = _valley(pixels, quad)
        out.extend([quad] if cut is None else _parted(quad, cut))
    return out


def _valley(pixels: Pixels, quad: Quad) -> float | None:
    """How far down, 0 to 1, the rows between two lines lie; None for a single line."""
    import cv2

    columns = max(16, round(quad.width / quad.height * _SPLIT_ROWS / 2))
    target = np.array([[0, 0], [columns, 0], [0, _SPLIT_ROWS]], np.float32)
    warp = cv2.getAffineTransform(quad.corners[[0, 1, 3]], target)
    crop = cv2.warpAffine(pixels, warp, (columns, _SPLIT_ROWS), borderMode=cv2.BORDER_REPLICATE)
    gray = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    _, ink = cv2.threshold(gray, 0, 1, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
    if np.count_nonzero(ink) * 2 > ink.size:
        ink = 1 - ink
    rows = ink.sum(axis=1).astype(np.float64)
    first, last = _SPLIT_ROWS * 3 // 10, _SPLIT_ROWS * 7 // 10
    at = first + int(np.argmin(rows[first:last]))
    lesser = min(rows[:at].max(), rows[at:].max())
    return at / _SPLIT_ROWS if rows[at] < _VALLEY * lesser else None


def _parted(quad: Quad, cut: float) -> list[Quad]:
    """The quad above ``cut`` and the one below, each with a little of the other's edge."""
    a, b, c, d = quad.corners
    over = 0.03

    def across(part: float) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        return a + (d - a) * np.float32(part), b + (c - b) * np.float32(part)

    low_left, low_right = across(cut + over)
    high_left, high_right = across(cut - over)
    return [
        Quad(np.stack([a, b, low_right, low_left]), quad.score),
        Quad(np.stack([high_left, high_right, c, d]), quad.score),
    ]
