"""Gives sequences their blocks: what is already computed is shared, the rest is theirs alone."""

from __future__ import annotations

from octavo.engine.blocks import Blocks
from octavo.engine.sequence import Sequence
from octavo.engine.step import Copy


class BlockTable:
    """The blocks of all sequences.

    A block that is shared, or that others may find, is never written: a sequence that must go on
    inside a shared block gets its own copy first.

    Args:
        blocks: to hand out.
        share: whether sequences that begin alike share blocks.
    """

    def __init__(self, blocks: Blocks, *, share: bool = True) -> None:
        self.blocks = blocks
        self._share = share

    def next_key(self, sequence: Sequence) -> bytes | None:
        """The key of the block to compute next, if it could be shared instead.

        None inside a block, and where the block holds the last token: that one is always
        computed, because the next token is chosen from it.
        """
        size = self.blocks.size
        index, inside = divmod(sequence.computed, size)
        if not self._share or inside or sequence.computed + size >= sequence.length:
            return None
        return sequence.key(index, size)

    def keys_ahead(self, sequence: Sequence) -> list[bytes]:
        """Keys of the full blocks that it has still to compute."""
        size = self.blocks.size
        if not self._share:
            return []
        return [
            sequence.key(i, size) for i in range(sequence.computed // size, sequence.length // size)
        ]

    def follow(self, sequence: Sequence) -> None:
        """Shares the blocks that others have computed, as far as they go."""
        while (block := self._found(sequence)) is not None:
            sequence.blocks.append(self.blocks.share(block))
            sequence.computed += self.blocks.size
            sequence.shared += self.blocks.size

    def fork(self, sequence: Sequence, parent: Sequence) -> bool:
        """Shares all blocks of ``parent``, the partial last one too, if this one begins with it."""
        tokens = parent.computed
        if not 0 < tokens < sequence.length or not self._begins_with(sequence, parent):
            return False
        held = self.blocks.needed(tokens)
        sequence.blocks = [self.blocks.share(block) for block in parent.blocks[:held]]
        sequence.computed = sequence.shared = tokens
        return True

    def shareable(self, sequence: Sequence) -> list[int]:
        """Blocks that it would share if it began now."""
        size = self.blocks.size
        found: list[int] = []
        while self._share and (len(found) + 1) * size < sequence.length:
            block = self.blocks.find(sequence.key(len(found), size))
            if block is None:
                break
            found.append(block)
        return found

    def missing(self, sequence: Sequence, end: int) -> int:
        """Blocks to take before tokens up to ``end`` can be computed, a copy included."""
        more = max(self.blocks.needed(end) - len(sequence.blocks), 0)
        return more + self._needs_copy(sequence)

    def grow(self, sequence: Sequence, end: int) -> Copy | None:
        """Takes the missing blocks; says which block to copy before it is written."""
        copy = self._own_last(sequence) if self._needs_copy(sequence) else None
        while len(sequence.blocks) < self.blocks.needed(end):
            sequence.blocks.append(self.blocks.take())
        return copy

    def seal(self, sequence: Sequence) -> None:
        """Makes the blocks known that have become full."""
        full = sequence.computed // self.blocks.size
        for index in range(sequence.sealed, full if self._share else 0):
            key = sequence.key(index, self.blocks.size)
            self.blocks.seal(sequence.blocks[index], key)
        sequence.sealed = full

    def release(self, sequence: Sequence) -> None:
        self.blocks.let_go(sequence.blocks)
        sequence.blocks = []
        sequence.computed = sequence.sealed = 0

    def _found(self, sequence: Sequence) -> int | None:
        if len(sequence.blocks) * self.blocks.size != sequence.computed:
            return None
        key = self.next_key(sequence)
        return None if key is None else self.blocks.find(key)

    def _begins_with(self, sequence: Sequence, parent: Sequence) -> bool:
        size = self.blocks.size
        tail = (parent.computed - 1) // size * size
        return sequence.key_of(tail, parent.computed, size) == parent.key_of(
            tail, parent.computed, size
        )

    def _needs_copy(self, sequence: Sequence) -> bool:
        index = sequence.computed // self.blocks.size
        return index < len(sequence.blocks) and not self.blocks.writable(sequence.blocks[index])

    def _own_last(self, sequence: Sequence) -> Copy:
        index, tokens = divmod(sequence.computed, self.blocks.size)
        old = sequence.blocks[index]
        sequence.blocks[index] = own = self.blocks.take()
        self.blocks.let_go([old])
        return Copy(old, own, tokens)
