"""Copies of layers in int8 or int4, made once on disk, for layers that are streamed quantized.

Quantizing is too slow to be done for each token, so what a layer is held as (the buffers of
:mod:`octavo.models.quantized`, and the rest in the type that is computed in) is written once to a
safetensors file under ``octavo_home()/streamed`` and read from there as a float layer is from the
checkpoint. The file has all layers of the component, so it serves every budget. It is written
under another name and renamed when it is whole; its name has all that it depends on; its header
has the CRC-32 of each layer, which is compared whenever the file is opened.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch import nn

from octavo.errors import BrokenFile
from octavo.hardware.home import octavo_home
from octavo.hardware.spec import ComponentSpec, Precision, TensorSpec
from octavo.memory.buffers import MAPPED_FROM, PAGE, host_buffer, memory_of, padded
from octavo.memory.ledger import Ledger
from octavo.models.checkpoint import Checkpoint, Folder, reading
from octavo.models.loading.fill import typed
from octavo.models.loading.wanted import DTYPES, STORED
from octavo.models.streaming import Convert
from octavo.models.streaming_copy_file import (
    FILE,
    FORMAT,
    LINE,
    NAMES,
    alone,
    header,
    no_room,
    sums_of,
    writing,
)
from octavo.models.streaming_copy_layers import Describer, Source, said

if TYPE_CHECKING:
    from octavo.models.loading import ReaderPool

_CHUNK: Final = 8 << 20


def as_it_is(_name: str, stored: torch.Tensor) -> torch.Tensor:
    """For what is stored in the module's layout."""
    return stored


@dataclass(frozen=True, slots=True)
class LayerCopy:
    """What :class:`octavo.models.streaming.LayerStream` reads a quantized component from.

    Attributes:
        folder: of the file.
        part: the component as the copy has it.
        names: parameter or buffer of the whole model → tensor of the copy.
    """

    folder: Path
    part: ComponentSpec
    names: Mapping[str, str]


