"""One token of many sequences at once, and how many blocks are promised."""

from __future__ import annotations

import random

import pytest
import torch

from octavo.engine import kv_backend_decode
from octavo.engine.attention import attend
from octavo.engine.kv import KvSequence, PagedKV
from octavo.engine.kv_backend_decode import Decoding
from octavo.engine.kv_backend_room import (
    check_step,
    lower_blocks,
    parked_blocks,
    scheduler_blocks,
    staging_bytes,
)
from octavo.engine.kv_layout import PRECISIONS, KvPrecision, KvSizes
from octavo.errors import BudgetExceeded
from octavo.memory.buffers import PAGE
from tests.engine.kv_tools import (
    BLOCK,
    DIM,
    GROUP,
    HEADS,
    RECENT,
    Stream,
    cache,
    contents,
    shape,
    sizes,
)
from tests.engine.test_kv_tiers import Shelf

FAR = {"exact": 1e-5, "int8": 0.03, "int4": 0.5}
LENGTHS: tuple[int, ...] = (1, 5, 12, 20, 64, 77, 150)


def _grown(kv: PagedKV, stream: Stream, lengths: tuple[int, ...]) -> list[KvSequence]:
    found = []
    for length in lengths:
        sequence = kv.sequence(str(length))
        stream.append(sequence, length)
        found.append(sequence)
    return found


@pytest.fixture(autouse=True)
def _small_extents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octavo.engine.kv_layout._TILE_TOKENS", (48, 64))


