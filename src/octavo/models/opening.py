"""From a name and wishes to a model: describe, plan, build without weights, load by component."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from octavo.errors import ConfigError
from octavo.hardware.accelerators import accelerators
from octavo.hardware.plan import Plan, Residency, Wanted, Workload
from octavo.hardware.plan import plan as make_plan
from octavo.hardware.spec import ComponentSpec, ModelSpec, Precision
from octavo.memory.ledger import Ledger, Place
from octavo.memory.sizes import parse_bytes
from octavo.models.background import Background
from octavo.models.checkpoint import GENERATION, Checkpoint
from octavo.models.component import Component, Work
from octavo.models.family import Family
from octavo.models.gguf import GgufCheckpoint
from octavo.models.hub import resolve
from octavo.models.model import Model
from octavo.models.registry import family_of, saying_whose
from octavo.requests import MediaReader

if TYPE_CHECKING:
    from torch import nn

    from octavo.models.loading import LoadProgress
    from octavo.models.streaming import LayerStream

#: What is planned for when the caller does not say: a page's worth of text, and a picture.
TEXT_ONLY = Workload(prompt=1000, new=500)
WITH_PICTURE = Workload(prompt=300, new=500, images=1, width=1024, height=1024)
#: A first question goes to the decoder, so it is read first.
_ORDER = ("language", "projector", "vision", "audio")


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
    return _Opening(checkpoint, family, spec, module, plan, wishes, device).model(media)


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
        device=device.partition(":")[0],
        base=rss if device == "cpu" else None,
        precisions=precisions,
        stream=None if streamable else False,
    )


def _free(device: str, rss: int) -> int:
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info()[0])
    from octavo.hardware import probe

    return probe().memory.available + rss


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


class _Opening:
    """Brings one model in. Whatever fails on the way leaves nothing behind."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        family: Family,
        spec: ModelSpec,
        module: nn.Module,
        plan: Plan,
        wishes: Wishes,
        device: str,
    ) -> None:
        from octavo.models.loading import Loader, ReaderPool

        self._family = family
        self._spec = spec
        self._module = module
        self._plan = plan
        self._device = device
        self._wishes = wishes
        self._checkpoint = checkpoint
        place: Place = "host" if device == "cpu" else "device"
        self._ledger = Ledger({place: max(plan.budget - plan.base, 0), "host": plan.budget})
        self._sources = family.sources(checkpoint, module)
        self._parts: dict[str, Component] = {}
        self._streams: list[LayerStream] = []
        self._folder = checkpoint.folder or Path()
        self._readers = ReaderPool()
        self._loader = Loader(
            self._folder,
            ledger=self._ledger,
            readers=self._readers,
            on_progress=self._progress,
        )

    def model(self, media: MediaReader) -> Model:
        try:
            with saying_whose(self._checkpoint, self._family):
                processor = self._family.processor(self._checkpoint)
            for part in self._spec.components:
                self._parts[part.name] = self._component(part.name)
            self._place_buffers()
            for name in sorted(self._parts, key=_place_in_order):
                if name not in self._wishes.lazy:
                    self._parts[name].start()
            model = Model(
                self._family,
                self._spec,
                self._module,
                processor,
                self._parts,
                media,
                plan=self._plan,
                close=self._close,
            )
            if self._wishes.wait:
                model.wait()
        except BaseException:
            for begun in self._parts.values():
                begun.close()
            self._close()
            raise
        return model

    def _component(self, name: str) -> Component:
        held = self._plan.component(name)
        part = self._spec.component(name)
        streamed = [part.layers[number] for number in held.streamed]
        if streamed:
            from octavo.models.streaming import LayerStream

            layers = self._family.layers(self._module, name)
            self._streams.append(
                LayerStream(
                    self._folder,
                    part,
                    {number: layers[number] for number in held.streamed},
                    self._sources,
                    self._module,
                    self._readers,
                    slots=held.slots,
                    ledger=self._ledger,
                    device=self._device,
                    convert=self._family.convert,
                )
            )
        skip = frozenset(tensor for layer in streamed for tensor in layer)

        def start() -> Work:
            if isinstance(self._checkpoint, GgufCheckpoint):
                return self._start_gguf(self._checkpoint, part, held)
            return self._loader.start(
                self._module,
                part,
                self._sources,
                precision=None if held.precision is self._spec.stored else held.precision,
                compute=held.compute,
                device=self._device,
                skip=skip,
                convert=self._family.convert,
            )

        return Component(
            part,
            start,
            precision=held.precision,
            resident_nbytes=held.nbytes,
            streamed_layers=len(streamed),
        )

    def _start_gguf(self, checkpoint: GgufCheckpoint, part: ComponentSpec, held: Residency) -> Work:
        from octavo.models.gguf import load_gguf

        reserved = self._ledger.reserve("host", "weights", held.held_bytes, part.name)
        matrices = {tensor.name for tensor in part.tensors if tensor.matrix}

        def run(tell: Callable[[int], None]) -> None:
            try:
                load_gguf(
                    checkpoint,
                    self._module,
                    self._sources,
                    precision=held.precision,
                    compute=held.compute,
                    device=self._device,
                    quantize=matrices.__contains__,
                    on_tensor=tell,
                )
            except BaseException:
                reserved.release()
                raise

        from octavo.models.loading import LoadProgress

        def tell_all(done: int) -> None:
            self._progress(LoadProgress(part.name, done, part.nbytes, done >= part.nbytes))

        return Background(run, part.name, tell_all)

    def _place_buffers(self) -> None:
        """What is computed rather than stored goes where the weights go."""
        if self._device == "cpu":
            return
        for owner in self._module.modules():
            for name, buffer in list(owner._buffers.items()):
                if buffer is not None and not buffer.is_meta:
                    owner._buffers[name] = buffer.to(self._device)

    def _progress(self, progress: LoadProgress) -> None:
        part = self._parts.get(progress.component)
        if part is not None:
            part.loaded = progress.done_bytes
        if self._wishes.on_progress is not None:
            self._wishes.on_progress(progress)

    def _close(self) -> None:
        for stream in self._streams:
            stream.close()
        self._loader.close()
        self._readers.close()
        self._module = None  # type: ignore[assignment]


def _place_in_order(name: str) -> int:
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)
