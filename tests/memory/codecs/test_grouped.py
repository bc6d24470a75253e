from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.errors import CodecError, ConfigError
from octavo.memory.codecs import CODECS, Grouped, decode
from octavo.memory.codecs.blocks import MOST
from octavo.memory.codecs.packing import pack_into, unpacked
from octavo.memory.payload import Payload
from tests.memory.codecs.tensors import FLOATS, finite_tensors, worst

KINDS = tuple(Grouped(bits, axis) for bits in (8, 4) for axis in ("group", "channel", "token"))
CODECS_DRAWN = st.builds(
    Grouped,
    bits=st.sampled_from((4, 8)),
    axis=st.sampled_from(("group", "channel", "token")),
    size=st.sampled_from((2, 32, 64, 128)),
)


@settings(max_examples=300, deadline=None)
@given(codec=CODECS_DRAWN, tensor=finite_tensors())
def test_no_element_is_farther_than_declared(codec: Grouped, tensor: torch.Tensor) -> None:
    if not codec.supports(tensor.dtype, tuple(tensor.shape)):
        assert tensor.dim() == 0
        return
    try:
        payload = codec.encode(tensor)
    except CodecError:
        # Only numbers so large that the way back could overflow.
        assert float(tensor.double().abs().max()) > torch.finfo(tensor.dtype).max / 4
        return
    assert payload.nbytes == codec.size_bound(tensor.dtype, tuple(tensor.shape))
    assert np.isfinite(payload.error)
    back = decode(payload)
    assert bool(torch.isfinite(back).all())
    assert worst(tensor, back) <= payload.error


@pytest.mark.parametrize("codec", KINDS, ids=lambda codec: codec.name)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_decodes_as_a_reference_does_from_the_bytes(codec: Grouped, dtype: torch.dtype) -> None:
    tensor = torch.randn(150, 77, generator=torch.Generator().manual_seed(5)).to(dtype)
    payload = codec.encode(tensor)
    expected, scales = _reference(codec, payload)
    back = decode(payload).double().numpy()
    exact = tensor.double().numpy()
    coarse = torch.finfo(dtype).eps * 8 + torch.finfo(torch.float32).eps * 8
    np.testing.assert_allclose(back, expected, atol=coarse, rtol=0)
    # The nearest code, for each element by its own scale.
    assert (np.abs(expected - exact) <= scales * 0.50001 + 1e-6).all()
    assert payload.error <= scales.max() * 0.501 + coarse


