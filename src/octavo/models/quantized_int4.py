"""Four bits a weight: groups of 64 inputs, each with a bfloat16 scale and a bfloat16 middle.

``w ~ (q - 8) * scale + middle`` with ``q`` from 0 to 15; the group's least value is
``middle - 8 * scale``. Bytes lie as torch's kernel for int4 weights on this processor wants them:

- *panels* (n / p, k, p / 2) of p = 32 (AVX2) or 64 (AVX-512) outputs: for each input, a byte
  holds the weights of outputs i (low bits) and i + p / 2 of the panel;
- *rows* (n, k / 2) elsewhere, and where the outputs are no multiple of the panel: a byte holds
  inputs j (low bits) and j + k / 2.

A saved state of another layout is converted when it is loaded.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any, Final

import torch

from octavo.hardware.spec import INT4_GROUP, Precision
from octavo.models.quantized import SCRATCH, QuantizedLinear, scratch

#: Up to here torch's own kernel is faster than unpacking blocks; it is fast for bfloat16 only.
_FEW_TOKENS: Final = 192
#: Rows of one panel share bytes; only blocks that do not cover their panels take it.
_edges: Final = threading.Lock()


class Int4Linear(QuantizedLinear):
    """Buffers: ``weight_q`` uint8 in one of the layouts, ``scale_middle`` bfloat16
    (k / 64, n, 2)."""

    precision = Precision.INT4
    weight_q: torch.Tensor
    scale_middle: torch.Tensor

    def __init__(
        self,
        out_features: int,
        in_features: int,
        compute: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(out_features, in_features, compute)
        panel = panel_rows() if torch.device(device).type in ("cpu", "meta") else 0
        if panel and out_features % panel == 0:
            self.row_block = panel
            shape: tuple[int, ...] = (out_features // panel, in_features, panel // 2)
        else:
            shape = (out_features, in_features // 2)
        size = (in_features // INT4_GROUP, out_features, 2)
        self.register_buffer("weight_q", torch.empty(shape, dtype=torch.uint8, device=device))
        self.register_buffer("scale_middle", torch.empty(size, dtype=torch.bfloat16, device=device))

    def dequantized(self) -> torch.Tensor:
        scale_gn, middle_gn = self.scale_middle.float().unbind(-1)
        codes_nk = _codes(self.weight_q).float().sub_(8)
        groups_ngk = codes_nk.view(self.out_features, -1, INT4_GROUP)
        weight_ngk = torch.addcmul(
            middle_gn.t()[..., None], groups_ngk, scale_gn.t()[..., None], out=groups_ngk
        )
        return weight_ngk.view(self.out_features, self.in_features).to(self.compute)

    def error_bound(self) -> torch.Tensor:
        scale_gn, middle_gn = self.scale_middle.float().unbind(-1)
        # Half a step, and what rounding the middle cuts off at the ends of the range.
        return (scale_gn / 2 + middle_gn.abs() * 2.0**-8 + scale_gn * 2.0**-5).t()

    def _fill_block(self, first_row: int, rows_rk: torch.Tensor) -> None:
        codes_rk, scale_rg, middle_rg = _quantize(rows_rk)
        last = first_row + codes_rk.shape[0]
        self.scale_middle[:, first_row:last, 0] = scale_rg.t()
        self.scale_middle[:, first_row:last, 1] = middle_rg.t()
        if first_row % self.row_block == 0 and last % self.row_block == 0:
            self._store(first_row, codes_rk)
            return
        with _edges:
            low = first_row // self.row_block * self.row_block
            high = -(-last // self.row_block) * self.row_block
            whole_rk = _codes(self._stored(low, high))
            whole_rk[first_row - low : last - low] = codes_rk
            self._store(low, whole_rk)

    def _stored(self, first_row: int, last_row: int) -> torch.Tensor:
        return self.weight_q[first_row // self.row_block : last_row // self.row_block]

    def _store(self, first_row: int, codes_rk: torch.Tensor) -> None:
        _pack(codes_rk, self._stored(first_row, first_row + codes_rk.shape[0]))

    def _multiply(self, x_mk: torch.Tensor) -> torch.Tensor:
        panels = self.weight_q.ndim == 3
        own_kernel = panels and x_mk.device.type == "cpu" and self.row_block == panel_rows()
        if own_kernel and x_mk.dtype is torch.bfloat16 and x_mk.shape[0] <= _FEW_TOKENS:
            return _kernel(x_mk, self.weight_q, self.scale_middle)
        y_mn = x_mk.new_empty(x_mk.shape[0], self.out_features)
        step = SCRATCH // (self.in_features * self.compute.itemsize)
        step = max(step // self.row_block, 1) * self.row_block
        for first in range(0, self.out_features, step):
            last = min(first + step, self.out_features)
            scale_gr, middle_gr = self.scale_middle[:, first:last].to(self.compute).unbind(-1)
            multiply = _multiply_panels if panels else _multiply_rows
            packed = self._stored(first, last)
            multiply(x_mk, packed, scale_gr, middle_gr, y_mn[:, first:last])
        return y_mn

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *other: Any) -> None:
        """Takes a state of another processor's layout, too."""
        name = prefix + "weight_q"
        saved = state_dict.get(name)
        same_size = saved is not None and saved.numel() == self.weight_q.numel()
        if same_size and saved.shape != self.weight_q.shape:
            _pack(_codes(saved), turned := torch.empty_like(self.weight_q, device=saved.device))
            state_dict[name] = turned
        super()._load_from_state_dict(state_dict, prefix, *other)


