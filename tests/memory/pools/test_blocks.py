"""The block pool against a plain model: who holds which block, and what is written in it."""

from __future__ import annotations

import gc
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.errors import BudgetExceeded, ConfigError, ReleasedError
from octavo.memory.ledger import Ledger
from octavo.memory.pools import BlockPool, Blocks
from tests.memory.pools.faults import MIB, counted, fail_at, ledger

SHAPE = (8, 64)
#: Four fill a page.
BLOCK = 8 * 64 * 2


def pool(books: Ledger | None = None, blocks: int = 12, **more: object) -> BlockPool:
    return BlockPool(
        books or ledger(),
        name="kv",
        block_shape=SHAPE,
        dtype=torch.bfloat16,
        blocks=blocks,
        **more,  # type: ignore[arg-type]
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), slab_blocks=st.sampled_from([None, 1, 5, 12]))
def test_equals_a_plain_model(seed: int, slab_blocks: int | None) -> None:
    rng = random.Random(seed)
    books = ledger()
    tested = pool(books, slab_blocks=slab_blocks)
    live: list[tuple[Blocks, list[int]]] = []
    holders: Counter[int] = Counter()
    written: dict[int, int] = {}

    def fresh(indices: list[int]) -> None:
        for index in indices:
            assert not holders[index], "a block in use was handed out"
            holders[index] += 1

    for step in range(50):
        choice = rng.random()
        if choice < 0.4 or not live:
            count = rng.randint(0, 6)
            free = 12 - sum(1 for held in holders.values() if held)
            try:
                blocks = tested.blocks(count, owner=str(step))
            except BudgetExceeded:
                assert count > free
                continue
            assert count <= free
            fresh(list(blocks.indices))
            live.append((blocks, list(blocks.indices)))
        elif choice < 0.55:
            blocks, indices = rng.choice(live)
            count = rng.randint(0, len(indices))
            live.append((blocks.share(count), indices[:count]))
            holders.update(indices[:count])
        elif choice < 0.65:
            blocks, indices = rng.choice(live)
            try:
                blocks.extend(2)
            except BudgetExceeded:
                assert list(blocks.indices) == indices
                continue
            fresh(list(blocks.indices[len(indices) :]))
            indices[:] = blocks.indices
        else:
            blocks, indices = live.pop(rng.randrange(len(live)))
            blocks.release()
            holders.subtract(indices)
        for blocks, indices in live:
            assert list(blocks.indices) == indices
            for position, index in enumerate(indices):
                assert blocks.references(position) == holders[index]
                if index not in written:
                    written[index] = step
                    blocks[position].fill_(step)
                assert blocks[position].eq(written[index]).all()
        for index in list(written):
            if not holders[index]:
                del written[index]
        stats = tested.stats()
        used = sum(1 for held in holders.values() if held)
        assert (stats.used_blocks, stats.handles) == (used, len(live))
        assert stats.used_blocks + stats.free_blocks <= 12
        assert counted(books) == stats.nbytes
    for blocks, _ in live:
        blocks.release()
    tested.trim()
    assert counted(books) == 0
    assert tested.stats().leaked == {}


def test_blocks_are_rows_of_one_tensor() -> None:
    tested = pool()
    with tested.blocks(3) as blocks:
        assert len(blocks) == 3
        for position in range(3):
            assert (tuple(blocks[position].shape), blocks[position].dtype) == (
                SHAPE,
                torch.bfloat16,
            )
            blocks[position].fill_(position + 1)
        whole = tested.tensor
        assert tuple(whole.shape) == (12, *SHAPE)
        assert whole[list(blocks.indices)].float().mean((1, 2)).tolist() == [1.0, 2.0, 3.0]
        whole[blocks.indices[-1]] = 9.0
        assert blocks[-1].eq(9.0).all()
        with pytest.raises(IndexError):
            _ = blocks[3]
        assert len(list(blocks)) == 3


@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16, torch.float64])
def test_any_dtype(dtype: torch.dtype) -> None:
    tested = BlockPool(ledger(), name="kv", block_shape=(3, 5), dtype=dtype, nbytes=10_000)
    assert tested.limit == 10_000 // (15 * dtype.itemsize)
    with tested.blocks(tested.limit) as blocks:
        expected = torch.arange(15).to(dtype).view(3, 5)
        blocks[tested.limit - 1].copy_(expected)
        assert torch.equal(tested.tensor[blocks.indices[-1]], expected)


