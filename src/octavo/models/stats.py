"""What a model holds and did, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from octavo.memory.ledger import Holding
    from octavo.models.component import ComponentFacts
    from octavo.models.model import Model


@dataclass(frozen=True, slots=True)
class ModelStats:
    """
    Attributes:
        components: each as it is now.
        holdings: who holds which bytes of the budget; ``ledger_bytes`` is their sum and
            ``ledger_peak`` the most there ever was, of weights, rings and caches.
        predicted_peak: of the plan, bytes of the process on a CPU; None without a plan.
        process_bytes: of the process now.
        streamed_bytes: of layers that were read while they were used.
        engine: what answered requests did; None for models that answer one by one.
    """

    components: Mapping[str, ComponentFacts]
    holdings: tuple[Holding, ...] = ()
    ledger_bytes: int = 0
    ledger_peak: int = 0
    predicted_peak: int | None = None
    process_bytes: int = 0
    streamed_bytes: int = 0
    engine: Any = field(default=None)


def stats_of(model: Model) -> ModelStats:
    """See :class:`ModelStats`."""
    places = ("device", "host")
    ledger = model.ledger
    states = [ledger.state(place) for place in places] if ledger is not None else []  # type: ignore[arg-type]
    return ModelStats(
        components=model.components,
        holdings=tuple(ledger.holdings()) if ledger is not None else (),
        ledger_bytes=sum(state.used for state in states),
        ledger_peak=sum(state.peak for state in states),
        predicted_peak=model.plan.peak if model.plan is not None else None,
        process_bytes=int(psutil.Process().memory_info().rss),
        streamed_bytes=sum(stream.read_bytes for stream in model.streams),
        engine=model.engine.stats() if model.engine is not None else None,
    )
