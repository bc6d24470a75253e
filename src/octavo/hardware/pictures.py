"""How many patches and tokens a picture becomes: the arithmetic of image processors.

Shared by the planner, which needs only the numbers, and by the processors that resize.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class PictureCost:
    """What one picture of given size costs.

    Attributes:
        width, height: pixels after resizing.
        patches: rows through the vision tower, in all crops together.
        tokens: that the decoder sees, separators included.
        sequences: how many sequences the tower attends within (crops, tiles).
    """

    width: int
    height: int
    patches: int
    tokens: int
    sequences: int = 1


class PictureRule(Protocol):
    """Size of a picture in pixels → what it costs."""

    def cost(self, width: int, height: int) -> PictureCost: ...


@dataclass(frozen=True, slots=True)
class FixedPicture:
    """Every picture is resized to one size (CLIP, BLIP, LLaVA): ``size`` pixels a side.

    ``extra`` patches are added by the tower (a class token); ``tokens`` is what the decoder sees.
    """

    size: int
    patch: int
    tokens: int
    extra: int = 0

    def cost(self, width: int, height: int) -> PictureCost:
        del width, height
        patches = (self.size // self.patch) ** 2 + self.extra
        return PictureCost(self.size, self.size, patches, self.tokens)


@dataclass(frozen=True, slots=True)
class GridPicture:
    """The picture keeps its shape, in whole cells of ``patch * merge`` pixels (Qwen, dots.ocr).

    ``around`` tokens stand before and after. Source of the arithmetic: ``smart_resize`` of
    Qwen2-VL (Wang et al. 2024, section 2.1).
    """

    patch: int
    merge: int
    min_pixels: int
    max_pixels: int
    around: int = 2
    max_aspect: float = 200.0

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height in pixels, multiples of the cell, area within the bounds.

        Raises:
            ValueError: one side is over ``max_aspect`` times the other.
        """
        if width < 1 or height < 1 or max(width, height) > self.max_aspect * min(width, height):
            raise ValueError(f"a picture of {width} x {height} pixels is too narrow")
        cell = self.patch * self.merge
        wide, high = (max(cell, round(side / cell) * cell) for side in (width, height))
        if wide * high > self.max_pixels:
            shrink = math.sqrt(width * height / self.max_pixels)
            wide, high = (
                max(cell, math.floor(side / shrink / cell) * cell) for side in (width, height)
            )
        elif wide * high < self.min_pixels:
            grow = math.sqrt(self.min_pixels / (width * height))
            wide, high = (math.ceil(side * grow / cell) * cell for side in (width, height))
        return wide, high

    def cost(self, width: int, height: int) -> PictureCost:
        wide, high = self.resized(width, height)
        patches = (wide // self.patch) * (high // self.patch)
        return PictureCost(wide, high, patches, patches // self.merge**2 + self.around)
