"""How a model, a workload and a budget fit together: pure arithmetic, nothing is loaded.

A plan says for every component in what precision and where its weights are held, how large the
caches are, and what the process holds in each phase at most: ``load``, ``vision``, ``prefill``,
``decode``. Among plans that hold, the first of these is taken: everything resident; layers
streamed, those of towers first. A precision is never lowered unless it is ``"auto"``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from octavo.errors import ConfigError
from octavo.hardware.plan_advice import refusal
from octavo.hardware.plan_search import Ask, Wanted, best, spread
from octavo.hardware.plan_types import DECODER, TOWERS, Line, Phase, Plan, Residency
from octavo.hardware.plan_workload import Workload
from octavo.hardware.spec import ModelSpec

__all__ = [
    "DECODER",
    "Line",
    "Phase",
    "Plan",
    "Residency",
    "Wanted",
    "Workload",
    "plan",
    "spare",
    "spread",
]

#: Bytes that Python with torch and transformers holds before a model is loaded
#: on a CPU: measured with torch 2.13 and transformers 5.23 on Linux, x86-64.
CPU_BASE: Final = 380_000_000
#: Bytes of device memory that a CUDA context with its libraries takes.
CUDA_BASE: Final = 500_000_000


def spare(budget: int) -> int:
    """What is left free of a budget, for the error of predictions: see ``docs/models.md``."""
    return budget // 100


def plan(
    spec: ModelSpec,
    workload: Workload | None = None,
    *,
    budget: int,
    device: str = "cpu",
    base: int | None = None,
    reserve: int = 0,
    host_budget: int | None = None,
    precisions: Mapping[str, Wanted] | None = None,
    prefill_chunk: int | None = None,
    vision_batch: int | None = None,
    stream: bool | None = None,
    ring_slots: int = 2,
) -> Plan:
    """The first plan that holds.

    Args:
        spec: of the checkpoint.
        workload: the largest request; text only by default.
        budget: bytes of the process (``cpu``) or of the device.
        base: bytes that are taken before; measured ones are better than the defaults.
        reserve: bytes of it that stay free: peaks are predicted to a few percent, not exactly.
        host_budget: bytes of main memory for layers that are streamed to a device; None or too
            little streams them from disk.
        precisions: by component name; one that is not named or None keeps the stored type,
            ``"auto"`` keeps it where that holds and else goes to int8, then int4.
        prefill_chunk, vision_batch: tokens and pictures of one pass; None is all.
        stream: True streams every layer that can be; False forbids it; None decides.
        ring_slots: slots for streamed layers, at least 2.

    Raises:
        BudgetExceeded: nothing holds; names the largest lines and the smallest change.
        ConfigError: an unknown component, or a workload that the model does not take.
    """
    given = dict(precisions or {})
    known = [component.name for component in spec.components]
    for name in given:
        if name not in known and name not in ("language", "projector", *TOWERS):
            raise ConfigError(
                f"{name!r} is not a component", where=spec.name, next_step=f"use {known}"
            )
    if ring_slots < 2:
        raise ConfigError("ring_slots must be at least 2: one is read while one is used")
    ask = Ask(
        spec=spec,
        workload=workload or Workload(),
        budget=budget,
        reserve=reserve,
        device=device,
        base=(CPU_BASE if device == "cpu" else CUDA_BASE) if base is None else base,
        host_budget=host_budget,
        precisions=given,
        prefill_chunk=prefill_chunk,
        vision_batch=vision_batch,
        stream=stream,
        ring_slots=ring_slots,
    )
    found = best(ask)
    if not found.fits:
        raise refusal(ask, found)
    return found
