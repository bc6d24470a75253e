"""Where one scene of a film ends and the next begins.

A frame is told from the one before it by its thumbnail in grey. A cut is a change that stands out
among its neighbours, so that a shaking camera cuts nothing: the adaptive detector of PySceneDetect
(https://www.scenedetect.com/docs/latest/api/detectors.html), with a measure of our own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.uint8]

#: Of a thumbnail, in pixels.
WIDTH: Final = 32
HEIGHT: Final = 18
#: A cut changes at least this much (of 1), and this many times as much as the frames around it.
_LEAST: Final = 0.06
_RATIO: Final = 3.0
#: Frames on each side that a change is compared with.
_AROUND: Final = 4
#: Scenes are no shorter, in seconds: flashes and the fields of old films are not scenes.
_SHORTEST_S: Final = 0.25


def change(before: Grey, after: Grey) -> float:
    """How different two thumbnails are, 0 to 1: the mean of two differences.

    Pixel by pixel, which tells a cut between scenes of the same light; and of their distributions
    of light (how far it has to be moved), which a moving camera leaves as it is.
    """
    one, two = before.astype(np.int16).ravel(), after.astype(np.int16).ravel()
    pixels = np.abs(one - two).mean()
    light = np.abs(np.sort(one) - np.sort(two)).mean()
    return float(pixels + light) / (2 * 255)


def changes(thumbnails: Iterable[Grey]) -> NDArray[np.float64]:
    """The change at each frame; 0 at the first. Holds two thumbnails at a time."""
    found = []
    last: Grey | None = None
    for grey in thumbnails:
        found.append(0.0 if last is None else change(last, grey))
        last = grey
    return np.asarray(found, dtype=np.float64)


def cuts(change_n: NDArray[np.float64], times: NDArray[np.float64]) -> list[tuple[int, float]]:
    """First frames of scenes after the first one, each with its change.

    Args:
        change_n: of each frame against the one before.
        times: of the frames, in seconds.
    """
    found: list[tuple[int, float]] = []
    for place in np.flatnonzero(change_n >= _LEAST):
        around = np.concatenate(
            (change_n[max(1, place - _AROUND) : place], change_n[place + 1 : place + 1 + _AROUND])
        )
        usual = float(np.median(around)) if around.size else 0.0
        if change_n[place] < _RATIO * usual:
            continue
        since = times[found[-1][0]] if found else times[0]
        if times[place] - since >= _SHORTEST_S:
            found.append((int(place), float(change_n[place])))
    return found
