from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from octavo.errors import CodecError
from octavo.memory.codecs import Half, decode
from tests.memory.codecs.tensors import finite_tensors, worst

BOTH = (Half("fp16"), Half("bf16"))
WIDE = (torch.float32, torch.float64)


@pytest.mark.parametrize("codec", BOTH, ids=str)
@settings(max_examples=120, deadline=None)
@given(tensor=finite_tensors(WIDE))
def test_declared_error_is_the_largest_one(codec: Half, tensor: torch.Tensor) -> None:
    target = torch.float16 if codec.kind == "fp16" else torch.bfloat16
    if not bool(torch.isfinite(tensor.to(target)).all()):
        with pytest.raises(CodecError, match="too large"):
            codec.encode(tensor)
        return
    payload = codec.encode(tensor)
    assert payload.nbytes == codec.size_bound(tensor.dtype, tuple(tensor.shape))
    back = decode(payload)
    assert torch.equal(back, tensor.to(target).to(tensor.dtype))
    exact = np.abs(tensor.double().numpy() - back.double().numpy()).max(initial=0.0)
    assert payload.error == exact
    assert worst(tensor, back) <= payload.error


@pytest.mark.parametrize("codec", BOTH, ids=str)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 3.4e38, -3.4e38])
@pytest.mark.parametrize("at", [0, 150_000, 299_999])
def test_refuses_what_is_not_finite_as_sixteen_bits(codec: Half, bad: float, at: int) -> None:
    tensor = torch.ones(300_000)
    tensor[at] = bad
    with pytest.raises(CodecError, match=codec.kind):
        codec.encode(tensor)


def test_finds_the_error_in_every_piece_and_by_any_strides() -> None:
    tensor = torch.ones(700, 500)
    tensor[650, 3] = 1.0001
    for view in (tensor, tensor.t()):
        payload = BOTH[0].encode(view)
        assert payload.error == pytest.approx(1e-4, rel=0.1)
        assert torch.equal(decode(payload), view.half().float())


def test_half_precision_is_not_supported() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.int32, torch.complex64):
        assert not BOTH[0].supports(dtype, (3,))
        with pytest.raises(CodecError, match="not supported"):
            BOTH[0].encode(torch.zeros(3, dtype=dtype))