@cache
def panel_rows() -> int:
    """Outputs of a panel as torch's kernel wants it on this processor; 0 where it is unknown."""
    panel = {"AVX512": 64, "AVX2": 32}.get(torch.backends.cpu.get_cpu_capability(), 0)
    if not panel:
        return 0
    # It is no promise of torch, so it is tried once.
    codes_rk = torch.arange(64 * 64, dtype=torch.int32).remainder_(17).remainder_(16).view(64, 64)
    wanted = torch._convert_weight_to_int4pack_for_cpu(codes_rk, 2)
    mine = torch.empty(64 // panel, 64, panel // 2, dtype=torch.uint8)
    _pack(codes_rk.to(torch.uint8), mine)
    return panel if torch.equal(mine.flatten(), wanted.flatten()) else 0


def _kernel(x_mk: torch.Tensor, packed: torch.Tensor, scale_middle: torch.Tensor) -> torch.Tensor:
    flat = packed.view(-1, packed.shape[1] // 2)
    y_mn: torch.Tensor = torch._weight_int4pack_mm_for_cpu(
        x_mk.contiguous(), flat, INT4_GROUP, scale_middle
    )
    return y_mn


def _quantize(rows_rk: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Codes uint8 (r, k), scales and middles bfloat16 (r, g)."""
    count, width = rows_rk.shape
    values_rgk = scratch((count, width // INT4_GROUP, INT4_GROUP), torch.float32, rows_rk.device)
    values_rgk.view(count, width).copy_(rows_rk)
    most_rg, least_rg = values_rgk.amax(-1), values_rgk.amin(-1)
    scale_rg = ((most_rg - least_rg) / 15).to(torch.bfloat16)
    exact_rg = scale_rg.float()
    middle_rg = (least_rg + 8 * exact_rg).to(torch.bfloat16)
    inverse_rg = torch.where(exact_rg > 0, 1 / exact_rg, 0)
    # The half makes the cast, which cuts, round; a group of equal values is all middle.
    base_rg = middle_rg.float() - 8.5 * exact_rg
    values_rgk.sub_(base_rg[..., None]).mul_(inverse_rg[..., None]).clamp_(0, 15.5)
    codes_rk = values_rgk.to(torch.uint8).view(count, width)
    return codes_rk, scale_rg, middle_rg


def _pack(codes_rk: torch.Tensor, place: torch.Tensor) -> None:
    """Codes (r, k) into the layout that ``place`` has."""
    if place.ndim == 2:
        low_rk, high_rk = codes_rk.chunk(2, dim=1)
        torch.bitwise_or(high_rk << 4, low_rk, out=place)
        return
    count, width, half = place.shape
    low_pik, high_pik = codes_rk.view(count, 2, half, width).unbind(1)
    place.copy_((high_pik << 4).bitwise_or_(low_pik).transpose(1, 2))


def _codes(packed: torch.Tensor) -> torch.Tensor:
    """Codes uint8 (r, k) out of either layout."""
    low, high = packed & 15, packed >> 4
    if packed.ndim == 2:
        return torch.cat((low, high), dim=1)
    count, width, half = packed.shape
    return torch.cat((low, high), dim=2).transpose(1, 2).reshape(count * half * 2, width)


def _multiply_panels(
    x_mk: torch.Tensor,
    packed: torch.Tensor,
    scale_gr: torch.Tensor,
    middle_gr: torch.Tensor,
    y_mr: torch.Tensor,
) -> None:
    count, width, half = packed.shape
    rows = 2 * half
    block = scratch((count, width, rows), x_mk.dtype, x_mk.device)
    _signed(packed, block[..., half:], block[..., :half])
    groups_pgkr = block.view(count, -1, INT4_GROUP, rows)
    scale_pgr = scale_gr.view(-1, count, rows).transpose(0, 1)[:, :, None]
    middle_pgr = middle_gr.view(-1, count, rows).transpose(0, 1)[:, :, None]
    torch.addcmul(middle_pgr, groups_pgkr, scale_pgr, out=groups_pgkr)
    tokens = x_mk.shape[0]
    y_pmr = torch.bmm(x_mk.expand(count, tokens, width), block)
    y_mr.view(tokens, count, rows).copy_(y_pmr.transpose(0, 1))


def _multiply_rows(
    x_mk: torch.Tensor,
    packed: torch.Tensor,
    scale_gr: torch.Tensor,
    middle_gr: torch.Tensor,
    y_mr: torch.Tensor,
) -> None:
    count, half = packed.shape
    block = scratch((count, 2 * half), x_mk.dtype, x_mk.device)
    _signed(packed, block[:, half:], block[:, :half])
    groups_rgk = block.view(count, -1, INT4_GROUP)
    torch.addcmul(middle_gr.t()[..., None], groups_rgk, scale_gr.t()[..., None], out=groups_rgk)
    y_mr.copy_(torch.mm(x_mk, block.t()))


def _signed(packed: torch.Tensor, high: torch.Tensor, low: torch.Tensor) -> None:
    """``code - 8`` of the high and the low bits, as floats."""
    signed = (packed ^ 0x88).view(torch.int8)
    high.copy_(signed >> 4)
    low.copy_((signed << 4) >> 4)
