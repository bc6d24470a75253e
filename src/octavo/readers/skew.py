"""How far the lines of a scan lean.

Method: the row profile of a page is sharpest when its lines are level (W. Postl, 1986). Only
the lower edges of the ink are projected, so that pictures and dark borders count for little.
The first look is at upright strips by themselves, so that lines of neighbouring columns that
stand a little higher or lower do not look like one leaning line; the second, near what the first
found, takes the page in its whole width, where a tenth of a degree shows.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from octavo.media.page import Pixels

#: Degrees that are looked at on either side.
MAX_SKEW = 15.0
_LONG_EDGE_PX = 1200
_COARSE, _NEAR, _FINE = 0.5, 0.7, 0.05
_STRIPS = 6
_MIN_POINTS = 150
_MAX_POINTS = 40_000
#: How many times sharper the best profile must be than the middle one to be believed.
_CLEAR = 1.25


def find_skew(pixels: Pixels) -> float:
    """Degrees, counter-clockwise, by which to turn the picture to level its lines.

    Args:
        pixels: an upright page; skews within ``MAX_SKEW`` either way are found.

    Returns:
        A multiple of about 0.05; 0 for a page without text or without a clear direction.
    """
    points = _lower_edges(pixels)
    if len(points) < _MIN_POINTS:
        return 0.0
    coarse = np.arange(-MAX_SKEW, MAX_SKEW + _COARSE / 2, _COARSE)
    sharp = np.array([_sharpness(points, angle, _STRIPS) for angle in coarse])
    best = float(coarse[int(np.argmax(sharp))])
    if sharp.max() < _CLEAR * float(np.median(sharp)):
        return 0.0
    fine = np.arange(best - _NEAR, best + _NEAR + _FINE / 2, _FINE)
    sharp = np.array([_sharpness(points, angle, 1) for angle in fine])
    found = float(fine[int(np.argmax(sharp))])
    return 0.0 if abs(found) < _FINE / 2 or abs(found) > MAX_SKEW else round(found, 3)


def _lower_edges(pixels: Pixels) -> npt.NDArray[np.float32]:
    """x and y of ink that has paper below it, in a shrunk picture, centred."""
    import cv2

    height, width = pixels.shape[:2]
    if min(height, width) < 8:
        return np.empty((0, 2), np.float32)
    shrink = min(1.0, _LONG_EDGE_PX / max(height, width))
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    if shrink < 1:
        size = (max(round(width * shrink), 1), max(round(height * shrink), 1))
        gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    # Paper darkens towards a spine and under a lamp: ink is what is darker than its surroundings.
    around = cv2.blur(gray, (31, 31))
    ink = gray.astype(np.int16) < around.astype(np.int16) - 20
    y, x = np.nonzero(ink[:-1] & ~ink[1:])
    points = np.stack([x - x.mean(), y - y.mean()], axis=1) if len(x) else np.empty((0, 2))
    if len(points) > _MAX_POINTS:
        points = points[:: len(points) // _MAX_POINTS + 1]
    return points.astype(np.float32)


def _sharpness(points: npt.NDArray[np.float32], angle: float, strips: int) -> float:
    """How unequal the rows of each strip are once the points are turned by ``angle``."""
    turn = np.deg2rad(angle)
    rows = points[:, 1] * np.cos(turn) - points[:, 0] * np.sin(turn)
    rows = (rows - rows.min()).astype(np.intp)
    height = int(rows.max()) + 1
    if strips > 1:
        along = points[:, 0] - points[:, 0].min()
        rows += (along * (strips / (along.max() + 1))).astype(np.intp) * height
    counts = np.bincount(rows).astype(np.float64)
    return float((counts**2).sum())
