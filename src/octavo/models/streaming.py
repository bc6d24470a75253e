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
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from octavo.hardware.spec import ComponentSpec
from octavo.memory.ledger import Ledger
from octavo.models.streaming_device import DeviceSlots, Sent
from octavo.models.streaming_layout import DTYPES, Bound, Layer, lay_out, owners_of
from octavo.models.streaming_ring import Ring

if TYPE_CHECKING:
    from octavo.models.loading import ReaderPool

Convert = Callable[[str, torch.Tensor], torch.Tensor]


@dataclass(slots=True, eq=False)
class _Filling:
    """Layer ``number`` in slot ``slot``, or on its way there."""

    number: int
    slot: int
    reads: list[Future[None]]
    sent: Sent | None = None


class LayerStream:
    """Reads the layers of one component that are not resident, whenever they are used.

    Args:
        folder: of the checkpoint.
        part: the component.
        layers: number of each streamed layer → its module, on the meta device.
        names: parameter of the whole model → stored tensor.
        module: the whole model.
        readers: shared with the loader.
        slots: at least 2: one is read while one is used. As many as layers: each is read once and
            stays there.
        ledger: all slots are reserved here, as weights in ``host``.
        convert: a stored tensor in the layout that the module wants.
        ring: where the slots lie, if they share their memory: it is opened by whoever made it.
        group: of streams whose slots lie side by side there. Those of other groups lie over them,
            so nothing is read ahead for the next pass.

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
        ring: Ring | None = None,
        group: str | None = None,
    ) -> None:
        slots = min(slots, len(layers))
        self._folder = folder
        self._readers = readers
        self._device = device
        self._convert = convert
        owners = owners_of(module, names)
        specs = {tensor.name: tensor for tensor in part.tensors}
        self._layers: dict[int, Layer] = {
            number: lay_out([specs[name] for name in part.layers[number]], owners)
            for number in layers
        }
        self._order = sorted(layers)
        largest = max(layer.nbytes for layer in self._layers.values())
        pinned = torch.device(device).type == "cuda"
        self._ring = Ring(ledger, f"{part.name} ring", pinned=pinned) if ring is None else ring
        self._group = part.name if group is None else group
        self._again = ring is None or group is None
        self._start = self._ring.join(self, self._group, slots * largest)
        self._slot_bytes = largest
        if ring is None:
            self._ring.open()
        self._there: DeviceSlots | None = None
        if pinned:
            self._there = DeviceSlots(torch.device(device), largest, ledger, part.name)
        self._slots: list[torch.Tensor] = []
        self._free = list(range(slots))
        # Layer → the slot that it stays in.
        self._kept: dict[int, int] | None = {} if slots >= len(layers) else None
        # (slot, layer) → its parameters: making a dozen anew for each layer of each token takes
        # longer than some layers take to compute.
        self._views: dict[tuple[int, int], list[tuple[Bound, torch.Tensor]]] = {}
        self._ahead: deque[_Filling] = deque()
        self._in_use: _Filling | None = None
        # Used by whoever runs the model, and by close().
        self._lock = threading.RLock()
        self.read_bytes = 0
        self._hooks = [
            hook
            for number, layer in layers.items()
            for hook in (
                layer.register_forward_pre_hook(self._before(number), prepend=True),
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
            self._views.clear()
            self._free = []
            self._slots = []
            if self._there is not None:
                self._there.close()
            self._ring.leave(self)

    def rest(self) -> None:
        """Lets go of layers that were read ahead; what shares the slots may have them."""
        with self._lock:
            assert self._in_use is None, "layers that share memory are in use at once"
            self._drop_ahead()

    def _before(self, number: int) -> Callable[..., None]:
        def bind(_module: nn.Module, _inputs: Any) -> None:
            self._take_slots()
            with self._lock:
                if not self._ahead or self._ahead[0].number != number:
                    self._drop_ahead()
                    self._fill(number)
                filling = self._ahead.popleft()
                self._in_use = filling
                self._fill_ahead()
                for read in filling.reads:
                    read.result()
                if self._there is not None:
                    self._send(filling)
                    # The next one travels while this one computes, if it is there by then.
                    if self._ahead and all(read.done() for read in self._ahead[0].reads):
                        self._send(self._ahead[0])
                self._bind(filling)

        return bind

    def _after(self, number: int) -> Callable[..., None]:
        def let_go(_module: nn.Module, _inputs: Any, _output: Any) -> None:
            with self._lock:
                if self._in_use is not None and self._in_use.number == number:
                    self._leave()
                    self._fill_ahead()

        return let_go

    def _take_slots(self) -> None:
        size, count = self._slot_bytes, len(self._slots) or len(self._free)
        whole = self._ring.take(self._group, self._start, count * size)
        if not self._slots:
            self._slots = [whole[at * size : (at + 1) * size] for at in range(count)]

    def _leave(self) -> None:
        assert self._in_use is not None
        wait(self._in_use.reads)
        self._unbind(self._in_use)
        self._give_back(self._in_use)
        self._in_use = None

    def _fill_ahead(self) -> None:
        """Every free slot gets the next layer that none has, after the last that one has."""
        while self._free and len(self._ahead) < len(self._order):
            last = self._ahead[-1] if self._ahead else self._in_use
            if last is None:
                return
            at = self._order.index(last.number) + 1
            if at == len(self._order) and not self._again:
                return
            self._fill(self._order[at % len(self._order)])

    def _fill(self, number: int) -> None:
        kept = None if self._kept is None else self._kept.get(number)
        if kept is not None:
            self._free.remove(kept)
            self._ahead.append(_Filling(number, kept, []))
            return
        filling = _Filling(number, self._spare(), [])
        slot, layer = self._slots[filling.slot], self._layers[number]
        self._ahead.append(filling)
        for run in layer.runs:
            into = slot[run.place : run.place + run.high - run.low]
            filling.reads.append(self._readers.read(self._folder / run.file, run.low, into))
            self.read_bytes += run.high - run.low

    def _spare(self) -> int:
        """A free slot in which no layer stays."""
        taken = set() if self._kept is None else set(self._kept.values())
        slot = next(slot for slot in self._free if slot not in taken)
        self._free.remove(slot)
        return slot

    def _drop_ahead(self) -> None:
        while self._ahead:
            filling = self._ahead.popleft()
            # Nothing may write into a slot that is given to another layer.
            wait(filling.reads)
            self._give_back(filling)

    def _give_back(self, filling: _Filling) -> None:
        """The slot may be read into again."""
        if self._there is not None and filling.sent is not None:
            self._there.left(filling.sent)
        whole = all(read.done() and read.exception() is None for read in filling.reads)
        if self._kept is not None and whole:
            self._kept[filling.number] = filling.slot
        self._free.append(filling.slot)

    def _send(self, filling: _Filling) -> None:
        assert self._there is not None
        if filling.sent is None:
            nbytes = self._layers[filling.number].nbytes
            filling.sent = self._there.send(self._slots[filling.slot][:nbytes])

    def _bind(self, filling: _Filling) -> None:
        key = filling.slot, filling.number
        made = self._views.get(key)
        if made is None:
            made, lasting = self._values(filling)
            if lasting:
                self._views[key] = made
        for bound, value in made:
            bound.put(value)

    def _unbind(self, filling: _Filling) -> None:
        for bound in self._layers[filling.number].bound:
            bound.put(bound.empty)

    def _values(self, filling: _Filling) -> tuple[list[tuple[Bound, torch.Tensor]], bool]:
        """What the layer's attributes become, and whether that is as good for the next layer in
        the same slot: all are views of it."""
        held = self._slots[filling.slot]
        if self._there is not None:
            assert filling.sent is not None
            held = self._there.arrived(filling.sent)
        elif self._device != "cpu":
            held = held.to(self._device)
        memory = self._slots[filling.slot].untyped_storage().data_ptr()
        made: list[tuple[Bound, torch.Tensor]] = []
        # Tensors made in inference mode could be used in no other.
        with torch.inference_mode(mode=False):
            for bound in self._layers[filling.number].bound:
                tensor = bound.tensor
                flat = held[bound.start : bound.start + tensor.nbytes].view(DTYPES[tensor.dtype])
                value = self._convert(tensor.name, flat.view(tensor.shape))
                if isinstance(bound.empty, nn.Parameter):
                    value = nn.Parameter(value, requires_grad=False)
                made.append((bound, value))
        lasting = all(value.untyped_storage().data_ptr() == memory for _, value in made)
        return made, lasting
