"""Payloads that no codec wrote: a CodecError, whatever is wrong with them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.errors import CodecError
from octavo.memory.codecs import CODECS, LowRank, Sparse, codec_named, decode
from octavo.memory.payload import Payload

NAMES = tuple(CODECS)


def _payload(name: str) -> Payload:
    numbers = torch.Generator().manual_seed(1)
    tensor = torch.randn(40, 2, generator=numbers) @ torch.randn(2, 66, generator=numbers)
    return CODECS[name].encode(tensor.relu() if name in ("sparse", "zstd") else tensor)


PAYLOADS = {name: _payload(name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_truncated_or_too_long(name: str) -> None:
    payload = PAYLOADS[name]
    for length in (0, 1, 7, payload.nbytes // 2, payload.nbytes - 1):
        with pytest.raises(CodecError):
            decode(replace(payload, data=payload.data[:length]))
    with pytest.raises(CodecError):
        decode(replace(payload, data=torch.cat([payload.data, payload.data[:16]])))


@pytest.mark.parametrize("name", NAMES)
def test_another_shape(name: str) -> None:
    payload = PAYLOADS[name]
    for shape in ((40,), (40, 87), (61, 66), (-40, -66), (2**40, 2**20), (0, 66), (40, 66, 2)):
        with pytest.raises(CodecError):
            decode(replace(payload, shape=shape))


@pytest.mark.parametrize("name", NAMES)
def test_another_dtype(name: str) -> None:
    for dtype in (torch.float64, torch.int8, torch.complex64, torch.qint8):
        if name in ("fp16", "bf16") and dtype == torch.float64:
            continue  # sixteen bits an element either way
        with pytest.raises(CodecError):
            decode(replace(PAYLOADS[name], dtype=dtype))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [None, "64", 64.0, True, 0, -2, 63, 10**12, [64]])
def test_wrong_parameters(name: str, value: object) -> None:
    payload = PAYLOADS[name]
    for key in payload.meta:
        for meta in ({key: value}, {}):
            with pytest.raises(CodecError):
                decode(replace(payload, meta=meta))


@pytest.mark.parametrize("name", NAMES)
def test_data_of_another_kind(name: str) -> None:
    payload = PAYLOADS[name]
    data = payload.data
    wide = torch.zeros(2 * data.numel(), dtype=torch.uint8)
    for wrong in (data.view(torch.int8), data.view(1, -1), wide[::2], data.to("meta")):
        with pytest.raises(CodecError):
            decode(replace(payload, data=wrong))


@pytest.mark.parametrize("name", NAMES)
def test_outputs_that_do_not_fit(name: str) -> None:
    payload = PAYLOADS[name]
    for out in (
        torch.empty(40, 67),
        torch.empty(40 * 66),
        torch.empty(40, 66, dtype=torch.float64),
        torch.empty(66, 40).t(),
    ):
        with pytest.raises(CodecError):
            decode(payload, out)
        with pytest.raises(CodecError):
            CODECS[name].decode(payload, out)


@pytest.mark.parametrize("name", NAMES)
def test_another_codec(name: str) -> None:
    for other in NAMES:
        if other != name:
            with pytest.raises(CodecError, match="cannot decode"):
                CODECS[other].decode(PAYLOADS[name], torch.empty(40, 66))
    with pytest.raises(CodecError, match="no codec 'brotli'"):
        decode(replace(PAYLOADS[name], codec="brotli"))
    with pytest.raises(CodecError, match="no codec 'x'"):
        codec_named("x")


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_flipped_bits_never_crash(name: str, data: st.DataObject) -> None:
    payload = PAYLOADS[name]
    place = data.draw(st.integers(0, payload.nbytes - 1))
    broken = payload.data.clone()
    broken[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        back = decode(replace(payload, data=broken))
    except CodecError:
        return
    assert back.shape == (40, 66)


def test_a_bitmap_that_marks_too_many_or_too_few() -> None:
    payload = Sparse().encode(torch.tensor([0.0, 1.0, 0.0, 2.0]))
    for bits, words in ((0b1011, "more"), (0b0010, "fewer")):
        broken = payload.data.clone()
        broken[0] = bits
        with pytest.raises(CodecError, match=words):
            decode(replace(payload, data=broken))


def test_a_frame_that_claims_to_be_huge_takes_no_memory() -> None:
    payload = CODECS["zstd"].encode(torch.arange(1000, dtype=torch.uint8) // 9)
    broken = payload.data.clone()
    # Behind one length and the magic number: a content size of eight bytes, and it.
    broken[8] = 0b1110_0000
    broken[9:17] = 1
    with pytest.raises(CodecError, match="wrong length"):
        decode(replace(payload, data=broken))


def test_a_frame_of_another_length() -> None:
    payload = CODECS["zstd"].encode(torch.arange(1000, dtype=torch.uint8) // 9)
    for count in (999, 1001):
        with pytest.raises(CodecError, match="wrong length"):
            decode(replace(payload, shape=(count,)))


def test_lengths_that_wander() -> None:
    payload = CODECS["zstd"].encode(torch.arange(600_000) // 100)
    lengths = payload.data.clone()
    numbers = lengths[:16].numpy().view("<u4")
    numbers[0] += 1
    numbers[1] -= 1
    with pytest.raises(CodecError):
        decode(replace(payload, data=lengths))
    numbers[:] = 2**32 - 1
    with pytest.raises(CodecError, match="add up"):
        decode(replace(payload, data=lengths))


@pytest.mark.parametrize("name", NAMES)
def test_data_that_begins_at_an_odd_place(name: str) -> None:
    payload = PAYLOADS[name]
    moved = torch.cat([payload.data[:1], payload.data])[1:]
    assert torch.equal(decode(replace(payload, data=moved)), decode(payload))


@pytest.mark.parametrize("name", NAMES)
def test_a_header_that_was_written_and_read(name: str) -> None:
    payload = PAYLOADS[name]
    again = Payload.from_header(payload.header(), payload.data)
    assert torch.equal(decode(again), decode(payload))


@pytest.mark.parametrize("name", NAMES)
def test_decodes_for_another_device(name: str) -> None:
    """No accelerator here: the meta device takes shapes, which is enough to see the path."""
    assert decode(PAYLOADS[name], device="meta").device.type == "meta"
    assert decode(PAYLOADS[name]).device.type == "cpu"


def test_lowrank_of_another_limit_decodes_too() -> None:
    payload = LowRank(0.5).encode(torch.ones(30, 30))
    assert torch.allclose(decode(payload), torch.ones(30, 30), atol=0.5)
