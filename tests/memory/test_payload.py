"""Headers there and back through JSON, and what happens to damaged ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from octavo.errors import CodecError
from octavo.memory.payload import Payload

DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.uint8,
    torch.int8,
    torch.int64,
    torch.bool,
    torch.complex64,
    torch.float8_e4m3fn,
]
DATA_B = torch.arange(10, dtype=torch.uint8)
GOOD = Payload("int8", torch.bfloat16, (2, 3), DATA_B, 0.5, {"group": 64}).header()

words = st.text(max_size=5)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3)
)


@given(
    codec=words,
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(0, 2**40), max_size=5).map(tuple),
    error=st.floats(0, allow_nan=False, allow_infinity=False),
    meta=st.dictionaries(words, values, max_size=3),
)
def test_comes_back_through_json(
    codec: str, dtype: torch.dtype, shape: tuple[int, ...], error: float, meta: dict[str, Any]
) -> None:
    given_ = Payload(codec, dtype, shape, DATA_B, error, meta)
    back = Payload.from_header(json.loads(json.dumps(given_.header())), DATA_B)
    assert (back.codec, back.dtype, back.shape) == (codec, dtype, shape)
    assert back.error == error
    assert back.meta == meta
    assert back.data is DATA_B
    assert back.nbytes == 10


def test_is_exact_unless_it_says_otherwise() -> None:
    payload = Payload("raw", torch.float32, (2,), DATA_B)
    assert payload.error == 0.0
    assert payload.meta == {}


def test_meta_is_not_shared() -> None:
    meta = {"group": 64}
    header = Payload("int8", torch.float32, (2,), DATA_B, meta=meta).header()
    header["meta"]["group"] = 1
    assert meta == {"group": 64}


@pytest.mark.parametrize("name", sorted(GOOD))
def test_a_header_without_a_field_is_damaged(name: str) -> None:
    header = {key: value for key, value in GOOD.items() if key != name}
    with pytest.raises(CodecError, match="damaged") as error:
        Payload.from_header(header, DATA_B)
    assert isinstance(error.value.__cause__, KeyError)
    assert error.value.next_step


@pytest.mark.parametrize(
    "wrong",
    [
        {"dtype": "Tensor"},
        {"dtype": "float33"},
        {"dtype": 3},
        {"shape": None},
        {"shape": ["x"]},
        {"shape": [float("inf")]},
        {"error": "much"},
        {"error": None},
        {"meta": 3},
        {"meta": "abc"},
    ],
)
def test_a_wrong_field_is_damage(wrong: dict[str, Any]) -> None:
    with pytest.raises(CodecError, match="damaged"):
        Payload.from_header({**GOOD, **wrong}, DATA_B)


@given(name=st.sampled_from(sorted(GOOD)), value=values)
def test_any_value_is_read_or_refused_in_order(name: str, value: object) -> None:
    try:
        payload = Payload.from_header({**GOOD, name: value}, DATA_B)
    except CodecError:
        return
    assert isinstance(payload.dtype, torch.dtype)
    assert all(isinstance(size, int) for size in payload.shape)
    assert isinstance(payload.error, float)
