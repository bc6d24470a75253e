"""Runs of full blocks: what attention reads at once, and what moves between tiers.

A closed extent never changes again. It may be shared by sequences, and written to a store once;
its blocks can then be given back, and the store's copy is read in their place.
"""

from __future__ import annotations

import itertools
from typing import Final, Protocol

import torch

from octavo.errors import LostValue, ReleasedError
from octavo.memory.entry import Terms
from octavo.memory.ledger import Ledger, Place
from octavo.memory.policies.base import Key
from octavo.memory.pools import BlockPool, Blocks

_NUMBERS: Final = itertools.count()


class KvStore(Protocol):
    """Keeps what a sequence writes back: a ``TieredStore`` or ``SplitStore``."""

    def put(self, key: Key, tensor: torch.Tensor, terms: Terms) -> None: ...

    def __getitem__(self, key: Key) -> torch.Tensor: ...

    def discard(self, key: Key) -> bool: ...

    def prefetch(self, keys: list[Key]) -> None: ...


class KvPool(BlockPool):
    """Rows of bytes in one slab that is allocated at once and stays until the pool is closed.

    A slab that nobody holds would be given up as soon as the ledger needs room.

    Raises:
        BudgetExceeded: the ledger has no room for the slab.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        name: str,
        nbytes: int,
        blocks: int,
        device: torch.device,
        place: Place,
    ) -> None:
        super().__init__(
            ledger,
            name=name,
            block_shape=(nbytes,),
            dtype=torch.uint8,
            blocks=blocks,
            device=device,
            place=place,
            kind="kv",
        )
        self._rows_nb: torch.Tensor | None = None
        try:
            self._rows_nb = super().tensor
        except BaseException:
            self.close()
            raise

    @property
    def tensor(self) -> torch.Tensor:
        """All blocks, one in each row."""
        rows_nb = self._rows_nb
        return super().tensor if rows_nb is None else rows_nb

    def close(self) -> None:
        self._rows_nb = None
        super().close()


class Extent:
    """Full blocks of one layer that follow each other, in the pool, in a store, or in both.

    Args:
        pool: that the blocks are of.
        owner: for the ledger of the store.
    """

    __slots__ = ("_copy", "_index", "_numbers", "blocks", "count", "holders", "owner", "pool")

    def __init__(self, pool: BlockPool, owner: str) -> None:
        self.pool = pool
        self.owner = owner
        self.blocks: list[Blocks] = []
        self.count = 0
        self.holders = 1
        self._index: slice | torch.Tensor | None = None
        self._numbers: list[int] | None = None
        self._copy: tuple[KvStore, Key] | None = None

    @property
    def resident(self) -> bool:
        return bool(self.blocks)

    @property
    def written(self) -> bool:
        return self._copy is not None

    @property
    def numbers(self) -> list[int]:
        """Rows of its blocks in the pool; none when it is only in the store."""
        if self._numbers is None:
            self._numbers = [block.indices[0] for block in self.blocks]
        return self._numbers

    def add(self, block: Blocks) -> None:
        """One more block at the end; only while the extent is open."""
        self.blocks.append(block)
        self.count += 1
        self._index = self._numbers = None

    @property
    def alone(self) -> bool:
        """Whether some of its blocks can go without the others."""
        return self.holders == 1 and self.resident and not self.written

    def reusable(self, count: int) -> int:
        """How many of its first ``count`` blocks nobody else holds."""
        if self.holders > 1 or (not self.alone and count < self.count):
            return 0
        return sum(block.references(0) == 1 for block in self.blocks[:count])

    def pop(self, count: int) -> list[Blocks]:
        """Takes the oldest blocks away; those that nobody else holds are returned, for reuse.

        All of them when it is shared or written: that is one holder less.
        """
        if self.holders > 1:
            self.release()
            return []
        gone, self.blocks = self.blocks[:count], self.blocks[count:]
        self.count -= count
        self._index = self._numbers = None
        if not self.count:
            self._forget()
        free = [block for block in gone if block.references(0) == 1]
        give([block for block in gone if block.references(0) > 1])
        return free

    def rows(self) -> torch.Tensor:
        """Its blocks, one in each row: ``uint8 [count, nbytes]``.

        Raises:
            LostValue: the store has lost it; the sequence must be computed again.
            CorruptValue: what it holds is not what was written.
        """
        if self.blocks:
            return rows_of(self.pool, self.blocks, self._at())
        if self._copy is None:
            raise ReleasedError("these blocks were given back", where=self.owner)
        store, key = self._copy
        try:
            return store[key]
        except KeyError as error:
            raise LostValue(
                "keys and values that were written back are gone",
                where=self.owner,
                next_step="run the request again",
            ) from error

    def write(self, store: KvStore) -> None:
        """Puts a copy into the store, once.

        Raises:
            TierFull, BudgetExceeded: the store has no room; the extent is as before.
        """
        if self._copy is None:
            key = ("octavo:kv", self.owner, next(_NUMBERS))
            store.put(key, self.rows().clone(), Terms(kind="kv", owner=self.owner))
            self._copy = store, key

    def leave(self) -> int:
        """Gives the blocks in the pool back, where the store has a copy; how many."""
        if self._copy is None:
            return 0
        gone = len(self.blocks)
        self._release()
        return gone

    def enter(self, *, keep: bool = True) -> None:
        """Brings a copy into the pool.

        Args:
            keep: whether the store keeps its own, so that it need not be written again.

        Raises:
            BudgetExceeded: there are not so many free blocks; it stays in the store.
        """
        if not self.blocks:
            rows_nb = self.rows()
            blocks = take(self.pool, self.count, self.owner)
            self.blocks, self._index, self._numbers = blocks, None, None
            write_rows(self.pool, blocks, rows_nb)
        if not keep:
            self._forget()

    def apart(self) -> Extent:
        """The same for one holder alone, who leaves this one: the blocks are shared.

        Only while it is in the pool.
        """
        other = Extent(self.pool, self.owner)
        for block in self.blocks:
            other.add(block.share())
        self.release()
        return other

    def prefetch(self) -> Key | None:
        """The key to ask its store for, when it is not in the pool."""
        return None if self.blocks or self._copy is None else self._copy[1]

    def release(self) -> None:
        """One holder less; the last one frees its blocks and its copy."""
        self.holders -= 1
        if not self.holders:
            self._release()
            self._forget()

    def _at(self) -> slice | torch.Tensor:
        if self._index is None:
            self._index = index_of(self.pool, self.blocks)
        return self._index

    def _release(self) -> None:
        for block in self.blocks:
            block.release()
        self.blocks, self._index, self._numbers = [], None, None

    def _forget(self) -> None:
        if self._copy is not None:
            store, key = self._copy
            store.discard(key)
        self._copy = None


def take(pool: BlockPool, count: int, owner: str) -> list[Blocks]:
    """``count`` handles of one block each, all or none.

    Raises:
        BudgetExceeded: there are not so many.
    """
    taken: list[Blocks] = []
    try:
        taken.extend(pool.blocks(1, owner=owner) for _ in range(count))
    except BaseException:
        give(taken)
        raise
    return taken


def give(blocks: list[Blocks]) -> None:
    # Backwards, so that the pool hands them out in the same order again.
    for block in reversed(blocks):
        block.release()


def index_of(pool: BlockPool, blocks: list[Blocks]) -> slice | torch.Tensor:
    """Rows of the pool's tensor; a slice, which copies nothing, where they follow each other."""
    numbers = [block.indices[0] for block in blocks]
    first = numbers[0]
    if numbers == list(range(first, first + len(numbers))):
        return slice(first, first + len(numbers))
    return torch.tensor(numbers, device=pool.device)


def rows_of(
    pool: BlockPool, blocks: list[Blocks], index: slice | torch.Tensor | None = None
) -> torch.Tensor:
    """Blocks, one in each row; a view where they follow each other in the pool."""
    index = index_of(pool, blocks) if index is None else index
    if isinstance(index, slice):
        return pool.tensor[index]
    return pool.tensor.index_select(0, index)


def write_rows(pool: BlockPool, blocks: list[Blocks], rows_nb: torch.Tensor) -> None:
    """Copies rows, which may themselves be blocks of the pool, into blocks."""
    index = index_of(pool, blocks)
    if isinstance(index, slice):
        pool.tensor[index].copy_(rows_nb)
    else:
        # torch refuses to write by index what lies in the same memory.
        pool.tensor[index] = rows_nb.clone()
