"""Eight bits a weight: symmetric, one float32 scale an output row.

``w ~ q * scale`` with ``q`` from -127 to 127. The bytes are exact in bfloat16, so a block of them
is cast, multiplied and the sum scaled: the only loss is that of the rounding when filled.
"""

from __future__ import annotations

from typing import Final

import torch

from octavo.hardware.spec import Precision
from octavo.models.quantized import SCRATCH, QuantizedLinear, scratch

#: Up to here torch's own kernel for int8 weights is faster than casting blocks; it is fast for
#: bfloat16 only.
_FEW_TOKENS: Final = 8
#: It reads this many inputs at a time, beyond the end of a row that is no multiple (torch 2.13).
_KERNEL_INPUTS: Final = 16


class Int8Linear(QuantizedLinear):
    """Buffers: ``weight_q`` int8 (n, k), ``scale`` float32 (n,)."""

    precision = Precision.INT8
    weight_q: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self,
        out_features: int,
        in_features: int,
        compute: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(out_features, in_features, compute)
        size = (out_features, in_features)
        self.register_buffer("weight_q", torch.empty(size, dtype=torch.int8, device=device))
        self.register_buffer("scale", torch.empty(out_features, device=device))

    def dequantized(self) -> torch.Tensor:
        weight_nk = self.weight_q.float().mul_(self.scale[:, None])
        return weight_nk.to(self.compute)

    def error_bound(self) -> torch.Tensor:
        # Half a step, and the last bits of float32 arithmetic.
        return self.scale[:, None] * (0.5 + 127 * 2.0**-22)

    def _fill_block(self, first_row: int, rows_rk: torch.Tensor) -> None:
        last = first_row + rows_rk.shape[0]
        scale_r = _largest(rows_rk) / 127
        inverse_r = torch.where(scale_r > 0, 1 / scale_r, 0)
        values_rk = scratch(tuple(rows_rk.shape), torch.float32, rows_rk.device)
        values_rk.copy_(rows_rk).mul_(inverse_r[:, None]).round_()
        self.weight_q[first_row:last].copy_(values_rk)
        self.scale[first_row:last].copy_(scale_r)

    def _multiply(self, x_mk: torch.Tensor) -> torch.Tensor:
        tokens = x_mk.shape[0]
        kernel = x_mk.device.type == "cpu" and self.in_features % _KERNEL_INPUTS == 0
        if kernel and x_mk.dtype is torch.bfloat16 and tokens <= _FEW_TOKENS:
            ones_n = torch.ones(self.out_features, dtype=torch.bfloat16)
            y_mn = torch._weight_int8pack_mm(x_mk.contiguous(), self.weight_q, ones_n)
            return y_mn.mul_(self.scale)
        # Unscaled sums pass the largest float16.
        early = x_mk.dtype is torch.float16
        y_mn = x_mk.new_empty(tokens, self.out_features)
        step = max(SCRATCH // (self.in_features * self.compute.itemsize), 16)
        for first in range(0, self.out_features, step):
            weight_q = self.weight_q[first : first + step]
            block_rk = scratch(tuple(weight_q.shape), self.compute, x_mk.device).copy_(weight_q)
            if early:
                block_rk *= self.scale[first : first + step, None]
            y_mr = y_mn[:, first : first + step]
            torch.mm(x_mk, block_rk.t(), out=y_mr)
            if not early:  # by block: a product of two float types makes float32 copies
                y_mr.mul_(self.scale[first : first + step])
        return y_mn


def _largest(rows_rk: torch.Tensor) -> torch.Tensor:
    """Largest magnitude of each row, float32."""
    if rows_rk.dtype is torch.bfloat16:
        # Without their sign, bfloat16 numbers are in the order of their bits; three times as fast.
        bits_rk = rows_rk.contiguous().view(torch.int16) & 0x7FFF
        return bits_rk.amax(1).view(torch.bfloat16).float()
    return rows_rk.abs().amax(1).float()
