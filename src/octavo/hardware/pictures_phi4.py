"""How many crops, patches and tokens a picture becomes in Phi-4-multimodal.

The picture is laid on a grid of square crops, padded at the right and the bottom, and seen once
more as a whole at the size of one crop. Source of the arithmetic: "dynamic HD" of the technical
report (Abouelenin et al. 2025, https://arxiv.org/abs/2503.01743, section 2.1), as transformers'
``Phi4MultimodalImageProcessor`` has it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from octavo.hardware.pictures import PictureCost


@dataclass(frozen=True, slots=True)
class Layout:
    """A picture on its grid, in pixels.

    Attributes:
        columns, rows: crops of the grid.
        width, height: of the picture after resizing; the rest of the grid is padding.
        mask_columns, mask_rows: patches of the grid that hold picture.
    """

    columns: int
    rows: int
    width: int
    height: int
    mask_columns: int
    mask_rows: int


@dataclass(frozen=True, slots=True)
class HighDefinition:
    """``crop`` pixels a side, in patches of ``patch`` pixels, of which 2 x 2 become one token;
    at most ``crops`` crops beside the whole."""

    crop: int = 448
    patch: int = 14
    crops: int = 36
    least: int = 10

    def layout(self, width: int, height: int) -> Layout:
        """Raises:
        ValueError: resized to the grid, one side has under 10 pixels.
        """
        columns, rows = math.ceil(width / self.crop), math.ceil(height / self.crop)
        if columns * rows > self.crops:
            columns, rows = self._closest(width, height)
        wide, high = columns * self.crop, rows * self.crop
        by_width, by_height = wide / width, high / height
        if by_width < by_height:
            new_width, new_height = wide, int(height * by_width)
        else:
            new_width, new_height = int(width * by_height), high
        if min(new_width, new_height) < self.least:
            raise ValueError(f"a picture of {width} x {height} pixels is too narrow")
        return Layout(
            columns,
            rows,
            new_width,
            new_height,
            wide // self.patch - (wide - new_width) // self.patch,
            high // self.patch - (high - new_height) // self.patch,
        )

    def cost(self, width: int, height: int) -> PictureCost:
        """Tokens: the crops' with one after each row, one between, the whole's likewise."""
        found = self.layout(width, height)
        side = self.crop // self.patch
        whole = (side + 1) // 2
        wide, high = math.ceil(found.mask_columns / 2), math.ceil(found.mask_rows / 2)
        sequences = 1 + found.columns * found.rows
        return PictureCost(
            found.columns * self.crop,
            found.rows * self.crop,
            sequences * side**2,
            high * (wide + 1) + 1 + whole * (whole + 1),
            sequences,
        )

    def _closest(self, width: int, height: int) -> tuple[int, int]:
        """The grid whose shape is nearest the picture's; of equal ones the largest that the
        picture fills by half."""
        aspect, area = width / height, width * height
        best, least = (1, 1), math.inf
        for columns, rows in _grids(self.crops):
            difference = abs(aspect - columns / rows)
            if difference < least:
                best, least = (columns, rows), difference
            elif difference == least and area > 0.5 * self.crop**2 * columns * rows:
                best = (columns, rows)
        return best


@lru_cache(maxsize=8)
def _grids(most: int) -> tuple[tuple[int, int], ...]:
    """Columns and rows of every grid of at most ``most`` crops, small ones first.

    Grids of one size stay in the order of the set: that is the processor's order, and of two
    shapes equally far from the picture's it decides.
    """
    found = {
        (columns, rows)
        for side in range(1, most + 1)
        for columns in range(1, side + 1)
        for rows in range(1, side + 1)
        if columns * rows <= most
    }
    return tuple(sorted(found, key=lambda grid: grid[0] * grid[1]))
