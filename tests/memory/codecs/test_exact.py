"""raw, sparse and zstd give back every bit of every dtype."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.errors import CodecError
from octavo.memory.buffers import PAGE
from octavo.memory.codecs import Codec, Lossless, Raw, Sparse, decode
from octavo.memory.codecs.lossless import CHUNK, join, planes_of
from tests.memory.codecs.tensors import EVERY_DTYPE, SHAPES, any_bits, bits_of

EXACT = (Raw(), Sparse(), Lossless(), Lossless(level=7))


def _round_trip(codec: Codec, tensor: torch.Tensor) -> None:
    payload = codec.encode(tensor)
    assert payload.error == 0.0
    assert payload.codec == codec.name
    assert payload.nbytes <= codec.size_bound(tensor.dtype, tuple(tensor.shape))
    back = decode(payload)
    assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
    assert bits_of(back) == bits_of(tensor)


@pytest.mark.parametrize("codec", EXACT, ids=str)
@pytest.mark.parametrize("dtype", EVERY_DTYPE, ids=str)
def test_every_dtype_and_shape(codec: Codec, dtype: torch.dtype) -> None:
    for shape in SHAPES:
        _round_trip(codec, any_bits(dtype, shape))


@pytest.mark.parametrize("codec", EXACT, ids=str)
@pytest.mark.parametrize("dtype", EVERY_DTYPE, ids=str)
def test_strided_and_transposed(codec: Codec, dtype: torch.dtype) -> None:
    base = any_bits(dtype, (40, 30, 7))
    _round_trip(codec, base.permute(2, 0, 1))
    _round_trip(codec, base[1::3, ::2])
    _round_trip(codec, base[3, 4, 5])


@pytest.mark.parametrize("codec", EXACT, ids=str)
def test_lazy_views_and_leaves_of_a_graph(codec: Codec) -> None:
    _round_trip(codec, any_bits(torch.complex64, (5, 6)).nan_to_num(1).conj())
    _round_trip(codec, torch.randn(9, requires_grad=True))
    target = torch.zeros(3, requires_grad=True)
    codec.decode(codec.encode(torch.ones(3)), target)
    assert target.tolist() == [1, 1, 1]


@pytest.mark.parametrize("codec", EXACT, ids=str)
@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.999, 1.0])
def test_many_pieces(codec: Codec, zeros: float) -> None:
    _round_trip(codec, any_bits(torch.float32, (CHUNK // 4 + 77,), zeros))


@pytest.mark.parametrize("codec", EXACT, ids=str)
@settings(max_examples=40, deadline=None)
@given(words=st.lists(st.integers(0, 2**16 - 1), max_size=70))
def test_any_sixteen_bits(codec: Codec, words: list[int]) -> None:
    tensor = torch.from_numpy(np.array(words, dtype=np.uint16)).view(torch.float16)
    _round_trip(codec, tensor)


@pytest.mark.parametrize("codec", EXACT, ids=str)
def test_refuses_what_has_no_bytes_of_its_own(codec: Codec) -> None:
    for tensor in (torch.zeros(3, device="meta"), torch.eye(3).to_sparse()):
        with pytest.raises(CodecError, match="dense"):
            codec.encode(tensor)
    assert not codec.supports(torch.qint8, (3,))


def test_large_payloads_begin_on_a_page() -> None:
    for codec in EXACT:
        payload = codec.encode(any_bits(torch.float32, (500_000,), 0.0))
        assert payload.data.data_ptr() % PAGE == 0


def test_negative_zero_is_a_value() -> None:
    tensor = torch.tensor([0.0, -0.0, 0.0, 1.0])
    payload = Sparse().encode(tensor)
    assert payload.nbytes == 16 + 2 * 4
    assert decode(payload).signbit().tolist() == [False, True, False, False]


def test_sparse_size_is_a_bit_an_element_and_the_values() -> None:
    tensor = torch.zeros(128 * 1000)
    tensor[::10] = 1.0
    assert Sparse().encode(tensor).nbytes == 16_000 + 12_800 * 4


def test_noise_grows_by_no_more_than_the_lengths() -> None:
    noise = any_bits(torch.int32, (CHUNK // 4 + 1000,), 0.0)
    assert Lossless().encode(noise).nbytes == noise.nbytes + 4 * 4 * 2


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64], ids=str)
def test_planes_are_a_transposition_of_bytes(dtype: torch.dtype) -> None:
    words = any_bits(dtype, (1001,), 0.0)
    expected = words.view(torch.uint8).numpy().reshape(1001, -1).T
    planes = list(planes_of(words))
    assert np.array_equal(np.stack(planes), expected)
    back = torch.empty_like(words)
    join(planes, back)
    assert bits_of(back) == bits_of(words)


@given(
    fills=st.lists(st.sampled_from((None, 0, 1, 255)), min_size=8, max_size=8),
    width=st.sampled_from((1, 2, 4, 8)),
)
def test_one_byte_stands_for_a_plane(fills: list[int | None], width: int) -> None:
    numbers = np.random.default_rng(0)
    planes = [
        numbers.integers(0, 256, 50, np.uint8) if fill is None else np.array([fill], np.uint8)
        for fill in fills[:width]
    ]
    words = torch.empty(
        50, dtype={1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[width]
    )
    join(planes, words)
    for at, plane in enumerate(planes_of(words)):
        assert (plane == planes[at]).all()
    _round_trip(Lossless(), words)


def test_planes_are_a_byte_or_a_zstd_frame_or_themselves() -> None:
    tensor = torch.arange(1000, dtype=torch.int32)
    data = Lossless().encode(tensor).data.numpy().tobytes()
    lengths = np.frombuffer(data[:16], "<u4").tolist()
    assert sum(lengths) == len(data) - 16
    assert lengths[2:] == [1, 1]
    second = data[16 + lengths[0] : 16 + lengths[0] + lengths[1]]
    assert list(zstandard.ZstdDecompressor().decompress(second)) == [i >> 8 for i in range(1000)]


def test_shuffling_makes_floats_smaller() -> None:
    tensor = torch.randn(100_000)
    plain = zstandard.ZstdCompressor(level=1).compress(tensor.numpy().data)
    assert Lossless().encode(tensor).nbytes < 0.95 * len(plain)


@pytest.mark.parametrize("codec", EXACT, ids=str)
def test_empty_tensors_with_strides_of_zero(codec: Codec) -> None:
    for dtype in (torch.float16, torch.complex64):
        empty = torch.empty(1, dtype=dtype).as_strided((0,), (0,))
        codec.decode(codec.encode(empty), empty)


def test_many_threads_share_one_codec() -> None:
    tensors = [any_bits(torch.int32, (50_000 + at,)) for at in range(8)]
    with ThreadPoolExecutor(8) as threads:
        for codec in EXACT:
            payloads = list(threads.map(codec.encode, tensors))
            for tensor, back in zip(tensors, threads.map(decode, payloads), strict=True):
                assert bits_of(back) == bits_of(tensor)
