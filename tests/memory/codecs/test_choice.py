from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.errors import CodecError, ConfigError
from octavo.memory.codecs import CODECS, LowRank, Raw, choose, decode, encode_within
from octavo.memory.codecs.choice import SAMPLE, sample_of
from octavo.memory.payload import Payload
from tests.memory.codecs.tensors import (
    EVERY_DTYPE,
    SHAPES,
    any_bits,
    bits_of,
    finite_tensors,
    worst,
)


def _gauss(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_lossless_only() -> None:
    sparse = _gauss(300, 256)
    sparse[torch.rand(300, 256) < 0.97] = 0
    assert choose(sparse, 0.0, 1.1).lossless
    assert choose(_gauss(300, 256), 0.0, 2.0).name == "raw"
    assert choose(torch.zeros(300, 256), 0.0, 1.1).name == "zstd"
    assert choose(_gauss(300, 256).bfloat16(), 0.0, 1.2).name == "zstd"
    # Not even where a cast happens to be exact.
    exact = _gauss(300, 256).bfloat16().float()
    assert choose(exact, 0.0, 1.5, candidates=[CODECS["bf16"]]).name == "raw"


@pytest.mark.parametrize(
    ("max_error", "family"), [(1e-5, "raw"), (4e-3, "fp16"), (0.03, "int8"), (0.6, "int4")]
)
def test_more_error_buys_more_ratio(max_error: float, family: str) -> None:
    assert choose(_gauss(2000, 256), max_error, 1.5).name.startswith(family)


def test_equal_ratios_go_to_the_cheaper_decoder() -> None:
    # Channel and group cost the same bytes here.
    codecs = [CODECS["int8-channel"], CODECS["int8"]]
    assert choose(_gauss(512, 128), 0.1, 2.0, candidates=codecs).name == "int8"
    # bf16 values in float32 halve under both casts; bf16 is tried first.
    exact = _gauss(512, 128).bfloat16().float()
    assert choose(exact, 1e-3, 1.5, candidates=[CODECS["fp16"], CODECS["bf16"]]).name == "bf16"


def test_channels_of_different_size_ask_for_scales_by_channel() -> None:
    kv = _gauss(4096, 128)
    kv[:, ::16] += 60.0
    assert choose(kv, 0.03, 2.0).name == "int8-channel"


def test_raw_when_nothing_is_good_enough() -> None:
    assert choose(_gauss(300, 300), 0.03, 20.0).name == "raw"
    assert choose(torch.full((300, 300), float("nan")), 0.1, 1.1).lossless
    assert choose(torch.empty(0, 3), 1.0, 1.0).name == "raw"
    assert choose(_gauss(9, 9), 1.0, 1.0, candidates=[]).name == "raw"


def test_low_rank_only_on_request() -> None:
    tensor = torch.ones(100, 100)
    assert choose(tensor, 0.1, 1.1).name != "lowrank"
    assert choose(tensor, 0.1, 1.1, candidates=[LowRank(0.1)]).name == "lowrank"


@settings(max_examples=80, deadline=None)
@given(
    tensor=finite_tensors(),
    max_error=st.sampled_from((0.0, 1e-3, 0.1, 10.0)),
    min_ratio=st.sampled_from((1.0, 1.5, 3.0)),
)
def test_the_limits_hold_or_it_is_raw(
    tensor: torch.Tensor, max_error: float, min_ratio: float
) -> None:
    payload = encode_within(tensor, max_error, min_ratio)
    back = decode(payload)
    if payload.codec == "raw" or max_error == 0.0:
        assert payload.error == 0.0
        assert bits_of(back) == bits_of(tensor)
    if payload.codec != "raw":
        assert payload.nbytes * min_ratio <= tensor.numel() * tensor.dtype.itemsize
        assert worst(tensor, back) <= payload.error <= max_error


@pytest.mark.parametrize("dtype", EVERY_DTYPE, ids=str)
def test_every_dtype_is_kept(dtype: torch.dtype) -> None:
    for shape in SHAPES:
        tensor = any_bits(dtype, shape, 0.9)
        assert bits_of(decode(encode_within(tensor, 0.0, 1.1))) == bits_of(tensor)
        assert encode_within(tensor, 1.0, 1.1).nbytes <= tensor.numel() * dtype.itemsize


def _hidden(value: float) -> torch.Tensor:
    """Numbers that a sample shows to be harmless, and one that it does not see."""
    tensor = _gauss(4096, 256)
    row = 300
    assert not bool((sample_of(torch.arange(4096.0)[:, None].expand(4096, 256)) == row).any())
    tensor[row, 100] = value
    return tensor


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_what_the_sample_did_not_see_is_found_while_encoding(value: float) -> None:
    tensor = _hidden(value)
    assert not choose(tensor, 0.03, 1.5).lossless
    payload = encode_within(tensor, 0.03, 1.5)
    assert payload.codec == "raw"
    assert bits_of(decode(payload)) == bits_of(tensor)


def test_the_second_choice_is_tried() -> None:
    """By the sample int4 would do; one number that it misses leaves that to int8."""
    tensor = _gauss(4096, 256) * 0.01
    tensor[300, 100] = 1.0
    payload = encode_within(tensor, 0.01, 1.5)
    assert payload.codec != "raw"
    assert worst(tensor, decode(payload)) <= payload.error <= 0.01


def test_ratio_is_checked_on_the_whole_tensor() -> None:
    # Where the sample looks there are only zeros.
    tensor = torch.zeros(4096, 256)
    seen = sample_of(torch.arange(4096.0)[:, None].expand(4096, 256)).unique().long()
    unseen = torch.ones(4096, dtype=torch.bool)
    unseen[seen] = False
    tensor[unseen] = _gauss(int(unseen.sum()), 256)
    assert choose(tensor, 0.0, 3.0).lossless
    assert choose(tensor, 0.0, 3.0).name != "raw"
    assert encode_within(tensor, 0.0, 3.0).codec == "raw"


def test_a_codec_that_was_given() -> None:
    tensor = _gauss(100, 64)
    assert encode_within(tensor, 0.1, 1.5, codec=CODECS["int8-token"]).codec == "int8-token"
    assert encode_within(tensor, 1e-6, 1.5, codec=CODECS["int8-token"]).codec == "raw"
    assert encode_within(tensor, 0.1, 9.0, codec=CODECS["int8-token"]).codec == "raw"
    assert encode_within(tensor.int(), 0.1, 1.5, codec=CODECS["int8"]).codec == "raw"
    assert encode_within(tensor, 0.1, 1.0, codec=CODECS["raw"]).codec == "raw"


def test_a_codec_that_declares_too_much_is_not_believed() -> None:
    class Loose(Raw):
        def encode(self, tensor: torch.Tensor) -> Payload:
            return replace(Raw.encode(self, tensor), error=1.0)

    payload = encode_within(_gauss(9, 9), 0.5, 1.0, codec=Loose())
    assert payload.error == 0.0


def test_limits_that_make_no_sense() -> None:
    for limits in ((-1.0, 1.0), (float("nan"), 1.0), (0.0, 0.5), (0.0, float("nan"))):
        for function in (choose, encode_within):
            with pytest.raises(ConfigError):
                function(torch.ones(3), *limits)
    with pytest.raises(CodecError, match="dense"):
        encode_within(torch.ones(3, device="meta"), 0.0, 1.0)


@pytest.mark.parametrize(
    "shape", [(10**6,), (1, 10**6), (10**5, 10), (7, 11, 13), (), (40_000, 1), (3, 20_000)]
)
def test_samples_are_bounded_and_of_the_tensor(shape: tuple[int, ...]) -> None:
    tensor = torch.arange(float(torch.Size(shape).numel())).view(shape)
    sample = sample_of(tensor)
    assert sample.dim() == 2
    assert 0 < sample.numel() <= SAMPLE
    assert sample.numel() >= min(SAMPLE, tensor.numel()) // 8
    # Runs of neighbours, each element once.
    assert sample.unique().numel() == sample.numel()
    if sample.shape[1] > 1:
        assert bool((sample.diff(dim=1) == 1).all())
