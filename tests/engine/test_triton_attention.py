"""Kernels give what float64 gives. Without a device Triton interprets them, on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from octavo.engine import triton_attention
from octavo.engine.kv_layout import BlockLayout, KvShape
from octavo.engine.triton_attention import Histories, NewTokens
from octavo.errors import ConfigError
from tests.engine.triton_cases import Case, attention, cases, comparisons, make

CUDA = torch.cuda.is_available()
#: Interpreters of older releases fail on loops with numpy 2.4.
INTERPRETED_SINCE = (3, 8)
CASES = {case.name: case for case in cases()}


@pytest.fixture(scope="module")
def differences() -> Mapping[str, float]:
    """Of all comparisons. In a process of its own: Triton decides when it is first imported
    whether it interprets."""
    found = pytest.importorskip("triton").__version__
    if not CUDA and tuple(int(part) for part in found.split(".")[:2]) < INTERPRETED_SINCE:
        pytest.skip(f"the interpreter of Triton {found} does not run these kernels")
    where = ("cuda", "all") if CUDA else ("cpu", "no-bf16")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.engine.triton_cases", *where],
        env=os.environ | ({} if CUDA else {"TRITON_INTERPRET": "1"}),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    return {reply["name"]: reply["off"] for reply in replies}


@pytest.mark.parametrize("name", list(comparisons()))
def test_as_float64(name: str, differences: Mapping[str, float]) -> None:
    if not CUDA and name in CASES and CASES[name].dtype is torch.bfloat16:
        pytest.skip("the interpreter multiplies bfloat16 as if it were integers")
    assert differences[name] < 1


def test_comparison_sees_one_token_too_many() -> None:
    """What the other tests rest on: the reference of another window is further off than allowed."""
    case = Case("window", torch.float32, (100,), window=50)
    made = make(case, "cpu")
    query_htgd = torch.randn(2, 1, 4, 64, generator=torch.Generator().manual_seed(0))
    one, _ = attention(query_htgd, made.keys[0], made.values[0], case)
    other, _ = attention(query_htgd, made.keys[0], made.values[0], replace(case, window=51))
    assert (one - other).abs().amax() / one.abs().amax() > 1e-3


def test_tiles_of_new_tokens_cover_each_once() -> None:
    new = NewTokens.of((1, 40, 0, 7), (9, 40, 3, 20), group=5, device="cpu")
    step = new.rows // 5
    covered: list[int] = []
    for sequence, first in zip(new.sequence_m.tolist(), new.first_m.tolist(), strict=True):
        assert new.begins_b[sequence] <= first
        covered += range(first, min(first + step, int(new.begins_b[sequence + 1])))
    assert covered == list(range(48))


@pytest.mark.parametrize(
    ("window", "first"), [(None, [0, 0, 0]), (64, [0, 0, 36]), (1, [0, 63, 99])]
)
def test_window_ends_with_the_newest_token(window: int | None, first: list[int]) -> None:
    lengths_b = torch.tensor([1, 64, 100], dtype=torch.int32)
    table_bn = torch.zeros(3, 2, dtype=torch.int32)
    assert Histories.of(table_bn, lengths_b, window).first_b.tolist() == first


def test_what_kernels_do_not_take() -> None:
    made = make(Case("refused", torch.float32, (5,)), "cpu")
    histories = Histories.of(made.table_bn, made.lengths_b)
    query_bhgd = torch.ones(1, 2, 4, 64, device="cpu")
    for wrong in (query_bhgd.double(), query_bhgd.half(), query_bhgd.transpose(2, 3)):
        with pytest.raises(ConfigError, match="types and strides"):
            triton_attention.decode(wrong, made.keys_nhsd, made.values_nhsd, histories, scale=1.0)
    layout = BlockLayout(KvShape(1, 2, 64, torch.float32), "exact", 64)
    rows_nb = torch.zeros(2, layout.nbytes, dtype=torch.uint8)
    with pytest.raises(ConfigError, match="no codes"):
        triton_attention.decode_quantized(query_bhgd, rows_nb, layout, histories, scale=1.0)


def test_where_the_kernels_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not triton_attention.available("cpu")
    assert triton_attention.available("cuda") == (
        CUDA and torch.cuda.get_device_capability() >= (8, 0)
    )

    def found(capability: tuple[int, int], package: Any = True) -> bool:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: package)
        monkeypatch.setattr(torch.version, "hip", None)
        return triton_attention.available("cuda:1")

    assert found((8, 0))
    assert found((9, 0))
    assert not found((7, 5))
    assert not found((9, 0), package=None)
