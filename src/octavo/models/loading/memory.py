"""The memory of one component: taken as a whole before anything is read, or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import torch
from torch import nn

from octavo.errors import BudgetExceeded
from octavo.hardware.spec import Precision
from octavo.memory.buffers import MAPPED_FROM, host_buffer, padded
from octavo.memory.ledger import Kind, Ledger, Place, Reservation
from octavo.memory.sizes import format_bytes
from octavo.models.loading.layout import Buffer, Layout, Wanted
from octavo.models.loading.places import Places
from octavo.models.loading.wanted import DTYPES

if TYPE_CHECKING:
    from octavo.models.quantized import QuantizedLinear

#: Chunks of staging: one is cast while the other is read.
CHUNKS: Final = 2
#: Parameters with memory of their own start at multiples of this: a cache line.
_LINE: Final = 64


class Memory:
    """Buffers, copies, quantized layers and staging of one component, and their reservations.

    Args:
        device: of the parameters; staging is always on the host.
        owner: in the ledger.

    Attributes:
        buffers: 1-D ``uint8`` each, at addresses that differ from the file's offsets by pages.
        copies: parameter → its memory, for those that are not views of a buffer.
        quantized: parameter → its layer.
        free_chunks: of staging.

    Raises:
        BudgetExceeded: there is no room. Nothing is held.
    """

    def __init__(
        self,
        layout: Layout,
        wanted: Sequence[Wanted],
        places: Places,
        *,
        precision: Precision | None,
        compute: Precision,
        device: torch.device,
        ledger: Ledger | None,
        owner: str,
    ) -> None:
        self._layout = layout
        self._wanted = wanted
        self._places = places
        self._ledger = ledger
        self._owner = owner
        self.device = device
        self.buffers: list[torch.Tensor] = []
        self.copies: dict[str, torch.Tensor] = {}
        self.quantized: dict[str, QuantizedLinear] = {}
        self.free_chunks: list[torch.Tensor] = []
        self._reserved: list[Reservation] = []
        self._staging: list[Reservation] = []
        self._swapped: list[tuple[nn.Module, nn.Module]] = []
        self.nbytes = self._needed(precision, compute)
        try:
            self._reserve()
            # Tensors made in inference mode could not be written to by other threads.
            with torch.inference_mode(mode=False):
                self._allocate(precision, compute)
        except (OSError, MemoryError, RuntimeError) as error:
            self.give_back()
            raise BudgetExceeded(
                f"the system has no {format_bytes(self.nbytes)} for {owner}: {error}",
                where=f"{device.type} memory",
                next_step="free memory, or load in a smaller precision",
            ) from error
        except BaseException:
            self.give_back()
            raise

    def place(self) -> None:
        """Puts everything into the module."""
        for buffer, data_b in zip(self._layout.buffers, self.buffers, strict=True):
            for one in buffer.views:
                self._places[one.name].fill(_view(one, buffer, data_b))
        for name, value in self.copies.items():
            self._places[name].fill(value)
        for name, layer in self.quantized.items():
            linear = self._places[name].linear
            assert linear is not None, "only weights of linear layers are quantized"
            # The bias, filled just before or still to come, is the same parameter in both.
            layer._parameters["bias"] = linear._parameters["bias"]
            layer.train(linear.training)
            self._swapped.append((linear, layer))
        self._places.replace_modules(self._swapped)

    def need_staging(self, chunk_bytes: int) -> int:
        """Makes chunks where there are none; bytes of one.

        Raises:
            BudgetExceeded: there is no room.
        """
        if not self.free_chunks:
            self._take_staging(chunk_bytes)
        return self.free_chunks[0].numel()

    def release_staging(self) -> None:
        self.free_chunks.clear()
        for held in self._staging:
            held.release()
        self._staging.clear()

    def give_back(self) -> None:
        """Drops all memory; parameters that were filled are again what they were."""
        if self._swapped:
            self._places.replace_modules([(new, old) for old, new in self._swapped])
            self._swapped.clear()
        for one in self._wanted:
            self._places[one.name].empty()
        self.buffers.clear()
        self.copies.clear()
        self.quantized.clear()
        self.release_staging()
        for held in self._reserved:
            held.release()
        self._reserved.clear()

    def _needed(self, precision: Precision | None, compute: Precision) -> int:
        """Bytes of the parameters when they are loaded, with what pads them."""
        quantized = sum(
            one.source.bytes_at(precision, compute) for one in self._wanted if one.quantized
        )
        buffers = sum(_padded(buffer) for buffer in self._layout.buffers)
        return buffers + padded(_copied_bytes(self._copied)) + quantized

    @property
    def _copied(self) -> list[Wanted]:
        return [one for one in self._layout.copies if not one.quantized]

    def _reserve(self) -> None:
        if self._ledger is not None:
            place: Place = "host" if self.device.type == "cpu" else "device"
            held = self._ledger.reserve(place, "weights", self.nbytes, self._owner)
            self._reserved.append(held)

    def _take_staging(self, chunk_bytes: int) -> None:
        pinned = self.device.type == "cuda"
        if self._ledger is not None:
            kind: Kind = "pinned" if pinned else "staging"
            nbytes = CHUNKS * padded(chunk_bytes)
            self._staging.append(self._ledger.reserve("host", kind, nbytes, self._owner))
        self.free_chunks += [host_buffer(chunk_bytes, pinned=pinned) for _ in range(CHUNKS)]

    def _allocate(self, precision: Precision | None, compute: Precision) -> None:
        self.buffers += [_aligned(buffer.nbytes) for buffer in self._layout.buffers]
        self._allocate_copies()
        if any(one.quantized for one in self._wanted):
            assert precision is not None
            self._allocate_quantized(precision, DTYPES[compute])
        if self._layout.chunk_bytes:
            self._take_staging(self._layout.chunk_bytes)

    def _allocate_copies(self) -> None:
        total = _copied_bytes(self._copied)
        if self.device.type == "cpu":
            data_b = host_buffer(total)
        else:
            data_b = torch.empty(total, dtype=torch.uint8, device=self.device)
        offset = 0
        for one in self._copied:
            held_b = data_b[offset : offset + one.held_bytes]
            self.copies[one.name] = held_b.view(one.dtype).view(one.shape)
            offset += _in_lines(one.held_bytes)

    def _allocate_quantized(self, precision: Precision, compute: torch.dtype) -> None:
        from octavo.models.quantized import QuantizedLinear

        for one in self._wanted:
            if one.quantized:
                rows, columns = one.shape
                self.quantized[one.name] = QuantizedLinear.empty(
                    rows, columns, False, precision, compute, self.device
                )


def _view(one: Wanted, buffer: Buffer, data_b: torch.Tensor) -> torch.Tensor:
    low = one.source.offset - buffer.low
    return data_b[low : low + one.source.nbytes].view(one.stored).view(one.shape)


def _padded(buffer: Buffer) -> int:
    return padded(max(buffer.nbytes, MAPPED_FROM))


def _aligned(nbytes: int) -> torch.Tensor:
    """On a page even when it is small: a file's pages are read straight into it."""
    return host_buffer(max(nbytes, MAPPED_FROM))[:nbytes]


def _copied_bytes(copied: Sequence[Wanted]) -> int:
    return sum(_in_lines(one.held_bytes) for one in copied)


def _in_lines(nbytes: int) -> int:
    return -(-nbytes // _LINE) * _LINE
