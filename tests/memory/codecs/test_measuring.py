from __future__ import annotations

import math

import pytest
import torch

from octavo.errors import CodecError
from octavo.memory.codecs import CODECS, Raw, measure
from octavo.memory.codecs.measuring import largest_error


def test_measures_what_the_codec_does() -> None:
    tensor = torch.randn(500, 64)
    measured = measure(CODECS["int8-token"], tensor)
    assert measured.ratio == 4 * 64 / (64 + 8)
    payload = CODECS["int8-token"].encode(tensor)
    assert 0.5 * payload.error < measured.max_error <= payload.error
    assert measured.encode_bytes_per_s > 0
    assert measured.decode_bytes_per_s > 0


def test_exact_codecs_measure_exact_even_with_nan() -> None:
    tensor = torch.tensor([math.nan, math.inf, -0.0, 1.0])
    assert measure(Raw(), tensor).max_error == 0.0
    assert measure(Raw(), tensor).ratio == 1.0


def test_largest_error() -> None:
    a = torch.zeros(300_000)
    b = a.clone()
    b[299_999] = -0.25
    assert largest_error(a, b) == 0.25
    b[3] = math.nan
    assert math.isnan(largest_error(a, b))
    assert largest_error(torch.tensor([3 + 4j]), torch.tensor([0j])) == 5.0
    infinite = torch.tensor([math.inf, 1.0])
    assert largest_error(infinite, torch.tensor([math.inf, 3.0])) == 2.0


def test_a_refusal_is_passed_on() -> None:
    with pytest.raises(CodecError):
        measure(CODECS["int8"], torch.tensor([math.nan]))