class CopyMaker:
    """Finds or makes the copy of one component's layers.

    Args:
        folder: of the checkpoint, which is local.
        part: the component; all its layers are copied.
        sources: parameter of the whole model → stored tensor.
        module: the whole model; linear layers of ``streamed`` are exchanged for quantized ones
            without memory.
        precision, compute: of quantized weights, and of what is not quantized.
        convert: a stored tensor in the layout that the module wants.
        ledger: what is held while a copy is made is reserved here, as staging in ``host``.
        home: where copies are kept; ``octavo_home()`` by default.
    """

    def __init__(
        self,
        folder: Path,
        part: ComponentSpec,
        sources: Mapping[str, str],
        module: nn.Module,
        readers: ReaderPool,
        *,
        precision: Precision,
        compute: Precision,
        ledger: Ledger,
        convert: Convert = as_it_is,
        home: Path | None = None,
    ) -> None:
        self._folder = folder
        self._part = part
        self._module = module
        self._readers = readers
        self._precision = precision
        self._compute = DTYPES[compute]
        self._ledger = ledger
        self._convert = convert
        self._home = (home or octavo_home()) / "streamed"
        self._describer = Describer(module, precision, self._compute)
        self._layers = self._describer.layers(part, sources)

    def open(self, streamed: Collection[int]) -> LayerCopy:
        """The copy, made where there is none that is whole.

        Args:
            streamed: numbers of the layers that will be read from it.

        Raises:
            TierFull: the disk has no room for it; nothing of it is left there.
            TierError: it cannot be written.
            BudgetExceeded: there is no memory for making it.
        """
        place = self._home / self._key()
        with writing(place):
            place.mkdir(parents=True, exist_ok=True)
        with alone(place):
            try:
                tensors = self._checked(place, streamed)
            except BrokenFile:
                self._make(place)
                tensors = self._checked(place, streamed)
        layers = tuple(
            tuple(name for source in layer for name, _, _ in source.outputs())
            for layer in self._layers
        )
        part = ComponentSpec(self._part.name, tuple(tensors.values()), layers)
        return LayerCopy(place, part, self._exchange(streamed))

    def _key(self) -> str:
        """A folder's name: of all that the bytes of the copy depend on."""
        files = sorted({source.tensor.file for layer in self._layers for source in layer})
        with reading(self._folder):
            found = [(self._folder / file).stat() for file in files]
        known = {
            "format": FORMAT,
            "folder": str(self._folder.resolve()),
            "files": [
                (file, one.st_size, one.st_mtime_ns) for file, one in zip(files, found, strict=True)
            ],
            "precision": self._precision,
            "compute": str(self._compute),
            # With shapes of packed weights, which depend on the processor.
            "layers": [[said(source) for source in layer] for layer in self._layers],
        }
        digest = hashlib.sha256(json.dumps(known).encode()).hexdigest()
        return f"{self._part.name}-{self._precision}-{digest[:24]}"

    def _checked(self, place: Path, streamed: Collection[int]) -> Mapping[str, TensorSpec]:
        """Tensors of a copy that is whole.

        Raises:
            BrokenFile: there is none, or it is not what was written.
        """
        if not (place / FILE).exists():
            raise BrokenFile("there is no copy yet", where=str(place))
        tensors = Checkpoint(Folder(place), place.name).tensors
        wanted, sums = self._layout(), sums_of(place / FILE)
        held = {name: (spec.dtype, spec.shape) for name, spec in tensors.items()}
        if len(sums) != len(self._layers) or held != {
            name: (NAMES[dtype], shape) for name, shape, dtype, _ in wanted
        }:
            raise BrokenFile("a copy of other tensors", where=str(place))
        by_layer = [
            [tensors[name] for source in layer for name, _, _ in source.outputs()]
            for layer in self._layers
        ]
        for number in streamed:
            if self._sum(place, by_layer[number]) != sums[number]:
                raise BrokenFile(f"layer {number} is not what was written", where=str(place))
        return tensors

    def _sum(self, place: Path, tensors: Sequence[TensorSpec]) -> int:
        low = min(tensor.offset for tensor in tensors)
        high = max(tensor.offset + tensor.nbytes for tensor in tensors)
        found = 0
        with closing(self._pieces(place / FILE, low, high + -high % LINE)) as pieces:
            for piece in pieces:
                found = zlib.crc32(memory_of(piece), found)
        return found

    def _pieces(self, path: Path, low: int, high: int) -> Generator[torch.Tensor, None, None]:
        """The bytes of a range, each piece until the next is asked for, which is on its way."""
        with self._staging(2 * _CHUNK, low) as memory:
            under_way: deque[tuple[Future[None], torch.Tensor]] = deque()
            try:
                for number, start in enumerate(range(low, high, _CHUNK)):
                    half = memory[number % 2 * _CHUNK :][: min(_CHUNK, high - start)]
                    under_way.append((self._readers.read(path, start, half), half))
                    if len(under_way) == 2:
                        under_way[0][0].result()
                        yield under_way[0][1]
                        under_way.popleft()
                for read, half in under_way:
                    read.result()
                    yield half
            finally:
                wait([read for read, _ in under_way])

    def _layout(self) -> list[tuple[str, tuple[int, ...], torch.dtype, int]]:
        """Name, shape, type and bytes of each tensor of the file, in its order.

        The format has no holes: bytes up to the next cache line are a tensor, too.
        """
        found = []
        for layer in self._layers:
            for source in layer:
                for name, shape, dtype in source.outputs():
                    nbytes = torch.Size(shape).numel() * dtype.itemsize
                    found.append((name, shape, dtype, nbytes))
                    if filling := -nbytes % LINE:
                        found.append((f"{name}.filling", (filling,), torch.uint8, filling))
        return found

    def _make(self, place: Path) -> None:
        layout = self._layout()
        total = sum(nbytes for *_, nbytes in layout)
        temporary = place / f"{FILE}.part"
        with writing(place), ExitStack() as undone:
            undone.callback(temporary.unlink, missing_ok=True)
            (place / FILE).unlink(missing_ok=True)
            free = shutil.disk_usage(place).free
            if free < total:
                raise no_room(place, total, free)
            with temporary.open("wb") as file:
                file.write(header(layout, [0] * len(self._layers)))
                sums = [_written(file.write, self._values(layer)) for layer in self._layers]
                file.seek(0)
                file.write(header(layout, sums))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(place / FILE)
            undone.pop_all()

    def _values(self, layer: Sequence[Source]) -> Iterator[memoryview]:
        """The bytes of a layer, in the order of the layout."""
        for source in layer:
            for value in self._held(source):
                flat = value.contiguous().view(-1).view(torch.uint8)
                yield memory_of(flat)
                if flat.numel() % LINE:
                    yield memoryview(bytes(-flat.numel() % LINE))

    @torch.no_grad()
    def _held(self, source: Source) -> list[torch.Tensor]:
        tensor = source.tensor
        # What is read, and at most as much for what is made of it.
        with self._staging(tensor.nbytes, tensor.offset, of=2) as stored_b:
            self._readers.read(self._folder / tensor.file, tensor.offset, stored_b).result()
            stored = typed(stored_b, STORED[tensor.dtype]).view(tensor.shape)
            value = self._convert(tensor.name, stored)
            if not source.parts:
                return [value.to(source.dtype).view(source.shape).clone()]
            layer = self._describer.empty(source.shape)
            layer.fill(0, value)
            return [dict(layer.named_buffers())[name] for name in source.parts]

    @contextmanager
    def _staging(self, nbytes: int, offset: int, *, of: int = 1) -> Iterator[torch.Tensor]:
        """Memory for ``nbytes`` of a file from ``offset`` on, which a disk can write into; ``of``
        times as much is reserved."""
        skipped = offset % PAGE
        whole = max(skipped + nbytes, MAPPED_FROM)
        owner = f"{self._part.name} copy"
        with self._ledger.reserve("host", "staging", of * padded(whole), owner):
            yield host_buffer(whole)[skipped : skipped + nbytes]

    def _exchange(self, streamed: Collection[int]) -> dict[str, str]:
        """Puts quantized layers into the module; what the copy's tensors fill."""
        from octavo.models.quantized import swap

        used = [source for number in streamed for source in self._layers[number]]
        matrices = [source.parameters[0] for source in used if source.parts]
        swap(self._module, matrices, self._precision, self._compute, "meta")
        names: dict[str, str] = {}
        for source in used:
            if not source.parts:
                names |= dict.fromkeys(source.parameters, source.tensor.name)
            for name in source.parts:
                path = source.parameters[0].rpartition(".")[0]
                names[f"{path}.{name}"] = f"{source.tensor.name}.{name}"
        return names


def _written(write: Callable[[memoryview], object], values: Iterator[memoryview]) -> int:
    found = 0
    for value in values:
        write(value)
        found = zlib.crc32(value, found)
    return found
