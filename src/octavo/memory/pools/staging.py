"""A few buffers of one size for bytes on their way between disk, host and device."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import torch

from octavo.memory.ledger import Kind, Ledger, Place
from octavo.memory.pools.parts import Fence
from octavo.memory.pools.slots import SlotHandle, SlotRow


class StagingPool(SlotRow):
    """Aligned buffers, handed out and returned; who finds none waits.

    Args:
        ledger: counts all of them under ``kind`` in ``place`` for owner ``name``.
        buffers, nbytes: how many, and bytes of each.
        pinned: page-locked, for copies that overlap with computing; needs CUDA.

    Raises:
        BudgetExceeded: there is no room for all buffers.
        ConfigError: no such buffers can be.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        name: str = "staging",
        buffers: int,
        nbytes: int,
        kind: Kind = "staging",
        place: Place = "host",
        device: torch.device | str = "cpu",
        pinned: bool = False,
        poison: bool = False,
    ) -> None:
        super().__init__(
            ledger,
            name=name,
            slots=buffers,
            slot_nbytes=nbytes,
            kind=kind,
            place=place,
            device=device,
            pinned=pinned,
            poison=poison,
        )

    def acquire(self, *, timeout: float | None = None, owner: str = "") -> Staged:
        """A buffer, as soon as one is free.

        Args:
            timeout: seconds to wait at most.
            owner: for refusals and reports of leaks.

        Raises:
            BudgetExceeded: none became free in time; says who holds them.
            ReleasedError: the pool is closed, or was while waiting.
        """
        slot = self._claim(owner, timeout)
        if slot is None:
            raise self._refusal(owner, timeout)
        return Staged(self, slot, owner)

    def try_acquire(self, *, owner: str = "") -> Staged | None:
        """A buffer if one is free now."""
        slot = self._claim(owner, 0.0)
        return Staged(self, slot, owner) if slot is not None else None


class Staged(SlotHandle):
    """A staging buffer, held until :meth:`release`."""

    __slots__ = ()

    def release(self, after: Fence | None = None) -> None:
        """Gives the buffer back. Harmless when repeated.

        Args:
            after: recorded behind a copy that still uses the buffer; the next one to get it
                waits for that.
        """
        self._row._release(self, after)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()
