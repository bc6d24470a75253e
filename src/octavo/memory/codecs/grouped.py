"""Eight or four bits a number, with a scale and a minimum for each group of numbers.

Uniform affine quantization; by group as is usual since Dettmers et al. 2022, "LLM.int8()"; by
channel over blocks of tokens as in Liu et al. 2024, "KIVI". Scale and minimum are kept in the
tensor's dtype; half precision is computed as float32.

Shape letters: n elements, k blocks, g rows of a block, c columns, b bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from octavo.errors import ConfigError
from octavo.memory.buffers import host_buffer
from octavo.memory.codecs.affine import COMPUTE, fitted, write_codes
from octavo.memory.codecs.blocks import MOST, Axis, Blocks
from octavo.memory.codecs.checks import (
    admitted,
    check_payload,
    check_size,
    damaged,
    flat_out,
    refused,
    whole_number,
)
from octavo.memory.codecs.packing import pack_into, unpacked
from octavo.memory.codecs.pieces import read, typed, written
from octavo.memory.payload import Payload

_LARGEST_SIZE = 4096


@dataclass(frozen=True, slots=True)
class Grouped:
    """Codes of ``bits`` bits for float16, bfloat16, float32 and float64.

    Attributes:
        bits: 8 or 4.
        axis: what shares a scale. ``group``: runs of ``size`` elements along the last dimension
            (and on into the next row, where its length is no multiple). ``token``: a whole row
            of the last dimension. ``channel``: a column of it, over ``size`` rows at a time.
        size: an even number; ``token`` has no use for it.
    """

    bits: Literal[4, 8] = 8
    axis: Axis = "group"
    size: int = 64

    def __post_init__(self) -> None:
        if self.size % 2 or not 2 <= self.size <= _LARGEST_SIZE:
            raise ConfigError(
                f"groups of {self.size} elements",
                where=f"codec {self.name}",
                next_step=f"choose an even size of 2 to {_LARGEST_SIZE}",
            )

    @property
    def name(self) -> str:
        return f"int{self.bits}" if self.axis == "group" else f"int{self.bits}-{self.axis}"

    @property
    def lossless(self) -> bool:
        return False

    def supports(self, dtype: torch.dtype, shape: tuple[int, ...]) -> bool:
        if dtype not in COMPUTE or (self.axis != "group" and not shape):
            return False
        return self._blocks(dtype, shape, self.size).block <= MOST[self.axis]

    def size_bound(self, dtype: torch.dtype, shape: tuple[int, ...]) -> int:
        return self._blocks(dtype, shape, self.size).nbytes

    def scratch(self, dtype: torch.dtype, shape: tuple[int, ...]) -> int:
        blocks = self._blocks(dtype, shape, self.size)
        # A piece as it is read, twice in floats, and its codes; a dozen numbers for each scale.
        an_element = dtype.itemsize + 2 * COMPUTE.get(dtype, dtype).itemsize + 4
        return blocks.elements_at_once * an_element + blocks.scales_at_once * 12 * 8

    def encode(self, tensor: torch.Tensor) -> Payload:
        """Raises CodecError for NaN, infinity, and numbers too near to their dtype's largest."""
        tensor = admitted(self, tensor)
        shape = tuple(tensor.shape)
        blocks = self._blocks(tensor.dtype, shape, self.size)
        data_b = host_buffer(blocks.nbytes)
        blocks.blank_gaps(data_b)
        scales, minima = self._parameters(data_b, blocks, tensor.dtype)
        room = _Room.of(blocks, COMPUTE[tensor.dtype])
        error, at = 0.0, 0
        for start, stop, piece_shape in blocks.pieces():
            x_kgc = room.widened(read(tensor, start, stop)).view(piece_shape)
            affine = fitted(x_kgc, tensor.dtype, 2**self.bits - 1)
            if affine is None:
                raise refused(self, "NaN, infinity, or numbers too near to the dtype's largest")
            codes_b = self._codes(data_b, start, stop)
            codes_n = codes_b if self.bits == 8 else room.codes_n[: 2 * codes_b.numel()]
            write_codes(x_kgc, affine, room.floats_n, codes_n[: stop - start])
            if self.bits == 4:
                codes_n[stop - start :] = 0
                pack_into(codes_b, codes_n)
            end = at + affine.scale_k1c.numel()
            scales[at:end] = affine.scale_k1c.view(-1)
            minima[at:end] = affine.minimum_k1c.view(-1)
            error, at = max(error, affine.error), end
        meta = {} if self.axis == "token" else {"size": self.size}
        return Payload(self.name, tensor.dtype, shape, data_b, error, meta)

    def check(self, payload: Payload) -> None:
        check_payload(self, payload)
        blocks = self._blocks_of(payload)
        if blocks.block > MOST[self.axis]:
            raise damaged(f"blocks of {blocks.block} elements", payload)
        check_size(payload, blocks.nbytes)

    def decode(self, payload: Payload, out: torch.Tensor) -> None:
        self.check(payload)
        out_n = flat_out(payload, out)
        blocks = self._blocks_of(payload)
        scales, minima = self._parameters(payload.data, blocks, payload.dtype)
        at = 0
        for start, stop, (k, g, c) in blocks.pieces():
            end = at + k * c
            codes_n = self._read_codes(self._codes(payload.data, start, stop), stop - start)
            with written(out_n[start:stop]) as piece_n:
                _restore(
                    codes_n.view(k, g, c),
                    scales[at:end].view(k, 1, c),
                    minima[at:end].view(k, 1, c),
                    piece_n.view(k, g, c),
                )
            at = end

    def _blocks(self, dtype: torch.dtype, shape: tuple[int, ...], size: int) -> Blocks:
        return Blocks.of(self.axis, size, shape, self.bits, dtype.itemsize)

    def _blocks_of(self, payload: Payload) -> Blocks:
        """With the size that was encoded with, whatever this codec's own is."""
        if self.axis == "token":
            return self._blocks(payload.dtype, payload.shape, self.size)
        size = whole_number(payload, "size", 2, _LARGEST_SIZE)
        if size % 2:
            raise damaged(f"groups of {size} elements", payload)
        return self._blocks(payload.dtype, payload.shape, size)

    def _parameters(
        self, data_b: torch.Tensor, blocks: Blocks, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The scales and the minima within the data, 1-D."""
        length = blocks.scales * dtype.itemsize
        first, second = blocks.scales_at, blocks.minima_at
        return (
            typed(data_b[first : first + length], dtype),
            typed(data_b[second : second + length], dtype),
        )

    def _codes(self, data_b: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        """The bytes with the codes of elements ``start`` (even) to ``stop``."""
        return data_b[start * self.bits // 8 : -(-stop * self.bits // 8)]

    def _read_codes(self, codes_b: torch.Tensor, count: int) -> torch.Tensor:
        return codes_b if self.bits == 8 else unpacked(codes_b)[:count]


@dataclass(frozen=True, slots=True)
class _Room:
    """Memory for one piece, used again for the next: new pages cost more than the arithmetic."""

    wide_n: torch.Tensor
    floats_n: torch.Tensor
    codes_n: torch.Tensor

    @classmethod
    def of(cls, blocks: Blocks, compute: torch.dtype) -> _Room:
        count = blocks.elements_at_once
        return cls(
            torch.empty(count, dtype=compute, device="cpu"),
            torch.empty(count, dtype=compute, device="cpu"),
            torch.empty(count + count % 2, dtype=torch.uint8, device="cpu"),
        )

    def widened(self, piece_n: torch.Tensor) -> torch.Tensor:
        """``piece_n`` in the dtype to compute in."""
        if piece_n.dtype == self.wide_n.dtype:
            return piece_n
        return self.wide_n[: piece_n.numel()].copy_(piece_n)


def _restore(
    codes_kgc: torch.Tensor,
    scale_k1c: torch.Tensor,
    minimum_k1c: torch.Tensor,
    out_kgc: torch.Tensor,
) -> None:
    compute = COMPUTE[out_kgc.dtype]
    # In place where the output is what is computed in.
    y_kgc = out_kgc if out_kgc.dtype == compute else torch.empty_like(codes_kgc, dtype=compute)
    y_kgc.copy_(codes_kgc).mul_(scale_k1c.to(compute)).add_(minimum_k1c.to(compute))
    if y_kgc is not out_kgc:
        out_kgc.copy_(y_kgc)
