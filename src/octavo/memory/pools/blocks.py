"""Equal blocks with reference counts, for paged attention and the like.

Tensor names end in ``n`` (blocks) and ``...`` (the shape of one block).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import torch

from octavo.errors import BudgetExceeded, ConfigError, ReleasedError
from octavo.memory.buffers import holders_of
from octavo.memory.ledger import Kind, Ledger, Place
from octavo.memory.pools.growing import POISON, GrowingPool
from octavo.memory.pools.handles import Blocks
from octavo.memory.pools.slab import Slab
from octavo.memory.pools.stats import BlockStats
from octavo.memory.sizes import format_bytes


class BlockPool(GrowingPool[list[int]]):
    """Blocks of one shape and dtype, numbered so that kernels can index them.

    Block ``i`` keeps its number and its address as long as anybody holds it. By default all
    blocks lie in one slab, allocated at first use: :attr:`tensor` is then the single tensor
    that kernels for paged attention want. With ``slab_blocks`` the pool grows slab by slab, and
    :meth:`locate` turns a number into a slab and a row. Full low slabs are preferred, so that
    high ones fall idle and can be trimmed; within a slab the block released last goes first.

    Blocks that come back while a tensor from ``handle[i]`` is alive wait until it is gone.
    Holders of the whole slab tensor are not waited for: they use block numbers. Work that other
    streams of an accelerator still do on a block must end before its release.

    Args:
        ledger: counts the slabs under ``kind`` in ``place`` for owner ``name``.
        block_shape, dtype: of one block.
        blocks, nbytes: the limit; one of the two.
        device: where the blocks lie.
        slab_blocks: blocks per slab; all by default.
        pinned: page-locked main memory.
        poison: fill released blocks with ``0xFF`` (NaN in float types), to find stale use.

    Raises:
        ConfigError: no such pool can be.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        name: str,
        block_shape: Sequence[int],
        dtype: torch.dtype,
        blocks: int | None = None,
        nbytes: int | None = None,
        device: torch.device | str = "cpu",
        place: Place = "device",
        kind: Kind = "kv",
        slab_blocks: int | None = None,
        pinned: bool = False,
        poison: bool = False,
    ) -> None:
        self.block_shape = tuple(block_shape)
        self.dtype = dtype
        self.block_nbytes = math.prod(self.block_shape) * dtype.itemsize
        self.limit = _limit(name, self.block_nbytes, blocks, nbytes)
        self.slab_blocks = min(slab_blocks or self.limit, self.limit)
        self._slabs: dict[int, Slab] = {}
        self._free: dict[int, list[int]] = {}
        self._references: dict[int, int] = {}
        self._shown: dict[int, torch.Tensor] = {}
        self._lent: set[int] = set()
        self._owners: Counter[str] = Counter()
        super().__init__(
            ledger,
            name=name,
            kind=kind,
            place=place,
            device=device,
            pinned=pinned,
            poison=poison,
        )

    def blocks(self, count: int, *, owner: str = "") -> Blocks:
        """Takes ``count`` blocks, with whatever was in them.

        Args:
            owner: for refusals and reports of leaks.

        Raises:
            BudgetExceeded: there are not so many; says who holds them. None is taken.
        """
        return Blocks(self, owner, self._take_blocks(count, owner))

    @property
    def tensor(self) -> torch.Tensor:
        """All blocks: ``[limit, *block_shape]``. Allocates them if nobody has yet.

        While it is held the slab is not trimmed.

        Raises:
            BudgetExceeded: there is no room for them.
            ConfigError: the pool has several slabs.
        """
        if self.slab_blocks < self.limit:
            raise ConfigError(
                f"the {self.limit} blocks lie in slabs of {self.slab_blocks}",
                where=self.name,
                next_step="use slab() and locate(), or leave slab_blocks out",
            )
        return self.slab(0)

    def slab(self, number: int) -> torch.Tensor:
        """The blocks of one slab: ``[slab_blocks, *block_shape]``, fewer in the last.

        The first is allocated if need be.

        Raises:
            BudgetExceeded: there is no room for it.
            ReleasedError: there is no such slab now.
        """
        while True:
            with self._lock:
                self._check_open()
                slab = self._slabs.get(number)
                if slab is not None:
                    return self._whole(slab)
            if number or self._slabs:
                raise ReleasedError(
                    f"slab {number} is not allocated",
                    where=self.name,
                    next_step="hold blocks of it first",
                )
            self.blocks(1, owner=self.name).release()

    def locate(self, index: int) -> tuple[int, int]:
        """The slab and the row in it of block ``index``."""
        return divmod(index, self.slab_blocks)

    def stats(self) -> BlockStats:
        with self._lock:
            self._settle()
            # No byte of a slab beyond its whole blocks (padding) is free to hand out.
            free = sum(map(len, self._free.values())) * self.block_nbytes
            return BlockStats(
                name=self.name,
                kind=self.kind,
                place=self.place,
                slabs=len(self._slabs),
                nbytes=sum(slab.nbytes for slab in self._slabs.values()),
                used=self._used,
                peak=self._peak,
                lent=len(self._lent) * self.block_nbytes,
                free=free,
                largest_free=free,
                handles=self._handles,
                leaked=dict(self._leaked),
                refused=self._refused,
                block_nbytes=self.block_nbytes,
                limit_blocks=self.limit,
                owners=dict(self._owners),
            )

    # For handles.

    def _take_blocks(self, count: int, owner: str) -> list[int]:
        if count < 0:
            raise ValueError(f"cannot take {count} blocks")
        return self._obtain(
            lambda: self._take(count, owner), lambda: [self._next_slab(count, owner)]
        )

    def _extend(self, handle: Blocks, count: int) -> None:
        more = self._take_blocks(count, handle.owner)
        with self._lock:
            self._check_open()
            self._handles -= 1
            if handle._share is None:
                # Released by another thread meanwhile.
                self._give(handle.owner, more)
            handle._held().extend(more)

    def _share(self, handle: Blocks, count: int | None, owner: str) -> Blocks:
        with self._lock:
            shared = handle._held()[:count]
            for index in shared:
                self._references[index] += 1
            self._owners[owner] += len(shared)
            self._handles += 1
        return Blocks(self, owner, shared)

    def _show(self, handle: Blocks, position: int) -> torch.Tensor:
        with self._lock:
            index = handle._held()[position]
            shown = self._shown.get(index)
            if shown is None:
                number, row = self.locate(index)
                start = row * self.block_nbytes
                shown = self._slabs[number].piece(start, self.block_nbytes)
                self._shown[index] = shown
            # A new tensor each time: holders of the first one could not be told from the pool.
            return shown.view(self.dtype).view(self.block_shape)

    def _references_to(self, handle: Blocks, position: int) -> int:
        with self._lock:
            return self._references[handle._held()[position]]

    # Under the lock.

    def _take(self, count: int, owner: str) -> list[int] | None:
        if sum(map(len, self._free.values())) < count:
            return None
        taken: list[int] = []
        for number in sorted(self._free):
            free = self._free[number]
            while free and len(taken) < count:
                taken.append(free.pop())
        self._references.update(dict.fromkeys(taken, 1))
        self._owners[owner] += count
        self._count(count * self.block_nbytes)
        return taken

    def _give(self, owner: str, share: list[int]) -> None:
        self._owners[owner] -= len(share)
        if not self._owners[owner]:
            del self._owners[owner]
        # Backwards: the stack then hands them out in the same order again.
        for index in reversed(share):
            self._references[index] -= 1
            if not self._references[index]:
                del self._references[index]
                self._used -= self.block_nbytes
                self._lent.add(index)
                self._take_back(index)

    def _sweep(self) -> None:
        for index in list(self._lent):
            self._take_back(index)

    def _take_back(self, index: int) -> None:
        shown = self._shown.get(index)
        if shown is not None and holders_of(shown) > 1:
            return
        self._shown.pop(index, None)
        self._lent.discard(index)
        number, row = self.locate(index)
        if self._poison:
            start = row * self.block_nbytes
            self._slabs[number].data[start : start + self.block_nbytes].fill_(POISON)
        self._free[number].append(index)

    def _next_slab(self, count: int, owner: str) -> int:
        """Bytes of the lowest slab that there is not."""
        missing = [number for number in range(self._slab_count()) if number not in self._slabs]
        free = sum(map(len, self._free.values()))
        if free + sum(map(self._rows, missing)) < count:
            raise self._refusal(count, owner)
        return self._rows(missing[0]) * self.block_nbytes

    def _slab_count(self) -> int:
        return -(-self.limit // self.slab_blocks)

    def _rows(self, number: int) -> int:
        return min(self.slab_blocks, self.limit - number * self.slab_blocks)

    def _add(self, slab: Slab) -> None:
        number = min(set(range(self._slab_count())) - set(self._slabs))
        first = number * self.slab_blocks
        self._slabs[number] = slab
        self._free[number] = list(reversed(range(first, first + self._rows(number))))

    def _whole(self, slab: Slab) -> torch.Tensor:
        rows = slab.nbytes // self.block_nbytes
        number = next(number for number, mine in self._slabs.items() if mine is slab)
        rows = min(rows, self._rows(number))
        blocks = slab.data[: rows * self.block_nbytes].view(self.dtype)
        return blocks.view(rows, *self.block_shape)

    def _free_idle(self, keep: int) -> int:
        if self._growing:
            # More blocks were wanted than are idle: to give these up would gain nothing.
            return 0
        freed = 0
        for number, slab in sorted(self._slabs.items(), reverse=True):
            left = sum(slab.nbytes for slab in self._slabs.values()) - slab.nbytes
            if left >= keep and len(self._free[number]) == self._rows(number) and slab.free():
                del self._slabs[number], self._free[number]
                freed += slab.nbytes
        return freed

    def _abandon(self) -> list[Slab]:
        slabs = list(self._slabs.values())
        for table in (self._slabs, self._free, self._references, self._shown, self._lent):
            table.clear()
        self._owners.clear()
        self._used = self._handles = 0
        return slabs

    def _refusal(self, count: int, owner: str) -> BudgetExceeded:
        free = sum(map(len, self._free.values()))
        holders = ", ".join(
            f"{who or 'nameless'} {held}" for who, held in self._owners.most_common(4)
        )
        lent = f", and {len(self._lent)} wait for tensors over them" if self._lent else ""
        return BudgetExceeded(
            f"{owner or 'nameless'} wants {count} blocks of {format_bytes(self.block_nbytes)}, "
            f"{free} of {self.limit} are free; held by {holders or 'nobody'}{lent}",
            where=f"pool {self.name}",
            next_step="release blocks, or give the pool more",
        )


def _limit(name: str, block_nbytes: int, blocks: int | None, nbytes: int | None) -> int:
    if block_nbytes == 0:
        raise ConfigError("a block has no bytes", where=name, next_step="give a larger block_shape")
    if (blocks is None) == (nbytes is None):
        raise ConfigError("a pool has one limit", where=name, next_step="give blocks or nbytes")
    limit = blocks if blocks is not None else (nbytes or 0) // block_nbytes
    if limit < 1:
        raise ConfigError(
            f"there is no room for one block of {format_bytes(block_nbytes)}",
            where=name,
            next_step=f"give at least {block_nbytes} bytes",
        )
    return limit
