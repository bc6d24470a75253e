"""Keys and values to block bytes and back, on the device they are on.

The offset is rounded down and the scale up, so that no code is clipped: an element comes back
within half a step of what went in, and the step is known beforehand (:func:`largest_step`).

Shapes: ``n`` blocks, ``h`` heads, ``s`` tokens of a block, ``d`` channels of a head.
"""

from __future__ import annotations

from typing import Final

import torch

from octavo.engine.kv_layout import BITS, BlockLayout

#: Scales and offsets are float16: one part in 2**11, and 2**-24 near zero. Twice that is left.
_MARGIN: Final = 2.0**-10
_LEAST: Final = 2.0**-23
_LARGEST: Final = 65504.0


def encode(
    layout: BlockLayout, keys_nhsd: torch.Tensor, values_nhsd: torch.Tensor, rows_nb: torch.Tensor
) -> None:
    """Writes ``n`` full blocks into ``rows_nb`` (``uint8``, one block in each row).

    Elements beyond the range of float16 (65504) are clipped to it when quantized.
    """
    if layout.precision == "exact":
        layout.view(rows_nb, "keys").copy_(keys_nhsd)
        layout.view(rows_nb, "values").copy_(values_nhsd)
        return
    bits = BITS[layout.precision]
    _encode(layout, rows_nb, "key", keys_nhsd, 2, bits)
    grouped = values_nhsd.unflatten(-1, (-1, layout.group))
    _encode(layout, rows_nb, "value", grouped, -1, bits)


def cast(layout: BlockLayout, rows_nb: torch.Tensor, name: str, out_nhsd: torch.Tensor) -> None:
    """The codes of ``keys`` or ``values`` (exact: the elements) as float32 into ``out_nhsd``."""
    part = layout.view(rows_nb, name)
    if layout.precision != "int4":
        out_nhsd.copy_(part)
        return
    half = layout.tokens // 2
    out_nhsd[:, :, :half].copy_(part & 15)
    out_nhsd[:, :, half:].copy_(part >> 4)


def decode(layout: BlockLayout, rows_nb: torch.Tensor, name: str, out_nhsd: torch.Tensor) -> None:
    """``keys`` or ``values`` as float32 into ``out_nhsd``."""
    cast(layout, rows_nb, name, out_nhsd)
    if layout.precision == "exact":
        return
    if name == "keys":
        scale = layout.view(rows_nb, "key_scale").float()[:, :, None]
        out_nhsd.mul_(scale).add_(layout.view(rows_nb, "key_offset").float()[:, :, None])
        return
    grouped = out_nhsd.unflatten(-1, (-1, layout.group))
    grouped.mul_(layout.view(rows_nb, "value_scale").float()[..., None])
    grouped.add_(layout.view(rows_nb, "value_offset").float()[..., None])


def largest_step(smallest: torch.Tensor, largest: torch.Tensor, bits: int) -> torch.Tensor:
    """The step between codes of elements from ``smallest`` to ``largest``, at most.

    What comes back is within half of it, and the last bits of float32 arithmetic.
    """
    _, scale = _terms(smallest, largest, 2**bits - 1)
    return scale * (1 + _MARGIN) + _LEAST


def _encode(
    layout: BlockLayout,
    rows_nb: torch.Tensor,
    name: str,
    elements: torch.Tensor,
    dim: int,
    bits: int,
) -> None:
    x = elements.float().clamp(-_LARGEST, _LARGEST)
    smallest, largest = torch.aminmax(x, dim=dim, keepdim=True)
    offset, scale = _terms(smallest, largest, 2**bits - 1)
    offset16, scale16 = offset.half(), scale.half()
    layout.view(rows_nb, f"{name}_offset").copy_(offset16.squeeze(dim))
    layout.view(rows_nb, f"{name}_scale").copy_(scale16.squeeze(dim))
    codes = x.sub_(offset16.float()).div_(scale16.float()).round_().to(torch.uint8)
    if name == "value":
        codes = codes.flatten(-2)
    if bits == 4:
        half = layout.tokens // 2
        codes = codes[:, :, :half] | (codes[:, :, half:] << 4)
    layout.view(rows_nb, f"{name}s").copy_(codes)


def _terms(
    smallest: torch.Tensor, largest: torch.Tensor, levels: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """An offset that stays under ``smallest`` and a scale that reaches ``largest`` in float16."""
    offset = (smallest - smallest.abs() * _MARGIN - _LEAST).clamp_(min=-_LARGEST)
    # The offset may be rounded down once more.
    reach = largest - offset + offset.abs() * _MARGIN + _LEAST
    return offset, reach / levels * (1 + _MARGIN) + _LEAST
