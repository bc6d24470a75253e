"""Scales and minima for codes, and the error that they are certain to keep.

A number becomes ``round((x - minimum) / scale)`` and comes back as ``code * scale + minimum``.

Shape letters: k blocks, g rows of a block, c columns, n numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

#: Tensor's dtype → the dtype to compute in.
COMPUTE = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float32: torch.float32,
    torch.float64: torch.float64,
}


@dataclass(frozen=True, slots=True)
class Affine:
    """Attributes:
    scale_k1c, minimum_k1c: in the dtype of the tensor, as they are stored.
    error: no number of these blocks comes back farther from itself than this.
    """

    scale_k1c: torch.Tensor
    minimum_k1c: torch.Tensor
    error: float


def fitted(x_kgc: torch.Tensor, dtype: torch.dtype, levels: int) -> Affine | None:
    """Scales and minima for blocks of a tensor of ``dtype``, given in ``COMPUTE[dtype]``.

    None when a number is NaN or infinite, or could pass the largest number on its way back.
    """
    low_k1c, high_k1c = x_kgc.amin(1, keepdim=True), x_kgc.amax(1, keepdim=True)
    span_k1c = high_k1c - low_k1c
    scale_k1c = _scale(span_k1c, dtype, levels)
    error = _error(low_k1c, high_k1c, span_k1c, scale_k1c.to(x_kgc.dtype), dtype)
    # The minimum is an element of the tensor: no rounding.
    return None if error is None else Affine(scale_k1c, low_k1c.to(dtype), error)


def write_codes(
    x_kgc: torch.Tensor, by: Affine, room_n: torch.Tensor, codes_n: torch.Tensor
) -> None:
    """The codes of ``x_kgc`` into ``codes_n`` (``uint8``), by way of ``room_n`` (floats)."""
    # Division: a product with the inverse would round once more.
    minimum_k1c, scale_k1c = by.minimum_k1c.to(x_kgc.dtype), by.scale_k1c.to(x_kgc.dtype)
    steps_kgc = room_n[: x_kgc.numel()].view(x_kgc.shape)
    torch.sub(x_kgc, minimum_k1c, out=steps_kgc).div_(scale_k1c).round_()
    # numpy casts floats to bytes several times faster than torch.
    np.copyto(codes_n.numpy(), steps_kgc.view(-1).numpy(), casting="unsafe")


def _scale(span_k1c: torch.Tensor, dtype: torch.dtype, levels: int) -> torch.Tensor:
    """At least ``span / levels`` after rounding to ``dtype``, so that no code passes ``levels``."""
    least = _least_scale(dtype)
    upward = 1 + torch.finfo(dtype).eps + 2 * torch.finfo(span_k1c.dtype).eps
    return (span_k1c * (upward / levels)).add_(least / 2).clamp_min_(least).to(dtype)


def _least_scale(dtype: torch.dtype) -> float:
    """The spacing of the smallest float16; of the others the smallest normal number."""
    info = torch.finfo(dtype)
    return info.tiny * info.eps if dtype == torch.float16 else info.tiny


def _error(
    low: torch.Tensor,
    high: torch.Tensor,
    span: torch.Tensor,
    scale: torch.Tensor,
    dtype: torch.dtype,
) -> float | None:
    """Half a step, and every rounding on the way: subtract, divide, multiply, add, cast."""
    out, compute = torch.finfo(dtype), torch.finfo(scale.dtype)
    largest = torch.maximum(high, -low).add_(scale)
    # NaN fails every comparison.
    fits = float(largest.amax()) <= out.max * (1 - 4 * out.eps)
    if not (fits and float((span + scale).amax()) <= compute.max * (1 - 4 * compute.eps)):
        return None
    cast = 0.0 if dtype == scale.dtype else out.eps / 2
    bounds = scale * (0.5 + compute.eps)
    bounds.add_(span, alpha=2 * compute.eps).add_(largest, alpha=compute.eps / 2 + cast)
    # These sums are themselves rounded; a thread may flush tiny numbers to zero.
    return float(bounds.amax()) * (1 + 8 * compute.eps) + 2 * compute.tiny