@pytest.mark.parametrize("kernel", [True, False])
@pytest.mark.parametrize("window", [None, 30, 4])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_all_at_once_is_as_one_by_one(
    precision: KvPrecision, window: int | None, kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kernel:
        monkeypatch.setattr(kv_backend_decode, "kernel_for", lambda _: None)
    stream = Stream(200)
    windows = (None, window) if window else ()
    kv = cache(sizes(precision, of=shape(windows=windows)), 400, sequences=len(LENGTHS))
    sequences = _grown(kv, stream, LENGTHS)
    decoding = Decoding(kv.sizes, kv.full, kv.exact)
    places = torch.tensor(LENGTHS)
    query_bhgd = stream.queries[1][:, :, places].permute(2, 0, 1, 3)
    keys_bhd = stream.keys[1][:, places].transpose(0, 1)
    values_bhd = stream.values[1][:, places].transpose(0, 1)
    layers = [sequence.layers[1] for sequence in sequences]
    for some in (slice(None), slice(3, 4), slice(0, 1), slice(2, 7, 2)):
        found = decoding.attend(
            layers[some], query_bhgd[some], keys_bhd[some], values_bhd[some], DIM**-0.5
        )
        lengths: tuple[int, ...] = LENGTHS[some]
        for number, length in enumerate(lengths):
            truth = stream.answer(1, length, 1, window)[:, :, 0]
            assert (found[number].double() - truth).abs().max() < FAR[precision]
            at = slice(length, length + 1)
            alone = attend(
                layers[some][number],
                stream.queries[1][:, :, at],
                stream.keys[1][:, at],
                stream.values[1][:, at],
                scale=DIM**-0.5,
            )[:, :, 0]
            assert torch.allclose(found[number], alone, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_half_precision(precision: KvPrecision, dtype: torch.dtype) -> None:
    stream, lengths = Stream(200), (20, 77)
    kv = cache(sizes(precision, of=shape(dtype=dtype)), 400, sequences=2)
    sequences = _grown(kv, stream, lengths)
    decoding = Decoding(kv.sizes, kv.full, kv.exact)
    places = torch.tensor(lengths)
    found = decoding.attend(
        [sequence.layers[0] for sequence in sequences],
        stream.queries[0][:, :, places].permute(2, 0, 1, 3).to(dtype),
        stream.keys[0][:, places].transpose(0, 1).to(dtype),
        stream.values[0][:, places].transpose(0, 1).to(dtype),
        DIM**-0.5,
    )
    for number, length in enumerate(lengths):
        truth = stream.answer(0, length, 1)[:, :, 0]
        assert (found[number].double() - truth).abs().max() < FAR[precision] + 0.05


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_was_spilled_is_read_beside_what_was_not(precision: KvPrecision) -> None:
    stream = Stream(200)
    kv = cache(sizes(precision), 500, sequences=2, store=Shelf())
    first, second = _grown(kv, stream, (150, 150))
    assert first.spill() > 0
    decoding = Decoding(kv.sizes, kv.full, kv.exact)
    found = decoding.attend(
        [first.layers[0], second.layers[0]],
        stream.queries[0][:, :, 150].expand(2, HEADS, GROUP, DIM),
        stream.keys[0][:, 150].expand(2, HEADS, DIM),
        stream.values[0][:, 150].expand(2, HEADS, DIM),
        DIM**-0.5,
    )
    assert torch.allclose(found[0], found[1], atol=2e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("windows", [(), (None, 30)])
def test_a_token_that_settles_is_written_as_by_append(
    precision: KvPrecision, windows: tuple[int | None, ...]
) -> None:
    stream = Stream(200)
    kv = cache(sizes(precision, of=shape(windows=windows)), 400, sequences=4)
    for length in range(1, 90, 4):
        if not kv.sizes.settles(length):
            continue
        one, other = _grown(kv, stream, (length, length))
        stream.append(one, 1)
        decoding = Decoding(kv.sizes, kv.full, kv.exact)
        for layer in range(2):
            decoding.write(
                [other.layers[layer]],
                stream.keys[layer][:, length][None],
                stream.values[layer][:, length][None],
            )
        for layer in range(2):
            for found, expected in zip(
                contents(other, layer),
                contents(one, layer),
                strict=True,
            ):
                assert torch.equal(found, expected)
        one.release()
        other.release()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("windows", [(), (None, 30), (4, 30)])
def test_settled_is_where_nothing_is_taken(
    precision: KvPrecision, windows: tuple[int | None, ...]
) -> None:
    """Told from the blocks that a sequence takes, and from what it has encoded."""
    stream = Stream(200)
    kv = cache(sizes(precision, of=shape(windows=windows)), 400)
    sequence, settled = kv.sequence("a"), 0
    for length in range(100):
        layers = sequence.layers
        before = [(len(a.tail), a.encoded, a.first) for a in layers]
        settles = kv.sizes.settles(length)
        needs = [layer.needs(1) for layer in layers]
        stream.append(sequence, 1)
        changed = before != [(len(a.tail), a.encoded, a.first) for a in layers]
        if settles:
            assert not changed
            assert needs == [(0, 0), (0, 0)]
            settled += 1
        else:
            assert changed
    assert settled > 40


# Promises.


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("windows", [(), (None, 30), (5, 64), (30, 30)])
def test_no_promise_is_more_than_the_pools_hold(
    precision: KvPrecision, windows: tuple[int | None, ...]
) -> None:
    wanted, draw, sequences = sizes(precision, of=shape(windows=windows)), random.Random(1), 4
    for budget_tokens in (130, 300, 900):
        full, exact = wanted.split(wanted.nbytes_for(budget_tokens, sequences), sequences)
        pool = exact if precision == "exact" else full
        total = scheduler_blocks(wanted, pool, sequences, longest=1000)
        for _ in range(200):
            left, lengths = total, []
            for _ in range(draw.randint(1, sequences)):
                if left:
                    blocks = draw.randint(1, left)
                    left -= blocks
                    lengths.append(blocks * BLOCK - draw.choice((0, 0, 1, BLOCK - 1)))
            taken = [wanted.blocks_for(length) for length in lengths]
            if precision == "exact":
                assert sum(map(sum, taken)) <= exact
            else:
                assert sum(one for one, _ in taken) <= full
                assert sum(tail for _, tail in taken) <= exact


@pytest.mark.parametrize("precision", PRECISIONS)
def test_little_is_left_unpromised(precision: KvPrecision) -> None:
    wanted = sizes(precision)
    full, exact = wanted.split(wanted.nbytes_for(800, 1), 1)
    pool = exact if precision == "exact" else full
    total = scheduler_blocks(wanted, pool, 1)
    assert total * BLOCK >= 800
    assert total <= 800 // BLOCK + 2


def test_windows_cost_the_same_however_long() -> None:
    wanted = sizes("int8", of=shape(windows=(30, 30)))
    assert scheduler_blocks(wanted, 100, 2, longest=1000) == 2 * 125
    assert scheduler_blocks(wanted, 100, 2) > 1 << 17
    assert scheduler_blocks(wanted, 6, 2, longest=1000) == 3 + -(-RECENT // BLOCK)
    assert lower_blocks(wanted, 1 << 20) == 0


@pytest.mark.parametrize("precision", PRECISIONS)
def test_promises_for_lower_tiers(precision: KvPrecision) -> None:
    wanted = sizes(precision)
    one = -(-wanted.full.nbytes // PAGE) * PAGE
    assert lower_blocks(wanted, 10 * 2 * one) == 10
    assert lower_blocks(wanted, 10 * 2 * one - 1) == 9
    assert parked_blocks(wanted, 0, 4) == 0
    assert 0 < parked_blocks(wanted, 1 << 20, 4) < lower_blocks(wanted, 1 << 20)
    with pytest.raises(BudgetExceeded, match=r"give at least \d+ bytes more"):
        check_step(wanted, 3, 1, 64)
    check_step(wanted, 40, 1, 64)


def test_staging_is_what_a_step_holds() -> None:
    of = shape(layers=3, dtype=torch.bfloat16)
    assert staging_bytes(of, 10) == 10 * 3 * 2 * HEADS * DIM * 2


def test_sizes_tell_windows_apart() -> None:
    wanted = KvSizes(shape(windows=(None, 30)), "int8", BLOCK, RECENT)
    plain = KvSizes(shape(), "int8", BLOCK, RECENT)
    differ = [n for n in range(200) if wanted.settles(n) != plain.settles(n)]
    assert differ
    assert all(plain.settles(n) for n in differ)
