"""Tensors that are hard on codecs, and the float64 reference that judges what comes back."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
SHAPES = ((), (0,), (3, 0), (1,), (7,), (64,), (65,), (3, 77), (130, 5), (2, 3, 33), (1, 128))
EVERY_DTYPE = (
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.uint16,
    torch.int32,
    torch.uint32,
    torch.int64,
    torch.uint64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
)


def any_bits(dtype: torch.dtype, shape: tuple[int, ...], zeros: float = 0.4) -> torch.Tensor:
    """Random bits, NaN payloads and all, with a part of exact zeros."""
    numbers = np.random.default_rng(3)
    count = int(np.prod(shape))
    if dtype == torch.bool:
        return torch.from_numpy(numbers.random(count) > zeros).view(shape)
    bits = numbers.integers(0, 256, (count, dtype.itemsize), dtype=np.uint8)
    bits[numbers.random(count) < zeros] = 0
    return torch.from_numpy(bits.reshape(-1)).view(dtype).view(shape)


def bits_of(tensor: torch.Tensor) -> bytes:
    if not tensor.numel():
        return b""
    return tensor.detach().resolve_conj().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def worst(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, in extended precision where there is one."""
    wide = np.longdouble
    if a.numel() == 0:
        return 0.0
    difference = np.abs(a.double().numpy().astype(wide) - b.double().numpy().astype(wide))
    return float(np.nextafter(float(difference.max()), 0.0))


@st.composite
def finite_tensors(draw: st.DrawFn, dtypes: tuple[torch.dtype, ...] = FLOATS) -> torch.Tensor:
    """Finite ones: usual, tiny, huge, constant, far from zero, with one outlier, or any floats."""
    dtype = draw(st.sampled_from(dtypes))
    shape = draw(st.sampled_from(SHAPES))
    kind = draw(st.sampled_from(("usual", "tiny", "huge", "equal", "far", "outlier", "any")))
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = torch.from_numpy(np.asarray(numbers.standard_normal(shape)))
    info = torch.finfo(dtype)
    if kind == "tiny":
        x = x * info.tiny * draw(st.sampled_from((0.01, 0.5, 3.0)))
    elif kind == "huge":
        x = x.clamp(-3, 3) * (info.max / draw(st.sampled_from((3.1, 7.0, 60.0))))
    elif kind == "equal":
        x = torch.full(shape, float(numbers.standard_normal()), dtype=torch.float64)
    elif kind == "far":
        x = x + 1000.0
    elif kind == "outlier" and x.numel():
        x.view(-1)[int(numbers.integers(x.numel()))] = draw(st.sampled_from((-6e4, 3e3)))
    elif kind == "any":
        few = draw(st.lists(st.floats(-float(info.max), float(info.max)), min_size=1, max_size=9))
        x = torch.tensor(few, dtype=torch.float64)[torch.arange(x.numel()) % len(few)].view(shape)
    return x.to(dtype)
