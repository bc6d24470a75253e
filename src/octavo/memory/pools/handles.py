"""What pools hand out: every use after release raises ``ReleasedError``."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar

import torch

from octavo.errors import ReleasedError

if TYPE_CHECKING:
    from octavo.memory.pools.arena import Arena, Range
    from octavo.memory.pools.blocks import BlockPool
    from octavo.memory.pools.growing import GrowingPool

Share = TypeVar("Share")


class Handle(ABC, Generic[Share]):
    """A share of a pool, held until :meth:`release`.

    One that is dropped without release gives its share back, once no tensor over it is alive,
    and is counted as a leak of its owner. Every use after release, or after the pool was
    closed, raises ``ReleasedError``.
    """

    __slots__ = ("_share", "owner")

    def __init__(self, owner: str, share: Share) -> None:
        self._share: Share | None = share
        self.owner = owner

    @abstractmethod
    def _home(self) -> GrowingPool[Share]: ...

    def release(self) -> None:
        """Gives the share back. Harmless when repeated."""
        self._home()._release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def __del__(self) -> None:
        if self._share is not None:
            self._home()._drop(self.owner, self._share)

    def _held(self) -> Share:
        share = self._share
        if share is None:
            raise ReleasedError(
                "this handle was released",
                where=f"pool {self._home().name}",
                next_step="take a new one, or release this one later",
            )
        self._home()._check_open()
        return share


class Blocks(Handle[list[int]]):
    """Blocks of a pool. Made by :meth:`BlockPool.blocks`."""

    __slots__ = ("_pool",)

    def __init__(self, pool: BlockPool, owner: str, indices: list[int]) -> None:
        super().__init__(owner, indices)
        self._pool = pool

    def __len__(self) -> int:
        return len(self._held())

    def __getitem__(self, position: int) -> torch.Tensor:
        """The block at a position of this handle: a view with the pool's block shape and dtype."""
        return self._pool._show(self, position)

    @property
    def indices(self) -> tuple[int, ...]:
        """Block numbers, in order: a row of the block table for paged attention."""
        return tuple(self._held())

    def extend(self, count: int) -> None:
        """Adds ``count`` blocks at the end, of this handle only, all or none.

        Raises:
            BudgetExceeded: there are not so many.
        """
        self._held()
        self._pool._extend(self, count)

    def share(self, count: int | None = None, *, owner: str | None = None) -> Blocks:
        """Another handle on the same blocks, or on the first ``count`` (a common prefix).

        A block is free when its last handle is released. Each sees what the other writes: see
        :meth:`references` before writing.
        """
        return self._pool._share(self, count, self.owner if owner is None else owner)

    def references(self, position: int) -> int:
        """How many handles hold that block; over 1, copy it before you write."""
        return self._pool._references_to(self, position)

    def __repr__(self) -> str:
        held = "released" if self._share is None else f"{len(self._share)} blocks"
        return f"<{held} of {self._pool.name} for {self.owner or 'nameless'}>"

    def _home(self) -> BlockPool:
        return self._pool


class Allocation(Handle["Range"]):
    """A tensor's room in an arena. Made by :meth:`Arena.allocate`.

    Attributes:
        shape, dtype, nbytes: of the tensor.
    """

    __slots__ = ("_arena", "dtype", "nbytes", "shape")

    def __init__(
        self,
        arena: Arena,
        owner: str,
        share: Range,
        shape: tuple[int, ...],
        dtype: torch.dtype,
    ) -> None:
        super().__init__(owner, share)
        self._arena = arena
        self.shape = shape
        self.dtype = dtype
        self.nbytes = math.prod(shape) * dtype.itemsize

    @property
    def tensor(self) -> torch.Tensor:
        """The tensor, of the shape and dtype that were asked for."""
        return self._arena._show(self)

    def __repr__(self) -> str:
        state = "released" if self._share is None else f"{self.dtype} {list(self.shape)}"
        return f"<{state} of {self._arena.name} for {self.owner or 'nameless'}>"

    def _home(self) -> Arena:
        return self._arena
