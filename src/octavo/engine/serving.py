"""Puts an engine over a loaded model: what its caches may take, how large its steps are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from octavo.engine.blocks import Blocks
from octavo.engine.cache import ATTENTION, shape_of
from octavo.engine.compute import Compute
from octavo.engine.decoders import DECODERS, unserved
from octavo.engine.engine import Engine
from octavo.engine.features import FeatureCache
from octavo.engine.features_mark import ModelMark
from octavo.engine.intake import Intake
from octavo.engine.kv_layout import BLOCK_TOKENS
from octavo.engine.limits import Limits
from octavo.engine.relief import EngineRelief
from octavo.engine.runner import Runner
from octavo.engine.scheduler import Scheduler
from octavo.engine.serving_kv import KvWishes, keep_kv
from octavo.engine.tower import TowerBudget, budget_for, tower_of
from octavo.engine.tower_families import TOWERS
from octavo.engine.watch import MemoryWatch
from octavo.hardware.plan_costs import step_tokens
from octavo.hardware.spec import Precision
from octavo.memory.manager import MemoryManager

if TYPE_CHECKING:
    from pathlib import Path

    from octavo.hardware.plan import Plan
    from octavo.hardware.spec import ModelSpec
    from octavo.memory.ledger import Place
    from octavo.models.model import Model

#: Sequences at a time.
_RUNNING: Final = 64
#: Of what the plan leaves free, features get this part, and no more than so many bytes.
_FEATURE_SHARE: Final = 4
_FEATURES: Final = 512 << 20
#: Pixels of so many bytes may wait for the tower.
_INPUTS: Final = 64 << 20
_DTYPES: Final = {
    Precision.FP32: torch.float32,
    Precision.BF16: torch.bfloat16,
    Precision.FP16: torch.float16,
}


@dataclass(frozen=True, slots=True)
class Room:
    """What a plan leaves for caches, in bytes."""

    kv: int
    features: int


def room_in(plan: Plan) -> Room:
    """What caches may take beside everything else, in every phase."""
    caches = ("KV cache", "features")
    most = max(
        sum(line.nbytes for line in phase.lines if line.name not in caches) for phase in plan.phases
    )
    free = max(plan.budget - plan.reserve - most, 0)
    features = 0
    if plan.feature_bytes:
        spare = min(max(free - plan.kv_bytes, 0) // _FEATURE_SHARE, _FEATURES)
        features = max(plan.feature_bytes, spare)
    return Room(max(free - features, plan.kv_bytes), features)


def use_engine(
    model: Model,
    precision: str | None = None,
    max_length: int | None = None,
    disk: tuple[str | Path, int | str] | None = None,
) -> str | None:
    """Has ``model`` answer its requests together from now on.

    Args:
        precision: of keys and values: ``exact``, ``int8`` or ``int4``; ``exact`` by default.
        max_length: tokens of prompt and answer at most; a longer request fails, and says so.
        disk: a folder, and bytes of it for keys and values that do not fit.

    Returns:
        Why it answers one by one as before; None where the engine is in place.

    Raises:
        BudgetExceeded: the ledger has no room for keys and values.
        ConfigError: layers of a kind that is not served.
    """
    module: Any = model.module
    reason = unserved(model.family.name, module.config) if model.family.paged else "no decoder"
    if reason is not None:
        return reason
    wishes = KvWishes(precision or "exact", max_length, disk)
    plan, ledger = model.plan, model.ledger
    assert plan is not None, "paged families are loaded by component"
    assert ledger is not None
    dtype = _DTYPES[plan.component("language").compute]
    shape = shape_of(module.config, dtype)
    place: Place = "host" if plan.device == "cpu" else "device"
    room = room_in(plan)
    limits = limits_for(plan)
    kept = keep_kv(ledger, plan, shape, wishes, room.kv, model.device, limits)
    kv = kept.kv
    held = ledger.reserve(place, "features", room.features, "feature cache")
    tower = tower_of(model.family) if model.family.name in TOWERS else None
    features = None
    if tower is not None:
        features = FeatureCache(
            MemoryManager(device=room.features, host=0, level="minimal", on=model.device)
        )
    decoder = DECODERS[model.family.name](module, model.device)
    module.set_attn_implementation(ATTENTION)
    scheduler = Scheduler(
        Blocks(kv.total_blocks, kv.block_tokens),
        kept.limits,
        feature_bytes=room.features,
        host_blocks=kept.parked_blocks,
        parks=lambda _sequence: kept.parked_blocks > 0,
        share=kv.shares,
    )
    kept.follow(scheduler)
    compute = Compute(
        module,
        Runner(decoder, kv, shape.layers),
        kv,
        tower,
        features,
        _tower_budget(model.spec, plan) if tower is not None else TowerBudget(patches=0),
        held,
    )
    intake = Intake(
        model,
        decoder,
        tower,
        # Nothing of another model comes into this cache, nor goes from it.
        ModelMark(model.family.name, os.urandom(16), b"", b""),
        _feature_bytes(module, dtype),
        max_length,
    )
    watch = MemoryWatch(plan.budget, device=decoder.device, plan=plan)
    relief = EngineRelief(scheduler, compute)
    model.engine = Engine(intake, scheduler, compute, relief, watch, model.turn, _input_room(plan))
    return None


def limits_for(plan: Plan) -> Limits:
    """How large a step may be: no larger than the prompts that were planned for. Where weights are
    streamed all of them go in one piece, because each piece reads the weights."""
    piece, most = step_tokens(
        plan.prompt_tokens, plan.prefill_chunk, plan.batch, streams=plan.streams
    )
    chunk, most = max(piece, BLOCK_TOKENS), max(most, BLOCK_TOKENS)
    running = min(max(_RUNNING, plan.batch), most)
    return Limits(max_tokens_per_step=most, max_running=running, prefill_chunk=chunk)


def _tower_budget(spec: ModelSpec, plan: Plan) -> TowerBudget:
    """As much at once as the plan has set aside for the tower."""
    names = [phase.name for phase in plan.phases]
    if "vision" not in names:
        return TowerBudget(patches=0)
    lines = plan.phase("vision").lines
    free = sum(line.nbytes for line in lines if line.name.startswith("activations"))
    itemsize = _DTYPES[plan.component("vision").compute].itemsize
    return budget_for(spec, itemsize, free, plan.device)


def _input_room(plan: Plan) -> int:
    """Pixels that may wait: those of the largest request, and of some small ones."""
    largest = [
        line.nbytes for phase in plan.phases for line in phase.lines if line.name == "inputs"
    ]
    return max(*largest, _INPUTS) if largest else _INPUTS


def _feature_bytes(module: Any, dtype: torch.dtype) -> int:
    """Of one token of a medium, deepstack layers included."""
    vision = getattr(module.config, "vision_config", None)
    taps = 1 + len(getattr(vision, "deepstack_visual_indexes", None) or ())
    text = module.config.get_text_config(decoder=True)
    return taps * int(text.hidden_size) * dtype.itemsize
