"""What comes out of quantized blocks is within half a step of what went in."""

from __future__ import annotations

import pytest
import torch

from octavo.engine.kv import KvShape
from octavo.engine.kv_codes import decode, encode, largest_step
from octavo.engine.kv_layout import BITS, BlockLayout, KvPrecision


def _round_trip(
    layout: BlockLayout, keys: torch.Tensor, values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    rows_nb = torch.full((len(keys), layout.nbytes), 255, dtype=torch.uint8)
    encode(layout, keys, values, rows_nb)
    out = torch.empty(2, *keys.shape)
    decode(layout, rows_nb, "keys", out[0])
    decode(layout, rows_nb, "values", out[1])
    return out[0], out[1]


def _extremes(x: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    return x.amin(dim, keepdim=True).float(), x.amax(dim, keepdim=True).float()


@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize("dim", [64, 128, 80])
@pytest.mark.parametrize("scale", [1e-6, 0.02, 1.0, 300.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_errors_are_within_half_a_step(
    precision: KvPrecision, dim: int, scale: float, dtype: torch.dtype
) -> None:
    layout = BlockLayout(KvShape(1, 2, dim, dtype), precision, 16)
    random = torch.Generator().manual_seed(dim)
    keys = torch.randn(5, 2, 16, dim, generator=random) * scale
    keys += torch.randn(5, 2, 1, dim, generator=random) * scale * 20  # channels far from zero
    values = torch.randn(5, 2, 16, dim, generator=random) * scale
    keys, values = keys.to(dtype), values.to(dtype)
    out_keys, out_values = _round_trip(layout, keys, values)

    slack = 1e-5 * keys.abs().amax().item()
    step = largest_step(*_extremes(keys, 2), BITS[precision])
    assert ((out_keys - keys.float()).abs() <= step / 2 + slack).all()
    if scale > 1e-3:
        # Tight as well: somebody is further off than a quarter of a step.
        assert ((out_keys - keys.float()).abs() > step / 4).any()
    grouped = values.unflatten(-1, (-1, layout.group))
    step = largest_step(*_extremes(grouped, -1), BITS[precision])
    off = (out_values - values.float()).abs().unflatten(-1, (-1, layout.group))
    assert (off <= step / 2 + slack).all()
    # The bound is what is usual for so many bits, not a loose one.
    spread = torch.sub(*reversed(_extremes(grouped, -1)))
    usual = spread / (2 ** BITS[precision] - 1)
    assert (step <= usual * 1.02 + 5e-7).all()


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_ends_of_the_range_are_not_clipped(precision: KvPrecision) -> None:
    layout = BlockLayout(KvShape(1, 1, 64, torch.float32), precision, 16)
    keys = torch.zeros(1, 1, 16, 64)
    keys[0, 0, 3] = 1000.7
    keys[0, 0, 4] = 1000.7 - 1.0  # a small range far from zero, in the same channels
    keys[0, 0, :3] = keys[0, 0, 5:] = 1000.2
    out_keys, _ = _round_trip(layout, keys, torch.zeros_like(keys))
    step = largest_step(torch.tensor(999.7), torch.tensor(1000.7), BITS[precision]).item()
    assert (out_keys - keys).abs().max() <= step / 2 + 1e-3


@pytest.mark.parametrize("precision", ["int8", "int4"])
@pytest.mark.parametrize("value", [0.0, 1.5, -3e-9, 65504.0, -65504.0, 1e30, -1e30])
def test_constants_and_extremes_stay_finite(precision: KvPrecision, value: float) -> None:
    layout = BlockLayout(KvShape(1, 1, 64, torch.float32), precision, 16)
    keys = torch.full((1, 1, 16, 64), value)
    for out in _round_trip(layout, keys, keys):
        expected = max(min(value, 65504.0), -65504.0)
        assert (out - expected).abs().max() <= 1e-3 * abs(expected) + 1e-6


def test_exact_blocks_are_exact() -> None:
    layout = BlockLayout(KvShape(1, 2, 32, torch.bfloat16), "exact", 16)
    keys, values = torch.randn(2, 3, 2, 16, 32).bfloat16()
    out_keys, out_values = _round_trip(layout, keys, values)
    assert torch.equal(out_keys, keys.float())
    assert torch.equal(out_values, values.float())