def test_growth_moves_nothing_and_numbers_say_where_a_block_is() -> None:
    books = ledger()
    tested = pool(books, slab_blocks=4)
    first = tested.blocks(4)
    views = [first[i].fill_(i) for i in range(4)]
    addresses = [view.data_ptr() for view in views]
    assert counted(books) == 4 * BLOCK
    more = tested.blocks(6)
    assert counted(books) == 12 * BLOCK
    assert [first[i].data_ptr() for i in range(4)] == addresses
    assert sorted(first.indices + more.indices) == list(range(10))
    for position, index in enumerate(more.indices):
        number, row = tested.locate(index)
        more[position].fill_(index)
        assert tested.slab(number)[row].eq(index).all()
    assert all(view.eq(i).all() for i, view in enumerate(views))
    with pytest.raises(ConfigError, match="locate"):
        _ = tested.tensor


def test_full_low_slabs_first_so_that_high_ones_can_be_trimmed() -> None:
    books = ledger()
    tested = pool(books, slab_blocks=4)
    low, high = tested.blocks(4), tested.blocks(4)
    assert tested.trim() == 0
    low.release()
    with tested.blocks(3) as again:
        assert max(again.indices) < 4
        high.release()
        assert tested.trim() == 4 * BLOCK
        with pytest.raises(ReleasedError):
            tested.slab(1)
        with tested.blocks(5) as grown:
            assert sorted(again.indices + grown.indices) == list(range(8))
    assert tested.trim() == 8 * BLOCK
    assert counted(books) == 0


def test_a_slab_in_a_kernels_hands_is_not_trimmed() -> None:
    books = ledger()
    tested = pool(books)
    whole = tested.tensor
    assert tested.trim() == 0
    whole.fill_(1)
    del whole
    assert tested.trim() == 12 * BLOCK
    assert tested.tensor.shape[0] == 12, "allocated again"


def test_a_shared_block_is_free_with_its_last_handle() -> None:
    tested = pool()
    first = tested.blocks(4, owner="a")
    prefix = first.share(2, owner="b")
    assert prefix.indices == first.indices[:2]
    assert [first.references(i) for i in range(4)] == [2, 2, 1, 1]
    assert tested.stats().owners == {"a": 4, "b": 2}
    first[0].fill_(7)
    first.release()
    assert tested.stats().used_blocks == 2
    assert prefix[0].eq(7).all()
    prefix.release()
    assert tested.stats().used_blocks == 0
    assert tested.stats().owners == {}
    assert tested.stats().peak == 4 * BLOCK


def test_use_after_release_raises() -> None:
    tested = pool()
    blocks = tested.blocks(2)
    blocks.release()
    blocks.release()
    for use in (
        lambda: blocks[0],
        lambda: len(blocks),
        lambda: blocks.indices,
        lambda: blocks.extend(1),
        blocks.share,
        lambda: blocks.references(0),
    ):
        with pytest.raises(ReleasedError):
            use()
    kept = tested.blocks(2)
    tested.close()
    for use in (
        lambda: kept[0],
        kept.share,
        lambda: kept.extend(1),
        lambda: tested.tensor,
    ):
        with pytest.raises(ReleasedError, match="closed"):
            use()
    kept.release()


def test_a_block_that_a_tensor_shows_is_not_handed_out() -> None:
    tested = pool(blocks=2)
    blocks = tested.blocks(2)
    stale = blocks[1].fill_(5)
    blocks.release()
    assert tested.stats().lent == BLOCK
    with pytest.raises(BudgetExceeded, match="1 wait for tensors"):
        tested.blocks(2)
    tested.blocks(1).release()
    assert stale.eq(5).all()
    del stale
    tested.blocks(2).release()


def test_poison_shows_stale_use_by_number() -> None:
    tested = pool(poison=True)
    blocks = tested.blocks(2)
    kept = blocks.share(1)
    table = list(blocks.indices)
    tested.tensor[table] = 1.0
    blocks.release()
    assert tested.tensor[table[1]].isnan().all()
    assert tested.tensor[table[0]].eq(1.0).all(), "still held"
    kept.release()
    assert tested.tensor[table[0]].isnan().all()


def test_a_refusal_says_who_holds_what() -> None:
    tested = pool()
    held = [tested.blocks(8, owner="request 1"), tested.blocks(2, owner="request 2")]
    with pytest.raises(BudgetExceeded) as raised:
        tested.blocks(3, owner="request 3")
    text = str(raised.value)
    assert "request 3 wants 3 blocks" in text
    assert "2 of 12 are free" in text
    assert "request 1 8, request 2 2" in text
    assert tested.stats().refused == 1
    assert sum(map(len, held)) == 10


