"""The paged cache: appending, sharing, windows, and budgets that do not hold."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from octavo.engine.kv import KvSequence, PagedKV
from octavo.engine.kv_layout import PRECISIONS, KvPrecision
from octavo.errors import BudgetExceeded, ConfigError, ReleasedError
from octavo.memory.ledger import Ledger
from octavo.memory.pools import BlockPool
from tests.engine.kv_tools import BLOCK, RECENT, Stream, cache, contents, shape, sizes

FAR = {"exact": 0.0, "int8": 0.05, "int4": 0.8}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_it_holds_what_was_appended_however_it_was_cut(precision: KvPrecision) -> None:
    draw = random.Random(precision)
    stream = Stream(250)
    kv = cache(sizes(precision), 250)
    for _ in range(4):
        sequence = kv.sequence("a")
        while sequence.length < 200:
            stream.append(sequence, draw.choice([1, 2, BLOCK - 1, BLOCK, 3 * BLOCK + 1, 49]))
        for layer in range(2):
            for held, given in zip(
                contents(sequence, layer),
                (stream.keys[layer], stream.values[layer]),
                strict=True,
            ):
                truth = given[:, : sequence.length]
                assert (held - truth).abs().max() <= FAR[precision]
                # The newest tokens are exact in every precision.
                assert torch.equal(held[:, -RECENT:], truth[:, -RECENT:])
        sequence.release()
        assert kv.full.stats().used == kv.exact.stats().used == 0


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_codes_do_not_depend_on_the_cutting(precision: KvPrecision) -> None:
    stream = Stream(160)
    # Room for two whole sequences.
    kv = cache(sizes(precision), 400, sequences=2)
    whole, bits = kv.sequence("whole"), kv.sequence("bits")
    stream.append(whole, 160)
    for _ in range(160):
        stream.append(bits, 1)
    for layer in range(2):
        for one, other in zip(contents(whole, layer), contents(bits, layer), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_windows_let_go_of_what_no_query_sees(precision: KvPrecision) -> None:
    window = 20
    wanted = sizes(precision, of=shape(windows=(window, None)))
    stream, kv = Stream(200), cache(wanted, 200)
    sequence = kv.sequence("a")
    for count in (3, 70, *[1] * 40, 87):
        stream.append(sequence, count)
        layer = sequence.layers[0]
        seen_from = max(sequence.length - window + 1, 0)
        assert seen_from - BLOCK < layer.first <= seen_from
        assert sequence.layers[1].first == 0
        keys, _ = contents(sequence, 0)
        given = stream.keys[0][:, layer.first : sequence.length]
        assert (keys - given).abs().max() <= FAR[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("tokens", [None, 5 * BLOCK])
def test_forks_share_full_blocks_and_then_differ(
    precision: KvPrecision, tokens: int | None
) -> None:
    one, other = Stream(200), Stream(200, seed=1)
    kv = cache(sizes(precision), 260, sequences=2)
    first = kv.sequence("first")
    one.append(first, 93)
    before = kv.full.stats().used
    second = first.fork(tokens)
    copied = 0 if kv.full is not kv.exact else second.nbytes // kv.sizes.full.nbytes
    assert kv.full.stats().used - before <= (copied and 2 * kv.sizes.full.nbytes)
    shared = second.length
    assert shared == (93 if tokens is None else tokens)
    one.append(first, 60)
    other.append(second, 60)
    for layer in range(2):
        kept, _ = contents(first, layer)
        assert (kept - one.keys[layer][:, :153]).abs().max() <= FAR[precision]
        forked, _ = contents(second, layer)
        far = (forked[:, :shared] - one.keys[layer][:, :shared]).abs().max()
        # Of a block that is encoded later, half may be the other's tokens, with other steps.
        assert far <= 3 * FAR[precision]
        assert (
            forked[:, shared:] - other.keys[layer][:, shared : shared + 60]
        ).abs().max() <= 3 * FAR[precision]
    first.release()
    kept, _ = contents(second, 0)
    assert kept.shape[1] == shared + 60
    second.release()
    assert kv.full.stats().used == kv.exact.stats().used == 0


def test_forks_that_cannot_be_are_refused() -> None:
    kv = cache(sizes("int8", of=shape(windows=(20, None))), 200, sequences=2)
    sequence = kv.sequence("a")
    Stream(100).append(sequence, 90)
    with pytest.raises(ConfigError, match="no whole blocks"):
        sequence.fork(11)
    with pytest.raises(ConfigError, match="has let go of tokens before"):
        sequence.fork(16)
    assert sequence.fork().length == 90


def test_a_fork_without_room_leaves_all_as_it_was() -> None:
    kv = cache(sizes("int8"), 100)
    sequence = kv.sequence("a")
    stream = Stream(100)
    stream.append(sequence, 2 * BLOCK + RECENT - 1)
    used = kv.full.stats().used, kv.exact.stats().used
    with pytest.raises(BudgetExceeded):
        sequence.fork()
    assert (kv.full.stats().used, kv.exact.stats().used) == used
    stream.append(sequence, 20)
    assert contents(sequence, 0)[0].shape[1] == sequence.length


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("count", [1, 60])
def test_a_full_cache_stays_usable(precision: KvPrecision, count: int) -> None:
    stream = Stream(400)
    wanted = sizes(precision)
    kv = cache(wanted, 120, sequences=2)
    other, sequence = kv.sequence("other"), kv.sequence("a")
    stream.append(other, 40)
    with pytest.raises(BudgetExceeded, match="are free") as refused:
        _fill(stream, sequence, count)
    assert refused.value.next_step
    length = sequence.length
    assert {layer.length for layer in sequence.layers} == {length}
    for layer in range(2):
        keys, _ = contents(sequence, layer)
        assert (keys - stream.keys[layer][:, :length]).abs().max() <= FAR[precision]
    other.release()
    stream.append(sequence, 8)
    assert sequence.length == length + 8


def _fill(stream: Stream, sequence: KvSequence, count: int) -> None:
    while True:
        stream.append(sequence, count)


def test_every_failing_allocation_leaves_it_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The n-th block is refused, for every n of a step."""
    stream = Stream(300)
    real = BlockPool.blocks
    for fail_at in range(1, 11):
        kv = cache(sizes("int8"), 200)
        sequence = kv.sequence("a")
        stream.append(sequence, 8)
        used = kv.full.stats().used, kv.exact.stats().used
        calls = 0

        def failing(self: BlockPool, count: int, *, owner: str = "", at: int = fail_at) -> Any:
            nonlocal calls
            calls += 1
            if calls == at:
                raise BudgetExceeded("injected")
            return real(self, count, owner=owner)

        monkeypatch.setattr(BlockPool, "blocks", failing)
        with pytest.raises(BudgetExceeded):
            sequence.reserve(40)
        monkeypatch.setattr(BlockPool, "blocks", real)
        assert (kv.full.stats().used, kv.exact.stats().used) == used
        # Given back, not just dropped.
        assert kv.full.stats().leaked == kv.exact.stats().leaked == {}
        stream.append(sequence, 40)
        assert (contents(sequence, 1)[0] - stream.keys[1][:, :48]).abs().max() <= FAR["int8"]
        sequence.release()
        assert kv.full.stats().used == kv.exact.stats().used == 0


