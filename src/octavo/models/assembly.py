"""A planned model put together: its components start to load in the order of their use."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from octavo.hardware.plan import DECODER, Plan, Residency
from octavo.hardware.spec import ComponentSpec, ModelSpec
from octavo.memory.ledger import Ledger, Place
from octavo.models.background import Background
from octavo.models.checkpoint import Checkpoint
from octavo.models.component import Component, Work
from octavo.models.family import Family
from octavo.models.gguf import GgufCheckpoint
from octavo.models.model import Model
from octavo.models.registry import saying_whose
from octavo.requests import MediaReader

if TYPE_CHECKING:
    from torch import nn

    from octavo.models.loading import LoadProgress
    from octavo.models.streaming import Convert, LayerStream

#: A first question goes to the decoder, so it is read first.
_ORDER = ("language", "projector", "vision", "audio")


class Assembly:
    """Brings one model in: components, streams of layers, and the model over them. Whatever fails
    on the way leaves nothing behind.

    Args:
        module: without weights.
        plan: how each component is held.
        lazy: components that are loaded when a request first needs them.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        family: Family,
        spec: ModelSpec,
        module: nn.Module,
        plan: Plan,
        *,
        device: str,
        lazy: Collection[str] = (),
        on_progress: Callable[[LoadProgress], None] | None = None,
    ) -> None:
        from octavo.models.loading import Loader, ReaderPool
        from octavo.models.streaming_ring import Ring

        self._family = family
        self._spec = spec
        self._module = module
        self._plan = plan
        self._device = device
        self._lazy = lazy
        self._on_progress = on_progress
        self._checkpoint = checkpoint
        place: Place = "host" if device == "cpu" else "device"
        self._ledger = Ledger({"host": _host_budget(plan), place: max(plan.budget - plan.base, 0)})
        self._sources = family.sources(checkpoint, module)
        self._parts: dict[str, Component] = {}
        self._streams: list[LayerStream] = []
        self._ring = Ring(self._ledger, "ring") if device == "cpu" else None
        self._folder = checkpoint.folder or Path()
        self._readers = ReaderPool()
        self._loader = Loader(
            self._folder,
            ledger=self._ledger,
            readers=self._readers,
            on_progress=self._progress,
        )

    def model(self, media: MediaReader, *, wait: bool) -> Model:
        try:
            with saying_whose(self._checkpoint, self._family):
                processor = self._family.processor(self._checkpoint)
            for part in self._spec.components:
                self._parts[part.name] = self._component(part.name)
            if self._ring is not None and self._streams:
                self._ring.open()
            self._place_buffers()
            for name in sorted(self._parts, key=_place_in_order):
                if name not in self._lazy:
                    self._parts[name].start()
            model = Model(
                self._family,
                self._spec,
                self._module,
                processor,
                self._parts,
                media,
                plan=self._plan,
                ledger=self._ledger,
                streams=self._streams,
                device=self._device,
                close=self._close,
            )
            if wait:
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
            self._streams.append(self._stream(part, held))
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

    def _stream(self, part: ComponentSpec, held: Residency) -> LayerStream:
        """Of the layers that do not stay: from the checkpoint, or from a copy in 8 or 4 bits."""
        from octavo.models.streaming import LayerStream

        folder, read, names = self._folder, part, self._sources
        convert: Convert = self._family.convert
        if held.precision is not self._spec.stored:
            from octavo.models.streaming_copies import CopyMaker, as_it_is

            copy = CopyMaker(
                self._folder,
                part,
                self._sources,
                self._module,
                self._readers,
                precision=held.precision,
                compute=held.compute,
                ledger=self._ledger,
                convert=convert,
            ).open(held.streamed)
            folder, read, names, convert = copy.folder, copy.part, copy.names, as_it_is
        layers = self._family.layers(self._module, part.name)
        return LayerStream(
            folder,
            read,
            {number: layers[number] for number in held.streamed},
            names,
            self._module,
            self._readers,
            slots=len(held.streamed) if held.source == "host" else held.slots,
            ledger=self._ledger,
            device=self._device,
            convert=convert,
            ring=self._ring,
            group=None if part.name == DECODER else "media",
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
        if self._on_progress is not None:
            self._on_progress(progress)

    def _close(self) -> None:
        for stream in self._streams:
            stream.close()
        self._loader.close()
        self._readers.close()
        self._module = None  # type: ignore[assignment]


def _host_budget(plan: Plan) -> int:
    """Of main memory; beside a device's budget it is what the machine has free."""
    if plan.device == "cpu":
        return plan.budget
    from octavo.hardware import probe

    return probe().memory.available


def _place_in_order(name: str) -> int:
    return _ORDER.index(name) if name in _ORDER else len(_ORDER)
