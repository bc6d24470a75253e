from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.errors import CodecError, ConfigError
from octavo.memory.codecs import LowRank, decode
from tests.memory.codecs.tensors import FLOATS, worst


def _of_rank(rank: int, m: int, n: int, seed: int = 0) -> torch.Tensor:
    numbers = np.random.default_rng(seed)
    return torch.from_numpy(numbers.standard_normal((m, rank)) @ numbers.standard_normal((rank, n)))


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(FLOATS),
    rank=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
    allowed=st.sampled_from((1e-6, 1e-3, 0.1, 2.0)),
    size=st.sampled_from((1e-3, 1.0, 300.0)),
)
def test_no_element_is_farther_than_declared_or_allowed(
    dtype: torch.dtype, rank: int, seed: int, allowed: float, size: float
) -> None:
    tensor = (_of_rank(rank, 60, 40, seed) * size).to(dtype).view(3, 20, 40)
    codec = LowRank(allowed)
    try:
        payload = codec.encode(tensor)
    except CodecError:
        eps = torch.finfo(dtype).eps
        assert allowed < 40 * eps * float(tensor.double().abs().max())
        return
    assert worst(tensor, decode(payload)) <= payload.error <= allowed
    assert payload.nbytes < tensor.numel() * tensor.dtype.itemsize
    assert payload.nbytes <= codec.size_bound(tensor.dtype, tuple(tensor.shape))


def test_finds_the_rank_that_is_there() -> None:
    payload = LowRank(1e-6).encode(_of_rank(5, 80, 70))
    assert payload.meta == {"rank": 5}
    assert payload.nbytes == 5 * (80 + 70) * 8


def test_the_rank_is_the_least_by_the_singular_values_of_another_library() -> None:
    tensor = _of_rank(40, 60, 200) * 0.1
    u, s, v = np.linalg.svd(tensor.numpy(), full_matrices=False)
    errors = [np.abs((u[:, :r] * s[:r]) @ v[:r] - tensor.numpy()).max() for r in range(1, 46)]
    payload = LowRank(0.8).encode(tensor)
    rank = payload.meta["rank"]
    assert errors[rank - 1] <= 0.8 < errors[rank - 2]
    assert payload.error == pytest.approx(errors[rank - 1], rel=1e-9)


def test_strides_and_pieces_of_rows() -> None:
    tensor = _of_rank(3, 90, 2000).float()
    for view in (tensor, tensor.t()):
        payload = LowRank(1e-2).encode(view)
        assert worst(view, decode(payload)) <= payload.error <= 1e-2


def test_refuses_noise_and_what_is_not_finite() -> None:
    noise = torch.randn(50, 50)
    with pytest.raises(CodecError, match="no low rank"):
        LowRank(1e-3).encode(noise)
    for bad in (float("nan"), float("inf")):
        noise[7, 7] = bad
        with pytest.raises(CodecError, match="NaN"):
            LowRank(1e3).encode(noise)


def test_refuses_factors_that_overflow() -> None:
    tensor = torch.full((60, 60), 65504.0, dtype=torch.float16)
    with pytest.raises(CodecError, match="no low rank"):
        LowRank(1e3).encode(tensor)


def test_singular_values_that_are_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(torch.linalg, "svd", fails)
    with pytest.raises(CodecError, match="did not converge") as caught:
        LowRank().encode(torch.ones(9, 9))
    assert isinstance(caught.value.__cause__, torch.linalg.LinAlgError)


def test_unsupported() -> None:
    codec = LowRank()
    for shape in ((), (9,), (0, 4), (4, 0), (2, 2), (1, 50)):
        assert not codec.supports(torch.float32, shape)
    assert not codec.supports(torch.int32, (9, 9))
    for allowed in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="largest error"):
            LowRank(allowed)
