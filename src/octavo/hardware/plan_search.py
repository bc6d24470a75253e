"""The order in which ways to hold a model are tried, and the sums of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from octavo.hardware.plan_costs import Costs, compute_type, costs
from octavo.hardware.plan_phases import phases
from octavo.hardware.plan_types import DECODER, TOWERS, Plan, Residency
from octavo.hardware.plan_workload import Workload
from octavo.hardware.spec import ComponentSpec, ModelSpec, Precision

Wanted = Precision | Literal["auto"] | None

#: What is cast or quantized passes through two chunks of this size a component.
LOAD_CHUNK: Final = 32 * 1024 * 1024
#: What is loaded as it is stored: pages that a tensor shares with another go through these.
BOUNCE: Final = 8 * 1024 * 1024
#: Rows on their way to int8 and int4: four threads, 4 MiB each.
QUANTIZING: Final = 16 * 1024 * 1024
#: What ``auto`` tries when the stored precision does not fit.
AUTO: Final = (Precision.INT8, Precision.INT4)


@dataclass(frozen=True, slots=True)
class Ask:
    """All that a plan is made from; what advice changes."""

    spec: ModelSpec
    workload: Workload
    budget: int
    reserve: int
    device: str
    base: int
    host_budget: int | None
    precisions: Mapping[str, Wanted]
    prefill_chunk: int | None
    vision_batch: int | None
    stream: bool | None
    ring_slots: int


def best(ask: Ask) -> Plan:
    """The first plan that fits, or else the one with the lowest peak."""
    tried: list[Plan] = []
    for precisions in _settled(ask):
        for held, needed in _residencies(ask, precisions):
            made = _assemble(ask, held, needed)
            if made.fits:
                return made
            tried.append(made)
    return min(tried, key=lambda made: made.peak)


def spread(layers: int, resident: int) -> tuple[int, ...]:
    """Numbers of ``resident`` of ``layers`` layers, evenly interleaved with the others."""
    return tuple((2 * number + 1) * layers // (2 * resident) for number in range(resident))


def _settled(ask: Ask) -> Iterator[dict[str, Precision]]:
    """Precisions by component, from the wanted ones down to what ``auto`` allows."""
    names = [component.name for component in ask.spec.components]
    auto = [name for name in names if ask.precisions.get(name) == "auto"]
    start: dict[str, Precision] = {}
    for name in names:
        wanted = ask.precisions.get(name)
        start[name] = ask.spec.stored if wanted is None or wanted == "auto" else wanted
    yield dict(start)
    # The decoder first: it is the larger part, and towers suffer more from rounding.
    for group in ([n for n in auto if n not in TOWERS], [n for n in auto if n in TOWERS]):
        for lower in AUTO if group else ():
            start |= dict.fromkeys(group, lower)
            yield dict(start)


def _residencies(
    ask: Ask, precisions: Mapping[str, Precision]
) -> Iterator[tuple[list[Residency], Costs]]:
    """Ways to hold the components, the preferred first, and what a request then takes."""

    def needed(*, streams: bool) -> Costs:
        return costs(
            ask.spec,
            ask.workload,
            precisions=precisions,
            device=ask.device,
            chunk=ask.prefill_chunk,
            vision_batch=ask.vision_batch,
            streams=streams,
        )

    whole = [_whole(part, precisions[part.name]) for part in ask.spec.components]
    if ask.stream is not True:
        yield whole, needed(streams=False)
    if ask.stream is not False:
        then = needed(streams=True)
        yield _streamed(ask, whole, then), then


def _whole(part: ComponentSpec, precision: Precision) -> Residency:
    compute = compute_type(precision)
    total = part.bytes_at(precision, compute)
    count = len(part.layers)
    return Residency(part.name, precision, compute, count, tuple(range(count)), total, total)


def _streamed(ask: Ask, held: list[Residency], needed: Costs) -> list[Residency]:
    """As many layers resident as fit. What sees and hears gives way first: it is used once a
    picture, a decoder once a token."""
    chosen = list(held)

    def turn(number: int) -> tuple[bool, int]:
        return held[number].component == DECODER, -held[number].total_bytes

    for number in sorted(range(len(held)), key=turn):
        part = ask.spec.components[number]
        if len(part.layers) < 2 or not _streamable(ask, held[number]):
            continue
        if _assemble(ask, chosen, needed).fits and ask.stream is not True:
            break
        chosen[number] = _most_resident(ask, chosen, number, needed)
    return chosen


def _streamable(ask: Ask, held: Residency) -> bool:
    """A layer is used as it is read: so in its stored precision, or in 8 or 4 bits from a copy on
    disk, which takes the user's word, and which only main memory is read into."""
    if held.precision is ask.spec.stored:
        return True
    asked = ask.precisions.get(held.component)
    return held.precision.quantized and asked is held.precision and ask.device == "cpu"


