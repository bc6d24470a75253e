"""Kernels compile for devices that are not here: types of loops and shared memory, which the
interpreter does not look at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from octavo.engine import triton_attention
from octavo.engine.kv_layout import BlockLayout, KvPrecision, KvShape
from octavo.engine.triton_attention import Histories, NewTokens

#: Compute capability → shared memory of one block; CUDA's programming guide, technical
#: specifications.
SHARED = {80: 163 << 10, 86: 99 << 10, 90: 227 << 10}
_TYPES = {
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float32: "*fp32",
    torch.int32: "*i32",
    torch.uint8: "*u8",
}
Call = tuple[Any, tuple[Any, ...], dict[str, Any]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Call]]:
    """Kernels with the arguments that they are started with; none runs."""
    pytest.importorskip("triton")
    if os.environ.get("TRITON_INTERPRET"):
        pytest.skip("Triton interprets here")
    from octavo.engine import triton_kernels as kernels

    found: list[Call] = []

    class Started:
        def __init__(self, kernel: Any) -> None:
            self._kernel = kernel

        def __getitem__(self, grid: Any) -> Any:
            return lambda *args, **options: found.append((self._kernel, args, options))

    for name in ("decode_exact", "decode_codes", "prefill", "merge"):
        monkeypatch.setattr(kernels, name, Started(getattr(kernels, name)))
    return found


def _start(dtype: torch.dtype, group: int, channels: int) -> None:
    """All kernels, as a model of such heads starts them."""
    lengths_b = torch.tensor([640, 64], dtype=torch.int32)
    table_bn = torch.zeros(2, 10, dtype=torch.int32)
    histories = Histories.of(table_bn, lengths_b)
    query_bhgd = torch.zeros(2, 8, group, channels, dtype=dtype)
    keys_nhsd = torch.zeros(4, 8, 64, channels, dtype=dtype)
    triton_attention.decode(query_bhgd, keys_nhsd, keys_nhsd, histories, scale=1.0)
    precisions: tuple[KvPrecision, ...] = ("int8", "int4")
    for precision in precisions:
        layout = BlockLayout(KvShape(1, 8, channels, dtype), precision, 64)
        rows_nb = torch.zeros(4, layout.nbytes, dtype=torch.uint8)
        triton_attention.decode_quantized(query_bhgd, rows_nb, layout, histories, scale=1.0)
    new = NewTokens.of((1, 1), (640, 64), group=group, device="cpu")
    triton_attention.prefill(query_bhgd, keys_nhsd, keys_nhsd, table_bn, new, scale=1.0)


@pytest.mark.parametrize(
    ("capability", "dtype", "group", "channels"),
    [(90, torch.bfloat16, 4, 128), (80, torch.float16, 7, 80), (86, torch.float32, 2, 64)],
)
def test_compiles(
    calls: list[Call], capability: int, dtype: torch.dtype, group: int, channels: int
) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    _start(dtype, group, channels)
    assert len({id(kernel) for kernel, _, _ in calls}) == 4
    for kernel, args, options in calls:
        names = kernel.arg_names
        settings = {name: options.pop(name) for name in ("num_warps", "num_stages")
                    if name in options}  # fmt: skip
        signature = dict(zip(names, map(_type, args), strict=False))
        signature |= dict.fromkeys(options, "constexpr")
        aligned = {
            (number,): [["tt.divisibility", 16]]
            for number, arg in enumerate(args)
            if isinstance(arg, torch.Tensor) or (isinstance(arg, int) and arg % 16 == 0)
        }
        source = ASTSource(
            fn=kernel,
            signature=signature,
            constexprs={(names.index(name),): value for name, value in options.items()},
            attrs=aligned,
        )
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=settings)
        assert made.metadata.shared <= SHARED[capability], kernel.__name__


def _type(arg: Any) -> str:
    if isinstance(arg, torch.Tensor):
        return _TYPES[arg.dtype]
    return "fp32" if isinstance(arg, float) else "i32"
