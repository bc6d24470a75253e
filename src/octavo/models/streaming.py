"""Layers that do not fit: read from the original files while the model runs, in a ring of slots.

The order of layers is known, so what comes next is always on its way: a slot that a layer has
left is filled with the layer that is ``slots`` further on, and after the last comes the first
again, for the next token. Bytes go past the page cache straight into the slot, and the layer's
parameters are views of it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from octavo.errors import UnsupportedFormat
from octavo.hardware.spec import ComponentSpec, TensorSpec
from octavo.memory.buffers import PAGE, host_buffer, padded
from octavo.memory.ledger import Ledger

if TYPE_CHECKING:
    from octavo.models.loading import ReaderPool

#: A hole between two tensors of a layer up to this is read along.
_HOLE: Final = 256 * 1024
_DTYPES: Final = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
Convert = Callable[[str, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class _Run:
    """One range of a file that is read as one: whole pages ``low`` to ``high``, at ``place`` in
    the slot."""

    file: str
    low: int
    high: int
    place: int


@dataclass(frozen=True, slots=True, eq=False)
class _Bound:
    """Where a stored tensor goes: ``start`` in the slot, and the attribute of a module."""

    tensor: TensorSpec
    start: int
    owner: nn.Module
    attribute: str


@dataclass(frozen=True, slots=True, eq=False)
class _Layer:
    runs: tuple[_Run, ...]
    bound: tuple[_Bound, ...]
    nbytes: int


@dataclass(slots=True, eq=False)
class _Filling:
    number: int
    slot: torch.Tensor
    reads: list[Future[None]]


class LayerStream:
    """Reads the layers of one component that are not resident, whenever they are used.

    Args:
        folder: of the checkpoint.
        part: the component.
        layers: number of each streamed layer → its module, on the meta device.
        names: parameter of the whole model → stored tensor.
        module: the whole model.
        readers: shared with the loader.
        slots: at least 2: one is read while one is used.
        ledger: all slots are reserved here, as weights in ``host``.
        convert: a stored tensor in the layout that the module wants.

    Raises:
        BudgetExceeded: there is no room for the slots.
        UnsupportedFormat: a layer that is not stored as it is used.
    """

    def __init__(
        self,
        folder: Path,
        part: ComponentSpec,
        layers: Mapping[int, nn.Module],
        names: Mapping[str, str],
        module: nn.Module,
        readers: ReaderPool,
        *,
        slots: int,
        ledger: Ledger,
        device: str = "cpu",
        convert: Convert = lambda _name, stored: stored,
    ) -> None:
        self._folder = folder
        self._readers = readers
        self._device = device
        self._convert = convert
        owners = _owners(module, names)
        specs = {tensor.name: tensor for tensor in part.tensors}
        self._layers = {
            number: _lay_out([specs[name] for name in part.layers[number]], owners)
            for number in layers
        }
        self._order = sorted(layers)
        largest = max(layer.nbytes for layer in self._layers.values())
        self._reservation = ledger.reserve(
            "host", "weights", slots * padded(largest), f"{part.name} ring"
        )
        self._free = [host_buffer(largest) for _ in range(slots)]
        self._ahead: deque[_Filling] = deque()
        self._in_use: _Filling | None = None
        # Used by whoever runs the model, and by close().
        self._lock = threading.RLock()
        self.read_bytes = 0
        self._hooks = [
            hook
            for number, layer in layers.items()
            for hook in (
                layer.register_forward_pre_hook(self._before(number)),
                layer.register_forward_hook(self._after(number), always_call=True),
            )
        ]

    def close(self) -> None:
        """Ends reads under way and lets go of the slots. Closing twice is harmless."""
        with self._lock:
            for hook in self._hooks:
                hook.remove()
            self._hooks = []
            self._drop_ahead()
            if self._in_use is not None:
                self._unbind(self._in_use)
                self._in_use = None
            self._free = []
            self._reservation.release()

    def _before(self, number: int) -> Callable[..., None]:
        def bind(_module: nn.Module, _inputs: Any) -> None:
            with self._lock:
                if not self._ahead or self._ahead[0].number != number:
                    self._drop_ahead()
                    self._fill(number)
                filling = self._ahead.popleft()
                self._in_use = filling
                self._fill_ahead()
                for read in filling.reads:
                    read.result()
                self._bind(filling)

        return bind

    def _after(self, number: int) -> Callable[..., None]:
        def let_go(_module: nn.Module, _inputs: Any, _output: Any) -> None:
            with self._lock:
                if self._in_use is not None and self._in_use.number == number:
                    self._leave()
                    self._fill_ahead()

        return let_go

    def _leave(self) -> None:
        assert self._in_use is not None
        wait(self._in_use.reads)
        self._unbind(self._in_use)
        self._free.append(self._in_use.slot)
        self._in_use = None

    def _fill_ahead(self) -> None:
        """Every free slot gets the next layer that none has, after the last that one has."""
        while self._free and len(self._ahead) < len(self._order):
            last = self._ahead[-1] if self._ahead else self._in_use
            if last is None:
                return
            at = self._order.index(last.number) + 1
            self._fill(self._order[at % len(self._order)])

    def _fill(self, number: int) -> None:
        slot = self._free.pop()
        layer = self._layers[number]
        filling = _Filling(number, slot, [])
        self._ahead.append(filling)
        for run in layer.runs:
            into = slot[run.place : run.place + run.high - run.low]
            filling.reads.append(self._readers.read(self._folder / run.file, run.low, into))
            self.read_bytes += run.high - run.low

    def _drop_ahead(self) -> None:
        while self._ahead:
            filling = self._ahead.popleft()
            # Nothing may write into a slot that is given to another layer.
            wait(filling.reads)
            self._free.append(filling.slot)

    def _bind(self, filling: _Filling) -> None:
        held = filling.slot
        if self._device != "cpu":
            held = held.to(self._device)
        for bound in self._layers[filling.number].bound:
            tensor = bound.tensor
            flat = held[bound.start : bound.start + tensor.nbytes].view(_DTYPES[tensor.dtype])
            value = self._convert(tensor.name, flat.view(tensor.shape))
            _put(bound, value)

    def _unbind(self, filling: _Filling) -> None:
        for bound in self._layers[filling.number].bound:
            dtype = _DTYPES[bound.tensor.dtype]
            _put(bound, torch.empty(bound.tensor.shape, dtype=dtype, device="meta"))


def _put(bound: _Bound, value: torch.Tensor) -> None:
    if bound.attribute in bound.owner._parameters:
        bound.owner._parameters[bound.attribute] = nn.Parameter(value, requires_grad=False)
    else:
        bound.owner._buffers[bound.attribute] = value


def _owners(module: nn.Module, names: Mapping[str, str]) -> dict[str, list[tuple[nn.Module, str]]]:
    """Stored tensor → the attributes that it fills."""
    found: dict[str, list[tuple[nn.Module, str]]] = {}
    for parameter, stored in names.items():
        path, _, attribute = parameter.rpartition(".")
        found.setdefault(stored, []).append((module.get_submodule(path), attribute))
    return found


def _lay_out(
    tensors: list[TensorSpec], owners: Mapping[str, list[tuple[nn.Module, str]]]
) -> _Layer:
    """Ranges to read for one layer, and where its tensors then lie in the slot."""
    runs: list[_Run] = []
    bound: list[_Bound] = []
    place = 0
    wanted = sorted(
        (tensor for tensor in tensors if tensor.name in owners),
        key=lambda tensor: (tensor.file, tensor.offset),
    )
    for group in _groups(wanted):
        low = group[0].offset // PAGE * PAGE
        high = group[-1].offset + group[-1].nbytes
        runs.append(_Run(group[0].file, low, high, place))
        for tensor in group:
            start = place + tensor.offset - low
            itemsize = _DTYPES[tensor.dtype].itemsize if tensor.dtype in _DTYPES else 0
            if not itemsize or start % itemsize:
                raise UnsupportedFormat(
                    f"tensor {tensor.name} of type {tensor.dtype} at byte {tensor.offset} cannot "
                    "be used where it is read to",
                    where=tensor.file,
                    next_step="give more memory, so that all layers stay in it",
                )
            bound += [_Bound(tensor, start, *owner) for owner in owners[tensor.name]]
        place += -(-(high - low) // PAGE) * PAGE
    return _Layer(tuple(runs), tuple(bound), place)


def _groups(tensors: list[TensorSpec]) -> list[list[TensorSpec]]:
    """Neighbours in a file, with no more than a small hole between."""
    groups: list[list[TensorSpec]] = []
    for tensor in tensors:
        last = groups[-1][-1] if groups else None
        near = (
            last is not None
            and last.file == tensor.file
            and 0 <= tensor.offset - last.offset - last.nbytes <= _HOLE
        )
        if near:
            groups[-1].append(tensor)
        else:
            groups.append([tensor])
    return groups