def test_the_longest_sequence_can_be_limited() -> None:
    kv, stream = cache(sizes("int8"), 200, max_length=50), Stream(100)
    sequence = kv.sequence("a")
    stream.append(sequence, 50)
    with pytest.raises(BudgetExceeded, match="50 are allowed") as refused:
        sequence.reserve(1)
    assert "kv_cache_max_length" in str(refused.value)


def test_a_budget_that_the_ledger_does_not_have_is_refused_at_once() -> None:
    wanted = sizes("int8")
    budget = wanted.nbytes_for(500)
    ledger = Ledger({"device": cache(wanted, 500).nbytes - 1})
    with pytest.raises(BudgetExceeded):
        PagedKV(ledger, wanted, budget=budget)
    assert ledger.used("device") == 0


def test_use_after_release_is_an_error() -> None:
    kv = cache(sizes("int8"))
    sequence, stream = kv.sequence("a"), Stream(20)
    stream.append(sequence, 10)
    sequence.release()
    sequence.release()
    with pytest.raises(ReleasedError):
        stream.append(sequence, 1)
    later = kv.sequence("b")
    stream.append(later, 10)
    kv.close()
    with pytest.raises(ReleasedError):
        stream.append(later, 10)


def test_dropped_sequences_are_leaks_that_come_back() -> None:
    kv = cache(sizes("int8"))
    sequence = kv.sequence("forgotten")
    Stream(100).append(sequence, 100)
    del sequence
    assert kv.full.stats().used == kv.exact.stats().used == 0
    assert kv.full.stats().leaked["forgotten"] > 0


@pytest.mark.parametrize("precision", PRECISIONS)
def test_free_tokens_can_be_appended(precision: KvPrecision) -> None:
    kv, stream = cache(sizes(precision), 300), Stream(400)
    sequence = kv.sequence("a")
    stream.append(sequence, 64)
    stream.append(sequence, kv.free_tokens())
    assert sequence.length > 250


@pytest.mark.parametrize("seed", range(6))
def test_many_sequences_come_and_go(seed: int) -> None:
    """Like an engine: random growth, forks, releases; every sequence stays what it was."""
    draw = random.Random(seed)
    precision = PRECISIONS[seed % 3]
    windows = (20, None) if seed % 2 else ()
    wanted = sizes(precision, of=shape(windows=windows))
    kv = cache(wanted, 500, sequences=4)
    live: list[tuple[Any, Stream]] = []
    refusals = 0
    for _ in range(120):
        choice = draw.random()
        if len(live) < 4 and choice < 0.3:
            live.append((kv.sequence("x"), Stream(400, seed=draw.randint(0, 99))))
        elif live and choice < 0.4:
            live.pop(draw.randrange(len(live)))[0].release()
        elif live and choice < 0.5 and len(live) < 4:
            sequence, stream = draw.choice(live)
            try:
                live.append((sequence.fork(), stream))
            except BudgetExceeded:
                refusals += 1
        elif live:
            sequence, stream = draw.choice(live)
            count = min(draw.choice([1, 5, 8, 60]), 400 - sequence.length)
            try:
                stream.append(sequence, count)
            except BudgetExceeded:
                refusals += 1
        for sequence, stream in live:
            if sequence.length:
                layer = draw.randrange(2)
                first = sequence.layers[layer].first
                keys, _ = contents(sequence, layer)
                given = stream.keys[layer][:, first : sequence.length]
                assert (keys - given).abs().max() <= FAR[precision]
    for sequence, _ in live:
        sequence.release()
    assert kv.full.stats().used == kv.exact.stats().used == 0
    assert kv.full.stats().leaked == {}
