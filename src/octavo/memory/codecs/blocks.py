"""How grouped quantization cuts a tensor: blocks of rows by columns, one scale a column.

Shape letters: k blocks, g rows of a block, c columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from octavo.memory.codecs.pieces import PIECE, aligned, numel_of

Axis = Literal["group", "channel", "token"]
#: The most elements in a block, which is worked on at once.
MOST = {"group": PIECE, "token": 1 << 18, "channel": 1 << 19}


@dataclass(frozen=True, slots=True)
class Blocks:
    """The cut of one tensor, and where its codes, scales and minima stand in the data.

    Attributes:
    count: elements of the tensor.
    rows, columns: of a block; every block but the last is whole.
    code_bits: 4 or 8.
    scale_bytes: of one scale, and of one minimum.
    """

    count: int
    rows: int
    columns: int
    code_bits: int
    scale_bytes: int

    @classmethod
    def of(
        cls, axis: Axis, size: int, shape: tuple[int, ...], code_bits: int, scale_bytes: int
    ) -> Blocks:
        """``group``: runs of ``size`` elements. ``token``: the rows of the last dimension.
        ``channel``: each column of the last dimension, over ``size`` rows at a time.
        """
        last = max(shape[-1], 1) if shape else 1
        rows = last if axis == "token" else size
        columns = last if axis == "channel" else 1
        return cls(numel_of(shape), rows, columns, code_bits, scale_bytes)

    @property
    def block(self) -> int:
        return self.rows * self.columns

    @property
    def scales(self) -> int:
        """How many scales there are in all."""
        return -(-self.count // self.block) * self.columns

    @property
    def scales_at(self) -> int:
        """Where the scales begin in the data; the codes stand before them."""
        return aligned(-(-self.count * self.code_bits // 8))

    @property
    def minima_at(self) -> int:
        return self.scales_at + aligned(self.scales * self.scale_bytes)

    @property
    def nbytes(self) -> int:
        return self.minima_at + self.scales * self.scale_bytes if self.count else 0

    @property
    def at_once(self) -> int:
        """How many blocks make a piece; an even number of elements, for codes of half a byte."""
        together = max(PIECE // self.block, 1)
        return together + 1 if together * self.block % 2 else together

    @property
    def elements_at_once(self) -> int:
        """The most elements in a piece."""
        return min(self.at_once * self.block, self.count)

    @property
    def scales_at_once(self) -> int:
        return min(self.at_once * self.columns, self.scales)

    def blank_gaps(self, data_b: torch.Tensor) -> None:
        """Zeroes what lies between codes, scales and minima."""
        if self.count:
            data_b[-(-self.count * self.code_bits // 8) : self.scales_at] = 0
            data_b[self.scales_at + self.scales * self.scale_bytes : self.minima_at] = 0

    def pieces(self) -> Iterator[tuple[int, int, tuple[int, int, int]]]:
        """``(start, stop, shape)`` of pieces that are whole blocks, and of the short last block."""
        whole = self.count // self.block
        for first in range(0, whole, self.at_once):
            k = min(self.at_once, whole - first)
            start = first * self.block
            yield start, start + k * self.block, (k, self.rows, self.columns)
        start = whole * self.block
        if start < self.count:
            yield start, self.count, (1, (self.count - start) // self.columns, self.columns)
