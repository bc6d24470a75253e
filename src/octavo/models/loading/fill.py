"""From stored bytes to a parameter's memory: casts, quantizes and rearranges by pieces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch

from octavo.errors import InputError
from octavo.models.loading.layout import Piece, Wanted, Way

if TYPE_CHECKING:
    from octavo.models.quantized import QuantizedLinear

Convert = Callable[[str, torch.Tensor], torch.Tensor]


class Filler:
    """Where the parameters of a component are made.

    Args:
        copies: parameter → memory of its own, in its shape and type.
        quantized: parameter → the layer that holds it.
        convert: brings a whole stored tensor into the module's layout.
        device: of the parameters.
    """

    def __init__(
        self,
        copies: Mapping[str, torch.Tensor],
        quantized: Mapping[str, QuantizedLinear],
        convert: Convert | None,
        device: torch.device,
    ) -> None:
        self._device = device
        self._copies = copies
        self._quantized = quantized
        self._convert = convert

    def fill(self, piece: Piece, memory_b: torch.Tensor, base: int) -> None:
        """Takes a piece from ``memory_b``, whose first byte stands at ``base`` in the file."""
        one = piece.wanted
        stored_b = memory_b[piece.offset - base : piece.end - base]
        if one.way is Way.CONVERT:
            self._rearrange(one, stored_b)
        elif one.way is Way.QUANTIZE:
            row = one.source.shape[1]
            self._quantize(one, piece.low, typed(stored_b, one.stored).view(-1, row))
        else:
            self._cast(one, piece.low, typed(stored_b, one.stored))

    def _rearrange(self, one: Wanted, stored_b: torch.Tensor) -> None:
        stored = typed(stored_b, one.stored).view(one.source.shape)
        made = stored if self._convert is None else self._convert(one.source.name, stored)
        if tuple(made.shape) != one.shape:
            raise InputError(
                f"tensor {one.source.name} became {tuple(made.shape)}, the model wants {one.shape}",
                where=one.source.file,
            )
        if one.quantized:
            self._quantize(one, 0, made)
        else:
            self._copies[one.name].copy_(made)

    def _quantize(self, one: Wanted, first: int, rows: torch.Tensor) -> None:
        self._quantized[one.name].fill(first, rows.to(self._device))

    def _cast(self, one: Wanted, first: int, numbers: torch.Tensor) -> None:
        out = self._copies[one.name].view(-1)
        out[first : first + numbers.numel()].copy_(numbers, non_blocking=True)


def typed(data_b: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Bytes as numbers, 1-D: a view, or a copy where they stand at an odd address."""
    if data_b.storage_offset() % dtype.itemsize or data_b.data_ptr() % dtype.itemsize:
        data_b = data_b.clone()
    return data_b.view(dtype)
