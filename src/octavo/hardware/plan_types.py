"""What a plan says: its parts, and the sums that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from octavo.hardware.plan_workload import Workload
from octavo.hardware.spec import Precision

#: Components that a request without media does not need.
TOWERS: Final = ("vision", "audio")
#: What writes, token by token.
DECODER: Final = "language"


@dataclass(frozen=True, slots=True)
class Residency:
    """How one component is held.

    Attributes:
        component: its name.
        precision: of its weights.
        compute: in what it computes, and what is not quantized is held.
        layers: how many repeated layers it has.
        resident: numbers of the layers that stay; all without streaming.
        slot_bytes: of the largest layer; 0 without streaming.
        slots: of the ring that the other layers are read into; 0 without streaming.
        total_bytes: all its weights at ``precision``.
        held_bytes: what stays in memory, the ring not counted.
        source: where streamed layers come from: ``disk`` or ``host``.
    """

    component: str
    precision: Precision
    compute: Precision
    layers: int
    resident: tuple[int, ...]
    total_bytes: int
    held_bytes: int
    slot_bytes: int = 0
    slots: int = 0
    source: Literal["disk", "host"] = "disk"

    @property
    def streamed(self) -> tuple[int, ...]:
        """Numbers of the layers that are read while the model runs, in order."""
        stay = frozenset(self.resident)
        return tuple(number for number in range(self.layers) if number not in stay)

    @property
    def ring_bytes(self) -> int:
        return self.slots * self.slot_bytes

    @property
    def nbytes(self) -> int:
        """What it takes while it is there, its share of a ring included."""
        return self.held_bytes + self.ring_bytes


def ring_bytes(held: Sequence[Residency], device: str) -> int:
    """Of all slots. In main memory those of the decoder lie over those of all else, which never
    runs beside it; on a device each component has its own."""
    decoder = sum(part.ring_bytes for part in held if part.component == DECODER)
    others = sum(part.ring_bytes for part in held if part.component != DECODER)
    return max(decoder, others) if device == "cpu" else decoder + others


@dataclass(frozen=True, slots=True)
class Line:
    """One summand; ``of`` is the component it belongs to, if any."""

    name: str
    nbytes: int
    of: str | None = None


@dataclass(frozen=True, slots=True)
class Phase:
    """What is held at once at the highest point of a phase."""

    name: str
    lines: tuple[Line, ...]

    @property
    def nbytes(self) -> int:
        return sum(line.nbytes for line in self.lines)


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer of :func:`plan`.

    Attributes:
        model, family: of the checkpoint.
        device: what it runs on: ``cpu``, ``cuda`` ...
        budget: bytes, of the process on a CPU, of the device elsewhere.
        reserve: bytes of the budget that stay free.
        base: bytes that are taken before a model is loaded.
        workload: what was planned for.
        components: one :class:`Residency` each, in order of use.
        prompt_tokens, kv_tokens: of one request: its prompt, and its prompt and answer.
        kv_bytes, feature_bytes: of all requests at a time.
        prefill_chunk: tokens of one pass over the prompt; None is the whole prompt.
        vision_batch: pictures of one pass of the tower; None is all of them.
        batch: requests at a time.
        phases: in order of time.
        notes: what was decided and why, for people.
    """

    model: str
    family: str
    device: str
    budget: int
    reserve: int
    base: int
    workload: Workload
    components: tuple[Residency, ...]
    prompt_tokens: int
    kv_tokens: int
    kv_bytes: int
    feature_bytes: int
    prefill_chunk: int | None
    vision_batch: int | None
    batch: int
    phases: tuple[Phase, ...]
    notes: tuple[str, ...] = ()

    @property
    def peak(self) -> int:
        """Bytes at the highest point of all phases."""
        return max(phase.nbytes for phase in self.phases)

    @property
    def highest(self) -> Phase:
        return max(self.phases, key=lambda phase: phase.nbytes)

    @property
    def fits(self) -> bool:
        return self.peak + self.reserve <= self.budget

    @property
    def streams(self) -> bool:
        return any(held.streamed for held in self.components)

    def component(self, name: str) -> Residency:
        """KeyError for one that the model has not."""
        return {held.component: held for held in self.components}[name]

    def phase(self, name: str) -> Phase:
        """KeyError for one that this workload has not."""
        return {phase.name: phase for phase in self.phases}[name]

    def explain(self) -> str:
        """The sum line by line, in MB of 10**6 bytes."""
        from octavo.hardware.plan_explain import explain

        return explain(self)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        from octavo.hardware.plan_explain import as_dict

        return as_dict(self)
