"""From a name and wishes to a model: describe, plan, build without weights, load by component."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

from octavo.errors import ConfigError
from octavo.hardware.accelerators import accelerators
from octavo.hardware.environment import allocator, apply, debug_variables
from octavo.hardware.plan import Plan, Wanted, Workload, spare
from octavo.hardware.plan import plan as make_plan
from octavo.hardware.spec import ModelSpec, Precision
from octavo.memory.sizes import parse_bytes
from octavo.models.assembly import Assembly
from octavo.models.checkpoint import GENERATION, Checkpoint
from octavo.models.component import Component
from octavo.models.family import Family
from octavo.models.gguf import GgufCheckpoint
from octavo.models.hub import resolve
from octavo.models.model import Model
from octavo.models.registry import family_of, saying_whose
from octavo.requests import MediaReader

if TYPE_CHECKING:
    from octavo.models.loading import LoadProgress

#: What is planned for when the caller does not say: a page's worth of text, and a picture.
TEXT_ONLY = Workload(prompt=1000, new=500)
WITH_PICTURE = Workload(prompt=300, new=500, images=1, width=1024, height=1024)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the caller of :func:`octavo.load` asked for; see there."""

    memory: int | str | None = None
    device: str | None = None
    precision: str | Precision | None = None
    precisions: Mapping[str, str | Precision] = field(default_factory=dict)
    lazy: Collection[str] = ()
    workload: Workload | str | None = None
    on_progress: Callable[[LoadProgress], None] | None = None
    wait: bool = True
    debug: bool = False


def open_model(name: str, wishes: Wishes, media: MediaReader) -> Model:
    """See :func:`octavo.load`."""
    if wishes.debug:
        apply(debug_variables())
    checkpoint = resolve(name)
    family = family_of(checkpoint)
    with saying_whose(checkpoint, family):
        if checkpoint.has(GENERATION):
            checkpoint.json(GENERATION)
        spec = family.describe(checkpoint)
    _check_names(spec, wishes)
    if family.loads_itself:
        return _open_whole(checkpoint, family, spec, wishes, media)
    from octavo.memory.buffers import return_freed_memory
    from octavo.models.heads import flatten_heads

    return_freed_memory()
    device = _device(wishes.device) if wishes.device is not None else _best_device()
    with saying_whose(checkpoint, family):
        module = family.build(checkpoint)
    flatten_heads(module)
    # What is stored in a packed form is not used as it is read.
    streamable = not isinstance(checkpoint, GgufCheckpoint)
    plan = _planned(spec, wishes, device, streamable=streamable)
    if device.startswith("cuda"):
        _suit_allocator(plan, device)
    assembly = Assembly(
        checkpoint,
        family,
        spec,
        module,
        plan,
        device=device,
        lazy=wishes.lazy,
        on_progress=wishes.on_progress,
    )
    return assembly.model(media, wait=wishes.wait)


def planned_precisions(spec: ModelSpec, wishes: Wishes) -> dict[str, Wanted]:
    """What each component was asked to be held in.

    Raises:
        ConfigError: no such precision.
    """
    return {
        part.name: _precision(wishes.precisions.get(_told_for(part.name), wishes.precision))
        for part in spec.components
    }


def _told_for(component: str) -> str:
    """A projector goes with the tower whose features it turns."""
    return "vision" if component == "projector" else component


def _precision(wish: str | Precision | None) -> Wanted:
    if wish is None or wish == "auto":
        return wish  # type: ignore[return-value]
    try:
        return Precision(wish)
    except ValueError:
        raise ConfigError(
            f"no precision {wish!r}", next_step=f"use auto, {', '.join(Precision)}"
        ) from None


def _check_names(spec: ModelSpec, wishes: Wishes) -> None:
    names = [part.name for part in spec.components]
    for name in (*wishes.lazy, *wishes.precisions):
        if name not in names:
            raise ConfigError(
                f"no component {name!r} in this model",
                where=spec.name,
                next_step=f"it has {', '.join(names)}",
            )


def _best_device() -> str:
    """The first that torch drives and has kernels for: it also names cards that it has none for."""
    for found in accelerators():
        if found.ready and found.kind.torch_type is not None:
            return found.kind.torch_type
    return "cpu"


def _device(name: str) -> str:
    """Raises ConfigError for one that torch has not here."""
    import torch

    try:
        kind = torch.device(name).type
    except RuntimeError:
        kind = ""
    if kind != "cpu" and (not kind or kind not in _present()):
        raise ConfigError(
            f"no device {name!r} on this machine",
            next_step=f"use {', '.join(('cpu', *_present()))}; octavo doctor says what is missing",
        )
    return name


def _present() -> tuple[str, ...]:
    """Kinds of accelerators that torch can use here."""
    import torch

    found = torch.accelerator.current_accelerator(check_available=True)
    return () if found is None else (found.type,)


def _planned(spec: ModelSpec, wishes: Wishes, device: str, *, streamable: bool) -> Plan:
    """Raises BudgetExceeded where nothing fits."""
    precisions = planned_precisions(spec, wishes)
    workload = wishes.workload
    if isinstance(workload, str):
        workload = Workload.parse(workload)
    if workload is None:
        workload = TEXT_ONLY if spec.vision is None else WITH_PICTURE
    rss = int(psutil.Process().memory_info().rss)
    budget = parse_bytes(wishes.memory) if wishes.memory is not None else _free(device, rss)
    return make_plan(
        spec,
        workload,
        budget=budget,
        reserve=spare(budget),
        device=device.partition(":")[0],
        base=rss if device == "cpu" else None,
        host_budget=None if device == "cpu" else _free_host(),
        precisions=precisions,
        stream=None if streamable else False,
    )


def _suit_allocator(plan: Plan, device: str) -> None:
    """Has torch's allocator keep to the plan's budget; too late once the device was used."""
    import torch

    total = int(torch.cuda.mem_get_info(device)[1])
    suited = allocator(
        device_bytes=total,
        budget_bytes=plan.budget,
        resident_bytes=sum(held.nbytes for held in plan.components),
        largest_bytes=max(line.nbytes for phase in plan.phases for line in phase.lines),
    )
    apply(suited.variables)
    if suited.fraction is not None:
        # The libraries' own share of the device lies outside of what torch allocates.
        share = max(plan.budget - plan.base, 1) / total
        torch.cuda.set_per_process_memory_fraction(share, torch.device(device).index)


def _free(device: str, rss: int) -> int:
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    return _free_host() + rss


def _free_host() -> int:
    from octavo.hardware import probe

    return probe().memory.available


def _open_whole(
    checkpoint: Checkpoint, family: Family, spec: ModelSpec, wishes: Wishes, media: MediaReader
) -> Model:
    """A model whose library reads its files itself, in one precision."""
    wanted = {_precision(wish) for wish in (*wishes.precisions.values(), wishes.precision)}
    named = [wish for wish in wanted if isinstance(wish, Precision)]
    if len(named) > 1:
        raise ConfigError(f"{family.name} models take one precision", where=spec.name)
    precision = named[0] if named else None
    module = family.open(checkpoint, precision=precision, device=wishes.device or "cpu")
    parts = {
        part.name: Component(part, _Done, precision=precision, resident_nbytes=part.nbytes)
        for part in spec.components
    }
    for part in parts.values():
        part.start()
    return Model(family, spec, module, family.processor(checkpoint), parts, media)


class _Done:
    """Work that was over before it began."""

    done = True

    def wait(self, timeout: float | None = None) -> None:
        del timeout

    def cancel(self) -> None:
        return
