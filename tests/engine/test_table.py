"""Blocks of sequences: a shared one is copied before it is written."""

from __future__ import annotations

from octavo.engine.blocks import Blocks
from octavo.engine.sequence import Job, Sequence
from octavo.engine.step import Copy
from octavo.engine.table import BlockTable


def sequence(*tokens: int, root: bytes = b"") -> Sequence:
    return Sequence(Job("a", tokens, 4, root=root), 0, (0.0, 1))


def computed(table: BlockTable, one: Sequence, tokens: int) -> Sequence:
    table.grow(one, tokens)
    one.computed = tokens
    table.seal(one)
    return one


def test_a_fork_needs_a_copy_only_while_the_last_block_is_shared() -> None:
    table = BlockTable(Blocks(4, 4))
    parent = computed(table, sequence(1, 2, 3, 4, 5, 6), 6)
    child = sequence(1, 2, 3, 4, 5, 6, 7)
    assert table.fork(child, parent)
    assert child.blocks == parent.blocks
    assert (table.missing(child, 7), table.missing(child, 9)) == (1, 2)
    table.release(parent)
    assert (table.missing(child, 7), table.missing(child, 9)) == (0, 1)
    assert table.grow(child, 7) is None
    table.blocks.check([child.blocks])


def test_the_copy_holds_the_tokens_so_far_and_leaves_the_parent_as_it_was() -> None:
    table = BlockTable(Blocks(4, 4))
    parent = computed(table, sequence(1, 2, 3, 4, 5, 6), 6)
    child = sequence(1, 2, 3, 4, 5, 6, 7)
    table.fork(child, parent)
    before = list(parent.blocks)
    copy = table.grow(child, 7)
    assert copy == Copy(before[1], child.blocks[1], 2)
    assert parent.blocks == before
    assert child.blocks[0] == before[0]
    assert child.blocks[1] != before[1]
    table.blocks.check([parent.blocks, child.blocks])


def test_only_what_begins_alike_is_forked() -> None:
    table = BlockTable(Blocks(4, 4))
    parent = computed(table, sequence(1, 2, 3, 4, 5, 6), 6)
    for other in (
        sequence(1, 2, 3, 4, 5, 9, 7),
        sequence(9, 2, 3, 4, 5, 6, 7),
        sequence(1, 2, 3, 4, 5),
        sequence(1, 2, 3, 4, 5, 6),
        sequence(1, 2, 3, 4, 5, 6, 7, root=b"other"),
    ):
        assert not table.fork(other, parent)
        assert other.blocks == []


def test_a_fork_in_the_first_block_tells_roots_apart() -> None:
    table = BlockTable(Blocks(4, 4))
    parent = computed(table, sequence(1, 2), 2)
    assert not table.fork(sequence(1, 2, 3, root=b"other"), parent)
    assert table.fork(sequence(1, 2, 3), parent)


def test_blocks_are_found_as_far_as_they_were_computed() -> None:
    table = BlockTable(Blocks(8, 2))
    computed(table, sequence(1, 2, 3, 4, 5, 6), 5)
    other = sequence(1, 2, 3, 4, 5, 6, 7)
    assert len(table.shareable(other)) == 2
    table.follow(other)
    assert (other.computed, other.shared, len(other.blocks)) == (4, 4, 2)
    assert table.next_key(other) is not None
    assert BlockTable(table.blocks, share=False).next_key(other) is None
