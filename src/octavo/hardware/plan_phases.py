"""What is there at once in each phase of a request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from octavo.hardware.plan_costs import Costs, Working
from octavo.hardware.plan_types import Line, Phase, Residency


def phases(held: Sequence[Residency], needed: Costs, base: int, staging: int) -> tuple[Phase, ...]:
    """In order of time; those without work are left out."""

    def phase(name: str, parts: Iterable[Residency], *lines: Line) -> Phase:
        return Phase(
            name,
            (
                Line("process", base),
                *(line for part in parts for line in _weights(part)),
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


def _weights(part: Residency) -> Iterable[Line]:
    yield Line(f"{part.component} weights ({part.precision})", part.held_bytes, part.component)
    if part.ring_bytes:
        yield Line(f"{part.component} ring, {part.slots} slots", part.ring_bytes, part.component)