def _reference(codec: Grouped, payload: Payload) -> tuple[np.ndarray, np.ndarray]:
    """Decoded values and the scale of each element, with numpy alone, from the bytes."""
    rows, columns = payload.shape
    data = payload.data.numpy()
    count = rows * columns
    if codec.bits == 8:
        codes, at = data[:count].astype(np.float64), count
    else:
        at = (count + 1) // 2
        codes = np.stack([data[:at] & 15, data[:at] >> 4], 1).reshape(-1)[:count].astype(np.float64)
    index = np.arange(count)
    belongs = {
        "group": index // codec.size,
        "token": index // columns,
        "channel": index // columns // codec.size * columns + index % columns,
    }[codec.axis]
    groups = int(belongs.max()) + 1
    width = payload.dtype.itemsize
    first = -(-at // 16) * 16
    second = first + -(-groups * width // 16) * 16
    scales, minima = (
        torch.from_numpy(data[place : place + groups * width].copy()).view(payload.dtype).double()
        for place in (first, second)
    )
    assert second + groups * width == data.size
    scale = scales.numpy()[belongs]
    value = codes * scale + minima.numpy()[belongs]
    return value.reshape(rows, columns), scale.reshape(rows, columns)


@pytest.mark.parametrize("codec", KINDS, ids=lambda codec: codec.name)
@pytest.mark.parametrize("shape", [(140_001,), (2, 70_003), (30_001, 5), (500, 301)])
def test_many_pieces_and_short_last_blocks(codec: Grouped, shape: tuple[int, ...]) -> None:
    if not codec.supports(torch.float32, shape):
        assert codec.axis != "group"
        return
    tensor = torch.randn(shape)
    payload = codec.encode(tensor)
    assert worst(tensor, decode(payload)) <= payload.error
    strided = torch.randn(shape[::-1]).permute(*range(len(shape) - 1, -1, -1))
    assert torch.equal(decode(codec.encode(strided)), decode(codec.encode(strided.contiguous())))


def test_far_from_zero_the_way_back_rounds_to_a_coarse_grid() -> None:
    # Steps of 3.2 spacings of float32: eight spacings are half way between two codes, and what
    # comes back is rounded to a whole number of spacings: two off, where half a step is 1.6.
    spacing = 2.0**-3
    tensor = 2.0**20 + spacing * torch.arange(817)
    payload = Grouped(8, "token").encode(tensor)
    wrong = worst(tensor, decode(payload))
    assert 1.9 * spacing < wrong <= payload.error < 2.2 * spacing


def test_bound_holds_where_tiny_numbers_are_flushed_to_zero() -> None:
    tensor = torch.full((64,), 1.1e-38)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush")
    try:
        payload = Grouped().encode(tensor)
        back = decode(payload)
    finally:
        torch.set_flush_denormal(False)
    assert worst(tensor, back) <= payload.error


@pytest.mark.parametrize("codec", KINDS, ids=lambda codec: codec.name)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("at", [(0, 0), (399, 511), (398, 130), (63, 64)])
def test_refuses_nan_and_infinity_anywhere(codec: Grouped, bad: float, at: tuple[int, int]) -> None:
    tensor = torch.ones(400, 512, dtype=torch.bfloat16 if at[0] % 2 else torch.float32)
    tensor[at] = bad
    with pytest.raises(CodecError, match="NaN"):
        codec.encode(tensor)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_refuses_a_spread_that_overflows(dtype: torch.dtype) -> None:
    most = torch.finfo(dtype).max
    with pytest.raises(CodecError, match="largest"):
        Grouped().encode(torch.tensor([-most, most], dtype=dtype))


@pytest.mark.parametrize("codec", KINDS, ids=lambda codec: codec.name)
def test_a_constant_comes_back_exact(codec: Grouped) -> None:
    for dtype in FLOATS:
        tensor = torch.full((9, 130), 0.1, dtype=dtype)
        assert torch.equal(decode(codec.encode(tensor)), tensor)


def test_an_outlier_spoils_only_what_shares_its_scale() -> None:
    tensor = torch.randn(256, 128)
    tensor[:, 3] *= 1000
    tensor[77] *= 1000

    def typical(axis: str) -> float:
        back = decode(CODECS["int8" + axis].encode(tensor))
        return float((back - tensor).abs().median())

    rows = tensor.clone()
    rows[77] /= 1000
    by_channel = decode(CODECS["int8-channel"].encode(rows))
    by_token = decode(CODECS["int8-token"].encode(rows))
    assert (by_channel - rows).abs().median() < 0.05 * (by_token - rows).abs().median()
    assert typical("-token") > typical("-channel")


def test_group_size_is_read_from_the_payload() -> None:
    tensor = torch.randn(33, 100)
    for axis in ("group", "channel"):
        payload = Grouped(4, axis, size=32).encode(tensor)
        assert payload.meta == {"size": 32}
        assert worst(tensor, decode(payload)) <= payload.error


@settings(deadline=None)
@given(codes=st.lists(st.integers(0, 15), max_size=64).filter(lambda codes: len(codes) % 2 == 0))
def test_packing_is_two_to_a_byte_low_half_first(codes: list[int]) -> None:
    packed = torch.empty(len(codes) // 2, dtype=torch.uint8)
    pack_into(packed, torch.tensor(codes, dtype=torch.uint8))
    assert packed.tolist() == [a | b << 4 for a, b in zip(codes[::2], codes[1::2], strict=True)]
    assert unpacked(packed).tolist() == codes


def test_unsupported() -> None:
    assert not Grouped().supports(torch.int32, (4,))
    assert not Grouped(8, "token").supports(torch.float32, ())
    assert not Grouped(8, "token").supports(torch.float32, (2, MOST["token"] + 1))
    assert not Grouped(8, "channel").supports(torch.float32, (2, MOST["channel"]))
    with pytest.raises(CodecError, match="not supported"):
        Grouped().encode(torch.zeros(4, dtype=torch.int64))
    for size in (0, 7, 8192):
        with pytest.raises(ConfigError, match="groups of"):
            Grouped(size=size)


def test_the_same_tensor_makes_the_same_bytes() -> None:
    tensor = torch.randn(33, 7)
    for codec in KINDS:
        first, second = codec.encode(tensor), codec.encode(tensor)
        assert torch.equal(first.data, second.data)
