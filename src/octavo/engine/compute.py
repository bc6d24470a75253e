"""One step on the device: features of media that are new, then the decoder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from octavo.engine.features import FeatureCache, FeatureKey
from octavo.engine.recovery import Shortage, guarded
from octavo.engine.sampling import Choice, choose_all
from octavo.engine.tower import Tower, TowerBudget, run
from octavo.memory.buffers import reusing_freed_memory
from octavo.models.model import failure_of
from octavo.types import Failure

if TYPE_CHECKING:
    import torch
    from torch import nn

    from octavo.engine.backend import KvBackend
    from octavo.engine.live import Live
    from octavo.engine.runner import Runner
    from octavo.engine.stats import EngineStats
    from octavo.engine.step import Step
    from octavo.memory.ledger import Reservation

#: Tokens from which on a step's intermediate results are worth keeping from layer to layer.
_LARGE: Final = 32


@dataclass(frozen=True, slots=True, eq=False)
class StepOutcome:
    """What came of a step.

    Attributes:
        choices: a token for each slice that samples, in order; None when it broke off.
        shortage: of memory, that it broke off for.
        failure: what broke it off otherwise.
    """

    choices: list[Choice] | None = None
    shortage: Shortage | None = None
    failure: Failure | None = None


class Compute:
    """
    Args:
        module, tower: of the model; None where it takes text alone.
        features: by content; None where there are no media.
        tower_budget: of passes through the tower; may be set to another between steps.
        reserved: the features' bytes in the model's ledger; released with this.
    """

    def __init__(
        self,
        module: nn.Module,
        runner: Runner,
        kv: KvBackend,
        tower: Tower | None,
        features: FeatureCache | None,
        tower_budget: TowerBudget,
        reserved: Reservation,
    ) -> None:
        self._module: Any = module
        self._runner, self.kv = runner, kv
        self._tower, self.features = tower, features
        self.tower_budget = tower_budget
        self._reserved = reserved
        self._held: dict[bytes, torch.Tensor] = {}

    def run(self, step: Step, live: Mapping[str, Live]) -> StepOutcome:
        """Computes a step. Whatever goes wrong, sequences are as they were."""
        for key in step.unseen:
            self._held.pop(key, None)
        try:
            outcome = guarded(lambda: self._choices(step, live))
        # The place that isolates requests: the engine finds out whose it is.
        except Exception as error:  # noqa: BLE001
            return StepOutcome(failure=failure_of(error))
        return StepOutcome(choices=outcome.value, shortage=outcome.shortage)

    @property
    def sees(self) -> bool:
        """Whether media go through a tower."""
        return self._tower is not None

    def forget_features(self) -> int:
        """Lets go of all features that no sequence holds; says how many there were."""
        if self.features is None:
            return 0
        return self.features.clear()

    def release(self, sequence_id: str) -> None:
        """A sequence is over."""
        self.kv.release(sequence_id)

    def facts(self, stats: EngineStats) -> EngineStats:
        """With what keys, values and features say."""
        made = self.features.stats if self.features is not None else None
        return replace(
            stats,
            feature_hits=made.hits if made is not None else 0,
            feature_misses=made.misses if made is not None else 0,
            kv_bytes=self.kv.nbytes,
            kv_blocks=self.kv.total_blocks,
            kv_block_tokens=self.kv.block_tokens,
        )

    def close(self) -> None:
        """Gives all memory back."""
        self._held = {}
        if self.features is not None:
            self.features.memory.close()
        self.kv.close()
        self._reserved.release()
        self._module = None
        self._runner.close()

    def _choices(self, step: Step, live: Mapping[str, Live]) -> list[Choice]:
        # What the tower freed goes back before the decoder asks for blocks of other sizes.
        with _reusing(step):
            self._look(step, live)
        with _reusing(step):
            return self._computed(step, live)

    def _look(self, step: Step, live: Mapping[str, Live]) -> None:
        for part in step.slices:
            for medium in part.media:
                if medium.key not in self._held:
                    self._held[medium.key] = self._see(medium.key, live[part.id])

    def _computed(self, step: Step, live: Mapping[str, Live]) -> list[Choice]:
        if not step.slices:
            self.kv.begin(step)
            self.kv.commit()
            return []
        prompts = {part.id: live[part.id].prompt for part in step.slices}
        choosers = [live[part.id].chooser for part in step.slices if part.samples]
        return self._runner.run(
            step, prompts, self._held, lambda logits_rv: choose_all(choosers, logits_rv)
        )

    def _see(self, key: bytes, live: Live) -> torch.Tensor:
        """Features ``[l, t, d]`` of one medium, from the cache or the tower."""
        assert self._tower is not None
        assert self.features is not None
        named = FeatureKey(key)
        found = self.features.get(named)
        if found is None:
            began = time.perf_counter()
            media = [live.medium(key)]
            ((found,),) = run(self._tower, self._module, media, self.tower_budget)
            self.features.put(named, found, seconds=time.perf_counter() - began)
        return found


def _reusing(step: Step) -> AbstractContextManager[None]:
    return reusing_freed_memory() if step.tokens >= _LARGE else nullcontext()
