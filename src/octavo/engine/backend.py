"""What the engine asks of whatever keeps keys and values: one interface, two ways behind it.

All new tokens of a step lie behind each other in one row, sequence after sequence in the order of
the step's slices; so every layer that looks at single tokens runs once for all of them, and only
attention tells sequences apart.

Shapes: ``h`` heads of queries, ``k`` heads of keys, ``t`` new tokens of all slices, ``d`` channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    from octavo.engine.step import Step


class KvBackend(Protocol):
    """Keys and values of all sequences of a scheduler.

    Calls of one step: ``begin``, then ``attend`` once for each layer, then ``commit``; or
    ``rollback`` at any time after ``begin`` has returned. Used by one thread.

    Attributes:
        block_tokens, total_blocks: for the scheduler's books.
        shares: whether the scheduler's block numbers say where things lie, so that sequences which
            begin alike can hold the same blocks.
        nbytes: that are held on the device, free blocks included.
    """

    block_tokens: int
    total_blocks: int
    shares: bool

    @property
    def nbytes(self) -> int: ...

    def begin(self, step: Step) -> None:
        """Does what the step's lists say (dropped, preempted, saves, copies, restores) and makes
        room for its slices.

        Raises:
            BudgetExceeded, TierFull: there is no room; what was computed before is as it was.
        """
        ...

    def attend(
        self,
        layer: int,
        query_1htd: torch.Tensor,
        keys_1ktd: torch.Tensor,
        values_1ktd: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        """Each slice over its sequence up to each token itself: ``[1, t, h, d]``."""
        ...

    def commit(self) -> None:
        """The step's tokens are now part of their sequences. Must not fail for want of memory."""
        ...

    def rollback(self) -> None:
        """Nothing came of the step's slices; all sequences are as they were after ``begin``."""
        ...

    def release(self, sequence_id: str) -> None:
        """A sequence has ended and is not kept, or a kept one was forgotten. Harmless when it is
        not known."""
        ...

    def close(self) -> None:
        """Gives all memory back. Harmless when repeated."""
        ...
