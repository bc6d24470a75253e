"""Casts to 16-bit floats."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from octavo.memory.buffers import host_buffer
from octavo.memory.codecs.checks import (
    admitted,
    check_payload,
    check_size,
    flat_out,
    raw_nbytes,
    refused,
)
from octavo.memory.codecs.pieces import PIECE, numel_of, read, spans, typed, written
from octavo.memory.payload import Payload

_TARGETS = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Half:
    """float32 and float64 rounded to float16 (``fp16``) or bfloat16 (``bf16``).

    The declared error is the largest one of this very tensor: each difference between a number
    and its rounding is exact in the number's own dtype.
    """

    kind: Literal["fp16", "bf16"]

    @property
    def name(self) -> str:
        return self.kind

    @property
    def lossless(self) -> bool:
        return False

    def supports(self, dtype: torch.dtype, shape: tuple[int, ...]) -> bool:  # noqa: ARG002
        return dtype in (torch.float32, torch.float64)

    def size_bound(self, dtype: torch.dtype, shape: tuple[int, ...]) -> int:  # noqa: ARG002
        return 2 * numel_of(shape)

    def scratch(self, dtype: torch.dtype, shape: tuple[int, ...]) -> int:
        # The piece copied where strides demand it, and the difference.
        return min(PIECE, numel_of(shape)) * 2 * (dtype.itemsize + 2)

    def encode(self, tensor: torch.Tensor) -> Payload:
        """Raises CodecError for NaN, infinity and numbers that become infinite as 16 bits."""
        tensor = admitted(self, tensor)
        data_b = host_buffer(2 * tensor.numel())
        half_n = data_b.view(_TARGETS[self.kind])
        error = 0.0
        for start, stop in spans(tensor.numel(), PIECE):
            error = max(error, self._cast(read(tensor, start, stop), half_n[start:stop]))
        return Payload(self.name, tensor.dtype, tuple(tensor.shape), data_b, error)

    def _cast(self, piece_n: torch.Tensor, half_n: torch.Tensor) -> float:
        half_n.copy_(piece_n)
        difference_n = half_n.to(piece_n.dtype).sub_(piece_n)
        least, most = torch.aminmax(difference_n)
        error = max(-least.item(), most.item())
        # NaN does not always win a comparison of Python numbers: ask both.
        if not (math.isfinite(least.item()) and math.isfinite(most.item())):
            raise refused(self, f"NaN, infinity or a number too large for {self.kind}")
        return error

    def check(self, payload: Payload) -> None:
        check_payload(self, payload)
        check_size(payload, raw_nbytes(payload) // payload.dtype.itemsize * 2)

    def decode(self, payload: Payload, out: torch.Tensor) -> None:
        self.check(payload)
        out_n = flat_out(payload, out)
        if out_n.device.type == "cpu":
            out_n.copy_(typed(payload.data, _TARGETS[self.kind]))
            return
        for start, stop in spans(out_n.numel(), PIECE):
            with written(out_n[start:stop]) as piece_n:
                piece_n.copy_(typed(payload.data[2 * start : 2 * stop], _TARGETS[self.kind]))