def test_more_than_the_limit_is_refused_before_anything_is_allocated() -> None:
    books = ledger()
    with pytest.raises(BudgetExceeded, match="wants 13 blocks"):
        pool(books, slab_blocks=4).blocks(13)
    assert counted(books) == 0


def test_a_dropped_handle_gives_its_blocks_back_and_counts_as_a_leak() -> None:
    tested = pool()
    with tested.blocks(2, owner="a") as blocks:
        blocks.share(owner="b")
        tested.blocks(3, owner="b")
        gc.collect()
        stats = tested.stats()
        assert stats.leaked == {"b": 2}
        assert (stats.used_blocks, stats.handles, stats.owners) == (2, 1, {"a": 2})
        assert blocks.references(0) == 1
    assert len(tested.blocks(12)) == 12


@pytest.mark.parametrize(
    "wrong",
    [
        {"blocks": None},
        {"blocks": 3, "nbytes": 100},
        {"blocks": None, "nbytes": BLOCK - 1},
        {"blocks": 0},
        {"block_shape": (0, 4)},
    ],
)
def test_impossible_pools(wrong: dict[str, object]) -> None:
    given = {"block_shape": SHAPE, "dtype": torch.bfloat16, "blocks": 4} | wrong
    with pytest.raises(ConfigError):
        BlockPool(ledger(), name="kv", **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_failed_allocation_leaks_nothing(monkeypatch: pytest.MonkeyPatch, turn: int) -> None:
    books = ledger()
    tested = pool(books, slab_blocks=4)
    fail_at(monkeypatch, turn, torch.OutOfMemoryError("out of memory"))
    held: list[Blocks] = []
    causes: list[type] = []
    for _ in range(4):
        try:
            held.append(tested.blocks(3))
        except BudgetExceeded as error:
            causes.append(type(error.__cause__))
        assert counted(books) == tested.stats().nbytes
    assert causes == [torch.OutOfMemoryError]
    assert (tested.stats().refused, tested.stats().used_blocks) == (1, 9)
    for blocks in held:
        blocks.release()
    tested.close()
    assert counted(books) == 0


def test_growing_while_the_budget_is_short_ends_in_a_refusal() -> None:
    """Its own idle slab must not be given up for the next: that would never end."""
    books = ledger(device=4 * BLOCK)
    tested = pool(books, slab_blocks=4)
    tested.blocks(4).release()
    with pytest.raises(BudgetExceeded, match="kv"):
        tested.blocks(6)
    assert counted(books) == 4 * BLOCK
    with books.reserve("device", "other", 4 * BLOCK, "other"):
        assert tested.stats().slabs == 0


def test_threads_that_come_together_share_one_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fail_at(monkeypatch, 0, MemoryError())
    tested = pool(blocks=64)
    barrier = threading.Barrier(8)

    def work(_: int) -> tuple[int, ...]:
        barrier.wait()
        with tested.blocks(8) as blocks:
            return blocks.indices

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert calls() == 1


def test_closing_while_growing_leaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    books = ledger()
    tested = pool(books)
    entered, go = threading.Event(), threading.Event()
    reserve = books.reserve

    def slow_reserve(*arguments: object) -> object:
        entered.set()
        go.wait()
        return reserve(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(books, "reserve", slow_reserve)
    with ThreadPoolExecutor(2) as threads:
        growing = threads.submit(tested.blocks, 1)
        entered.wait()
        waiting = threads.submit(tested.blocks, 1)
        tested.close()
        with pytest.raises(ReleasedError):
            waiting.result()
        go.set()
        with pytest.raises(ReleasedError):
            growing.result()
    assert counted(books) == 0


def test_eight_threads() -> None:
    books = ledger(device=MIB)
    tested = pool(books, blocks=40, slab_blocks=8)
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        rng = random.Random(number)
        live: list[Blocks] = []
        barrier.wait()
        for _ in range(60):
            if live and rng.random() < 0.5:
                blocks = live.pop(rng.randrange(len(live)))
                for position in range(len(blocks)):
                    assert blocks[position].eq(number + 1).all()
                if rng.random() < 0.9:
                    blocks.release()
                continue
            try:
                blocks = tested.blocks(rng.randint(1, 3), owner=str(number))
            except BudgetExceeded:
                tested.trim()
                continue
            for position in range(len(blocks)):
                blocks[position].fill_(number + 1)
            live.append(blocks.share() if rng.random() < 0.3 else blocks)
        for blocks in live:
            blocks.release()

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(work, number) for number in range(8)]:
            done.result()
    stats = tested.stats()
    assert (stats.used_blocks, stats.lent, stats.handles) == (0, 0, 0)
    tested.trim()
    assert counted(books) == 0
