"""What is there at once in each phase of a request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from octavo.hardware.plan_costs import Costs, Working
from octavo.hardware.plan_types import Line, Phase, Residency, ring_bytes

#: Whose the slots of streamed layers are.
RING = "ring"


def phases(
    held: Sequence[Residency], needed: Costs, base: int, staging: int, device: str
) -> tuple[Phase, ...]:
    """In order of time; those without work are left out."""
    ring = ring_bytes(held, device)

    def phase(name: str, parts: Iterable[Residency], *lines: Line) -> Phase:
        return Phase(
            name,
            (
                Line("process", base),
                *(_weights(part) for part in parts),
                *((Line("ring", ring, RING),) if ring else ()),
                *(line for line in lines if line.nbytes),
            ),
        )

    features = Line("features", needed.features)
    made = [phase("load", held, Line("staging", staging))]
    workspace = Line("libraries' workspace", needed.workspace)
    inputs = Line("inputs", needed.inputs)
    for name, working in (("vision", needed.vision), ("audio", needed.audio)):
        if working is not None:
            made.append(phase(name, held, inputs, workspace, _line(working)))
    if needed.prefill is not None:
        before = Line("KV cache", needed.kv_prompt)
        name = "prefill" if needed.kv else "text"
        made.append(phase(name, held, inputs, features, workspace, before, _line(needed.prefill)))
    if needed.decode is not None:
        kv = Line("KV cache", needed.kv)
        made.append(phase("decode", held, inputs, workspace, kv, _line(needed.decode)))
    return tuple(made)


def _line(working: Working) -> Line:
    return Line(f"activations ({working.name})", working.nbytes)


def _weights(part: Residency) -> Line:
    return Line(f"{part.component} weights ({part.precision})", part.held_bytes, part.component)
