"""What an engine gives up when memory runs out: see :class:`octavo.engine.recovery.Relief`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import torch

from octavo.engine.tower import TowerBudget

if TYPE_CHECKING:
    from octavo.engine.compute import Compute
    from octavo.engine.scheduler import Scheduler

#: The shortest chunks of a prompt and of a tower's patches.
_TOKENS: Final = 16
_PATCHES: Final = 256
#: The first chunk of a tower that had none.
_FIRST: Final = 4096


class EngineRelief:
    """Between two steps only.

    Args:
        scheduler, compute: whose limits are lowered, and raised again up to what they are now.
    """

    def __init__(self, scheduler: Scheduler, compute: Compute) -> None:
        self._scheduler, self._compute = scheduler, compute
        self._limits = scheduler.limits
        self._tower = compute.tower_budget

    def drop_idle(self) -> str | None:
        """Features and KV blocks that nobody holds, and what allocators keep for later."""
        blocks = self._scheduler.blocks.forget_cached()
        features = self._compute.forget_features()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if not blocks and not features:
            return None
        return f"{blocks} KV blocks and features of {features} media that were kept for later"

    def offload(self) -> str | None:
        """The youngest sequence gives way."""
        running = len(self._scheduler.running)
        if running < 2:
            return None
        self._running(running - 1)
        return f"one of {running} running requests"

    def smaller_chunk(self) -> str | None:
        """Half the tokens of a prompt in one step."""
        limits = self._scheduler.limits
        # Longer than any prompt at hand, a chunk is not what costs memory.
        longest = max((sequence.pending for sequence in self._scheduler.running), default=0)
        chunk = max(min(limits.prefill_chunk, longest) // 2, _TOKENS)
        if chunk >= min(limits.prefill_chunk, longest):
            return None
        self._scheduler.limits = replace(
            limits, prefill_chunk=chunk, max_tokens_per_step=max(chunk, limits.max_running)
        )
        return f"chunks of {limits.prefill_chunk} tokens for chunks of {chunk}"

    def smaller_tower(self) -> str | None:
        """Fewer patches at once."""
        if not self._compute.sees:
            return None
        budget = self._compute.tower_budget
        before = budget.chunk or 2 * _FIRST
        if before <= _PATCHES:
            return None
        self._compute.tower_budget = replace(budget, patches=0, chunk=before // 2)
        return f"towers in chunks of {before // 2} patches"

    def smaller_batch(self) -> str | None:
        """Half the sequences at a time."""
        before = min(self._scheduler.limits.max_running, len(self._scheduler.running))
        if before < 2:
            return None
        self._running(before // 2)
        return f"{before} requests at a time for {before // 2}"

    def restore(self) -> bool:
        """One notch towards what was planned."""
        full, now = self._limits, self._scheduler.limits
        self._scheduler.limits = replace(
            now,
            max_running=min(2 * now.max_running, full.max_running),
            prefill_chunk=min(2 * now.prefill_chunk, full.prefill_chunk),
            max_tokens_per_step=min(2 * now.max_tokens_per_step, full.max_tokens_per_step),
        )
        self._compute.tower_budget = self._larger(self._compute.tower_budget)
        return self._scheduler.limits == full and self._compute.tower_budget == self._tower

    def _larger(self, budget: TowerBudget) -> TowerBudget:
        if budget.chunk is None or 2 * budget.chunk >= (self._tower.chunk or 2 * _FIRST):
            return self._tower
        return replace(budget, chunk=2 * budget.chunk)

    def _running(self, count: int) -> None:
        self._scheduler.limits = replace(self._scheduler.limits, max_running=count)
