"""A film that is a sequence of pictures in memory or in files: one a second."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from octavo.media.image import MAX_PIXELS
from octavo.media.page import Pixels
from octavo.media.picture import read_picture
from octavo.media.video_choice import Times
from octavo.media.video_scenes import HEIGHT, WIDTH, Grey


class Slides:
    """A ``video.Film``.

    Args:
        pictures: at least one; each as ``read_picture`` takes it, and opened when it is read.
        where: how messages name the film; they add the picture's place, from 1.
    """

    def __init__(self, pictures: Sequence[Any], where: str, max_pixels: int = MAX_PIXELS) -> None:
        self._pictures = pictures
        self._where = where
        self._max_pixels = max_pixels

    @property
    def times(self) -> Times:
        return np.arange(len(self._pictures), dtype=np.float64)

    @property
    def length(self) -> float:
        return float(len(self._pictures))

    def read(self, places: Sequence[int]) -> Iterator[tuple[float, Pixels]]:
        for place in places:
            where = f"{self._where}, picture {place + 1}"
            yield float(place), read_picture(self._pictures[place], where, self._max_pixels)

    def thumbnails(self, places: Sequence[int]) -> Iterator[Grey]:
        for _, pixels in self.read(places):
            small = (
                Image.fromarray(pixels).convert("L").resize((WIDTH, HEIGHT), Image.Resampling.BOX)
            )
            yield np.asarray(small)
