"""Settings for common amounts of memory, computed by the planner and never written down.

A preset answers how many pages at a time, drawn how finely, a machine can give a model: for 8,
12, 16, 24 and 32 GB of a graphics card, and for a laptop with 8 GB of main memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from octavo.errors import BudgetExceeded, ConfigError
from octavo.hardware.plan import plan
from octavo.hardware.plan_types import Plan
from octavo.hardware.plan_workload import Workload
from octavo.hardware.spec import ModelSpec, Precision

_GB: Final = 10**9


@dataclass(frozen=True, slots=True)
class Profile:
    """A kind of machine.

    Attributes:
        name: as it is asked for.
        device: what models run on.
        memory: bytes that the machine has there.
        budget: bytes that a plan may use: the rest is the system's, and a desktop's.
        host_budget: bytes of main memory for layers that a card has no room for.
    """

    name: str
    device: str
    memory: int
    budget: int
    host_budget: int | None = None


#: A desktop on the card, and the fragments of an allocator, take a tenth; the system and a browser
#: take half of a laptop.
PROFILES: Final[Mapping[str, Profile]] = {
    **{
        f"{size}gb": Profile(f"{size}gb", "cuda", size * _GB, size * _GB * 9 // 10, size * _GB)
        for size in (8, 12, 16, 24, 32)
    },
    "laptop": Profile("laptop", "cpu", 8 * _GB, 4 * _GB),
}
#: Resolutions of a page, from the finest that readers profit from to the coarsest that is legible.
RESOLUTIONS: Final = (300, 250, 200, 150)
#: Pages at a time from which a finer page is worth more than a further one.
ENOUGH: Final = 4
MOST: Final = 32


@dataclass(frozen=True, slots=True)
class Preset:
    """What a profile gives a model.

    Attributes:
        profile: of the machine.
        dpi: at which pages are drawn.
        batch: pages at a time.
        plan: that holds it.
    """

    profile: Profile
    dpi: int
    batch: int
    plan: Plan


def profile(name: str) -> Profile:
    """A profile by its name.

    Raises:
        ConfigError: there is none.
    """
    found = PROFILES.get(name.lower())
    if found is None:
        raise ConfigError(f"no profile {name!r}", next_step=f"use {', '.join(PROFILES)}")
    return found


def nearest(device: str, memory: int) -> Profile:
    """The largest profile that a machine with ``memory`` bytes can follow.

    Raises:
        ConfigError: it has less than the smallest.
    """
    kind = "cpu" if device == "cpu" else "cuda"
    fitting = [
        known for known in PROFILES.values() if known.device == kind and known.memory <= memory
    ]
    if not fitting:
        raise ConfigError(
            f"{memory / _GB:.1f} GB is under the smallest profile for {device}",
            next_step="plan with memory= instead",
        )
    return max(fitting, key=lambda known: known.memory)


def preset(
    spec: ModelSpec,
    wanted: Profile,
    *,
    workload: Workload | None = None,
    precisions: Mapping[str, Precision | None] | None = None,
) -> Preset:
    """The finest resolution at which ``ENOUGH`` pages fit at a time, and as many pages as fit.

    Where not even the coarsest resolution takes that many, the finest that takes one page.

    Raises:
        BudgetExceeded: not even one page at the coarsest fits.
    """
    work = workload or Workload(pages=1, new=2000)
    dpis = RESOLUTIONS if spec.vision is not None else (work.dpi,)
    fitting: list[Preset] = []
    refused: BudgetExceeded | None = None
    for dpi in dpis:
        try:
            found = _largest(spec, wanted, replace(work, dpi=dpi), precisions)
        except BudgetExceeded as error:
            refused = error
            continue
        if found.batch >= ENOUGH:
            return found
        fitting.append(found)
    if not fitting:
        assert refused is not None
        raise refused
    return max(fitting, key=lambda found: (found.batch > 1, found.dpi))


def _largest(
    spec: ModelSpec,
    wanted: Profile,
    work: Workload,
    precisions: Mapping[str, Precision | None] | None,
) -> Preset:
    def at(batch: int) -> Plan:
        return plan(
            spec,
            replace(work, batch=batch),
            budget=wanted.budget,
            device=wanted.device,
            host_budget=wanted.host_budget,
            precisions=dict(precisions or {}),
        )

    low, high, best = 1, MOST + 1, at(1)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            found = at(middle)
        except BudgetExceeded:
            high = middle
            continue
        # More pages are not worth reading weights from disk for each of their tokens.
        if found.streams and not best.streams:
            high = middle
        else:
            low, best = middle, found
    return Preset(wanted, work.dpi, low, best)