def _most_resident(ask: Ask, chosen: list[Residency], number: int, needed: Costs) -> Residency:
    """Streams component ``number`` no more than it must; entirely if even that is too little."""
    held, part = chosen[number], ask.spec.components[number]
    sizes = part.layer_bytes_at(held.precision, held.compute)
    least = _partly(ask, held, sizes, 0)
    low, high = 0, len(sizes) - 1
    while low < high:
        middle = (low + high + 1) // 2
        trial = _partly(ask, held, sizes, middle)
        made = _assemble(ask, [*chosen[:number], trial, *chosen[number + 1 :]], needed)
        if _own_peak(made, part.name) <= ask.budget - ask.reserve:
            low, least = middle, trial
        else:
            high = middle - 1
    return least


def _own_peak(made: Plan, component: str) -> int:
    """The highest phase in which the component is there."""
    return max(
        (
            phase.nbytes
            for phase in made.phases
            if any(line.of == component for line in phase.lines)
        ),
        default=made.peak,
    )


def _partly(ask: Ask, held: Residency, sizes: tuple[int, ...], resident: int) -> Residency:
    stay = spread(len(sizes), resident)
    streamed = sum(sizes) - sum(sizes[layer] for layer in stay)
    on_host = ask.device != "cpu" and ask.host_budget is not None and streamed <= ask.host_budget
    return replace(
        held,
        resident=stay,
        held_bytes=held.total_bytes - streamed,
        slot_bytes=max(sizes),
        slots=min(ask.ring_slots, len(sizes) - resident),
        source="host" if on_host else "disk",
    )


def _assemble(ask: Ask, held: list[Residency], needed: Costs) -> Plan:
    return Plan(
        model=ask.spec.name,
        family=ask.spec.family,
        device=ask.device,
        budget=ask.budget,
        reserve=ask.reserve,
        base=ask.base,
        workload=ask.workload,
        components=tuple(held),
        prompt_tokens=needed.prompt_tokens,
        kv_tokens=needed.kv_tokens,
        kv_bytes=needed.kv,
        feature_bytes=needed.features,
        prefill_chunk=ask.prefill_chunk,
        vision_batch=ask.vision_batch,
        batch=ask.workload.batch,
        phases=phases(held, needed, ask.base, _staging(ask, held), ask.device),
        notes=_notes(ask, held, needed),
    )


def _staging(ask: Ask, held: list[Residency]) -> int:
    cast = [part for part in held if part.precision is not ask.spec.stored]
    scratch = QUANTIZING if any(part.precision.quantized for part in cast) else 0
    return BOUNCE + scratch + sum(2 * min(LOAD_CHUNK, part.total_bytes) for part in cast)


def _notes(ask: Ask, held: list[Residency], needed: Costs) -> tuple[str, ...]:
    notes = []
    positions = ask.spec.text.positions if ask.spec.text is not None else None
    if positions is not None and needed.kv_tokens > positions:
        notes.append(
            f"prompt and answer are {needed.kv_tokens} tokens; the model was made for {positions}"
        )
    notes += [
        f"{part.component}: {len(part.streamed)} of {part.layers} layers are read from "
        f"{part.source} on every pass{_copy(ask, part)}"
        for part in held
        if part.streamed
    ]
    return tuple(notes)


def _copy(ask: Ask, held: Residency) -> str:
    if held.precision is ask.spec.stored:
        return ""
    return f", from a copy in {held.precision} that is made once"
