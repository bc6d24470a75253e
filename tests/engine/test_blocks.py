"""Block numbers: against a plain model of who holds what."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.engine.blocks import Blocks, chain
from octavo.errors import BudgetExceeded, ConfigError

CONTENT = st.tuples(
    st.binary(max_size=4),
    st.lists(st.integers(-2, 2), max_size=4),
    st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 2), st.binary(max_size=10)), max_size=2),
)


@settings(max_examples=300, deadline=None)
@given(CONTENT, CONTENT)
def test_keys_are_equal_exactly_for_equal_content(one, other) -> None:
    assert (chain(*one) == chain(*other)) is (one == other)


def test_the_key_tells_lists_apart_whose_bytes_run_together() -> None:
    assert chain(b"a", [1], [(0, 1, b"bc")]) != chain(b"a", [1], [(0, 1, b"b"), (0, 1, b"c")])
    assert chain(b"", [0, 0]) != chain(bytes(8), [0])
    assert chain(b"", [5, 5], [(0, 1, b"p")]) != chain(b"", [5, 5], [(0, 2, b"p")])


def test_blocks_are_handed_out_once_and_come_back() -> None:
    blocks = Blocks(5, 4)
    taken = [blocks.take() for _ in range(5)]
    assert sorted(taken) == list(range(5))
    with pytest.raises(BudgetExceeded, match="5 KV blocks"):
        blocks.take()
    blocks.let_go(taken)
    assert blocks.available == 5
    blocks.check([])


@pytest.mark.parametrize(("tokens", "needed"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2)])
def test_needed(tokens: int, needed: int) -> None:
    assert Blocks(1, 4).needed(tokens) == needed


@pytest.mark.parametrize(("total", "size"), [(0, 4), (4, 0), (-1, 4)])
def test_blocks_that_hold_nothing_are_refused(total: int, size: int) -> None:
    with pytest.raises(ConfigError):
        Blocks(total, size)


def test_a_sealed_block_is_found_until_its_place_is_needed() -> None:
    blocks = Blocks(2, 4)
    block = blocks.take()
    assert blocks.writable(block)
    blocks.seal(block, b"key")
    assert not blocks.writable(block)
    blocks.let_go([block])
    assert blocks.available == 2
    assert blocks.find(b"key") == block
    other = blocks.take()
    assert other != block, "a free block goes before a cached one"
    assert blocks.find(b"key") == block
    assert blocks.take() == block
    assert blocks.find(b"key") is None


def test_a_cached_block_that_is_shared_again_is_not_handed_out() -> None:
    blocks = Blocks(1, 4)
    block = blocks.take()
    blocks.seal(block, b"key")
    blocks.let_go([block])
    assert blocks.share(block) == block
    with pytest.raises(BudgetExceeded):
        blocks.take()
    blocks.check([[block]])


def test_the_end_of_a_sequence_is_forgotten_before_its_beginning() -> None:
    blocks = Blocks(4, 4)
    first, second = [[blocks.take(), blocks.take()] for _ in range(2)]
    for index, block in enumerate([*first, *second]):
        blocks.seal(block, bytes([index]))
    blocks.let_go(first)
    blocks.let_go(second)
    assert [blocks.take() for _ in range(4)] == [*reversed(first), *reversed(second)]


def test_the_first_block_with_a_key_is_found_and_the_second_stays_its_holders_own() -> None:
    blocks = Blocks(2, 4)
    one, other = blocks.take(), blocks.take()
    blocks.seal(one, b"key")
    blocks.seal(other, b"key")
    assert blocks.find(b"key") == one
    assert blocks.writable(other)
    blocks.let_go([other])
    blocks.check([[one]])


def test_cached_blocks_can_be_forgotten_at_once() -> None:
    blocks = Blocks(3, 4)
    taken = [blocks.take() for _ in range(3)]
    for block in taken:
        blocks.seal(block, bytes([block]))
    blocks.let_go(taken[:2])
    assert blocks.forget_cached() == 2
    assert [blocks.find(bytes([block])) for block in taken] == [None, None, taken[2]]
    blocks.check([taken[2:]])


@pytest.mark.parametrize("tables", [[], [[0], [0]], [[1]], [[0, 1]]])
def test_check_tells_of_books_that_are_wrong(tables: list[list[int]]) -> None:
    blocks = Blocks(2, 4)
    assert blocks.take() == 0
    with pytest.raises(RuntimeError, match="holders"):
        blocks.check(tables)


@pytest.mark.parametrize("seed", range(100))
def test_random_use_agrees_with_a_plain_model(seed: int) -> None:
    pick = random.Random(seed)
    blocks = Blocks(pick.randint(1, 12), 4)
    tables: list[list[int]] = []
    content: dict[int, bytes] = {}
    for turn in range(150):
        act = pick.choice(("take", "share", "seal", "go", "find"))
        if act == "take" and blocks.available:
            taken = blocks.take()
            assert all(taken not in table for table in tables)
            content.pop(taken, None)
            tables.append([taken])
        elif act == "share" and tables:
            tables.append([blocks.share(block) for block in pick.choice(tables)])
        elif act == "seal" and tables:
            block = pick.choice(pick.choice(tables))
            if blocks.writable(block):
                key = bytes([turn])
                blocks.seal(block, key)
                content[block] = key
        elif act == "go" and tables:
            blocks.let_go(tables.pop(pick.randrange(len(tables))))
        elif act == "find" and content:
            block, key = pick.choice(list(content.items()))
            assert blocks.find(key) == block
            tables.append([blocks.share(block)])
        blocks.check(tables)
        held = {block for table in tables for block in table}
        assert blocks.available == blocks.total - len(held)
