"""Bytes and blocks are known beforehand, and are what is then taken."""

from __future__ import annotations

import pytest
import torch

from octavo.engine.kv import KvShape, KvSizes
from octavo.engine.kv_layout import PRECISIONS, BlockLayout, KvPrecision
from octavo.errors import BudgetExceeded, ConfigError
from octavo.memory.ledger import Ledger
from tests.engine.kv_tools import Stream, cache, shape, sizes

REAL = KvShape(layers=30, kv_heads=3, head_dim=64, dtype=torch.bfloat16)


def test_bytes_of_real_blocks() -> None:
    elements = 2 * 3 * 64 * 64
    assert BlockLayout(REAL, "exact", 64).nbytes == elements * 2
    # A float16 scale and offset for each 64 elements: 8.5 and 4.5 bits.
    assert BlockLayout(REAL, "int8", 64).nbytes == elements * 8.5 / 8
    assert BlockLayout(REAL, "int4", 64).nbytes == elements * 4.5 / 8
    wanted = KvSizes(REAL, "int8")
    assert wanted.bytes_per_token("exact") == 30 * 2 * 3 * 64 * 2
    assert wanted.bytes_per_token() == wanted.bytes_per_token("int8") == 30 * 2 * 3 * 64 * 8.5 / 8


def test_what_a_budget_gains_over_exact() -> None:
    budget = 8192 * 30 * 2 * 3 * 64 * 2
    assert KvSizes(REAL, "exact").tokens_that_fit(budget) == 8192
    assert KvSizes(REAL, "int8").tokens_that_fit(budget) >= 1.8 * 8192
    assert KvSizes(REAL, "int4").tokens_that_fit(budget) >= 3.2 * 8192


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("windows", [(), (None, 20)])
@pytest.mark.parametrize("step", [1, 7, 50])
def test_what_fits_is_what_is_taken(
    precision: KvPrecision, windows: tuple[int | None, ...], step: int
) -> None:
    wanted = sizes(precision, of=shape(windows=windows))
    tokens = 130
    budget = wanted.nbytes_for(tokens)
    assert wanted.tokens_that_fit(budget) >= tokens
    ledger = Ledger({"device": budget})
    kv = cache(wanted, tokens, ledger=ledger)
    assert kv.nbytes == ledger.state("device").by_kind["kv"] <= budget
    stream, sequence = Stream(200), kv.sequence("a")
    while sequence.length + step <= tokens:
        stream.append(sequence, step)
        full, tail = wanted.blocks_for(sequence.length)
        held = full * wanted.full.nbytes + tail * wanted.exact.nbytes
        assert sequence.nbytes == held
    sequence.release()
    assert kv.full.stats().used == kv.exact.stats().used == 0
    kv.close()
    assert ledger.used("device") == 0


@pytest.mark.parametrize("precision", PRECISIONS)
def test_one_token_more_than_fits_is_refused(precision: KvPrecision) -> None:
    wanted = sizes(precision)
    budget = wanted.nbytes_for(100)
    most = wanted.tokens_that_fit(budget)
    assert wanted.nbytes_for(most) <= budget < wanted.nbytes_for(most + 1)
    kv, stream = cache(wanted, 100), Stream(most + 1)
    sequence = kv.sequence("a")
    stream.append(sequence, most)
    with pytest.raises(BudgetExceeded, match="do not fit"):
        sequence.reserve(1)


def test_windows_bound_what_is_kept() -> None:
    wanted = sizes("int8", of=shape(windows=(20, 20)))
    assert wanted.nbytes_for(10**6) == wanted.nbytes_for(200)
    assert wanted.bytes_per_token() == 0
    assert wanted.tokens_that_fit(wanted.nbytes_for(200)) > 10**9


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: KvSizes(REAL, "int3"), "int3"),  # type: ignore[arg-type]
        (lambda: KvSizes(REAL, "int4", block_tokens=7), "even"),
        (lambda: KvSizes(REAL, "int4", recent=-1), "-1 recent"),
        (lambda: KvShape(0, 1, 1, torch.float32), "hold no keys"),
        (lambda: KvShape(1, 1, 1, torch.int8), "floating-point"),
        (lambda: KvShape(2, 1, 1, torch.float32, (4,)), "1 windows for 2 layers"),
    ],
)
def test_impossible_sizes_are_refused(make: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()  # type: ignore[operator]


def test_a_budget_without_room_says_what_it_takes() -> None:
    wanted = sizes("int8")
    least = wanted.nbytes_for(1, 2)
    with pytest.raises(BudgetExceeded, match=str(least)):
        wanted.split(least - 1, 2)
    assert wanted.split(least, 2)[0] >= 1
