"""A plan in words and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from octavo.hardware.plan_types import Plan, Residency

_MB = 1_000_000


def megabytes(nbytes: int) -> str:
    """``"1 234.5 MB"``, of 10**6 bytes."""
    return f"{nbytes / _MB:,.1f} MB".replace(",", " ")


def explain(plan: Plan) -> str:
    """The sum of each phase line by line, then what was decided."""
    work = plan.workload
    rows = [
        f"{plan.model} ({plan.family}) on {plan.device}, budget {megabytes(plan.budget)}",
        f"{plan.batch} request(s) at a time: prompt of {plan.prompt_tokens} tokens, "
        f"{work.new} new, {work.pictures} picture(s) of {work.size[0]} x {work.size[1]} pixels",
    ]
    rows += [f"  {held.component}: {_held(held)}" for held in plan.components]
    highest = plan.highest
    for phase in plan.phases:
        rows.append(f"{phase.name}{' (the highest)' if phase is highest else ''}")
        rows += [f"  {line.name:<40} {megabytes(line.nbytes):>14}" for line in phase.lines]
        rows.append(f"  {'total':<40} {megabytes(phase.nbytes):>14}")
    verdict = "fits" if plan.fits else "does not fit"
    rows.append(
        f"peak {megabytes(plan.peak)} of {megabytes(plan.budget)}: {verdict}, "
        f"{megabytes(abs(plan.budget - plan.peak))} {'free' if plan.fits else 'too much'}"
        + (f" ({megabytes(plan.reserve)} stay free)" if plan.reserve else "")
    )
    return "\n".join([*rows, *(f"note: {note}" for note in plan.notes)])


def _held(held: Residency) -> str:
    text = f"{held.precision}, {megabytes(held.total_bytes)}"
    if held.streamed:
        text += (
            f", {len(held.resident)} of {held.layers} layers stay, the others through "
            f"{held.slots} slots of {megabytes(held.slot_bytes)} from {held.source}"
        )
    return text


def as_dict(plan: Plan) -> dict[str, Any]:
    """Everything of the plan; sizes are bytes."""
    return {
        "model": plan.model,
        "family": plan.family,
        "device": plan.device,
        "budget": plan.budget,
        "reserve": plan.reserve,
        "base": plan.base,
        "peak": plan.peak,
        "fits": plan.fits,
        "workload": asdict(plan.workload),
        "components": [
            {
                "name": held.component,
                "precision": str(held.precision),
                "compute": str(held.compute),
                "total_bytes": held.total_bytes,
                "held_bytes": held.held_bytes,
                "layers": held.layers,
                "resident": list(held.resident),
                "streamed": list(held.streamed),
                "slots": held.slots,
                "slot_bytes": held.slot_bytes,
                "source": held.source,
            }
            for held in plan.components
        ],
        "prompt_tokens": plan.prompt_tokens,
        "kv_tokens": plan.kv_tokens,
        "kv_bytes": plan.kv_bytes,
        "feature_bytes": plan.feature_bytes,
        "prefill_chunk": plan.prefill_chunk,
        "vision_batch": plan.vision_batch,
        "batch": plan.batch,
        "phases": [
            {
                "name": phase.name,
                "bytes": phase.nbytes,
                "lines": [{"name": line.name, "bytes": line.nbytes} for line in phase.lines],
            }
            for phase in plan.phases
        ],
        "notes": list(plan.notes),
    }
