"""What a pool did and holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from octavo.memory.ledger import Kind, Place


@dataclass(frozen=True, slots=True)
class PoolStats:
    """One pool at one moment; sizes in bytes.

    Attributes:
        slabs, nbytes: allocations, and what the ledger counts for them.
        used: in handles; ``peak`` is the most so far.
        lent: released, but a tensor that was handed out before still shows them; they are used
            again when it is gone.
        free: can be handed out without growing; ``largest_free`` is the largest free range.
        handles: not released.
        leaked: handles that were dropped without release, by owner; their bytes came back.
        refused: requests that ended in ``BudgetExceeded``.
    """

    name: str
    kind: Kind
    place: Place
    slabs: int
    nbytes: int
    used: int
    peak: int
    lent: int
    free: int
    largest_free: int
    handles: int
    leaked: Mapping[str, int]
    refused: int

    @property
    def fragmentation(self) -> float:
        """The part of the free bytes outside the largest free range: 0.0 is one range."""
        return 1.0 - self.largest_free / self.free if self.free else 0.0


@dataclass(frozen=True, slots=True)
class BlockStats(PoolStats):
    """The same for a pool of equal blocks; any free block serves, so nothing fragments.

    Attributes:
        block_nbytes: of one block.
        limit_blocks: the most blocks that the pool may have.
        owners: blocks by owner; one that two owners share counts for both.
    """

    block_nbytes: int
    limit_blocks: int
    owners: Mapping[str, int]

    @property
    def used_blocks(self) -> int:
        return self.used // self.block_nbytes

    @property
    def free_blocks(self) -> int:
        return self.free // self.block_nbytes


@dataclass(frozen=True, slots=True)
class SlotStats:
    """A fixed row of slots at one moment.

    Attributes:
        nbytes: what the ledger counts.
        slots, free: how many there are, and how many nobody has.
        peak: the most that were out at once.
        leaked: handles that were dropped without release, by owner.
        refused: waits that ended without a slot.
        stale: releases while a tensor over the slot was still alive; the slot is used again
            at once, so such a tensor shows what comes next.
    """

    name: str
    kind: Kind
    place: Place
    nbytes: int
    slots: int
    free: int
    peak: int
    leaked: Mapping[str, int]
    refused: int
    stale: int
