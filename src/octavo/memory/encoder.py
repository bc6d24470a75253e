"""Encodes values on their way down, inside the budget.

A codec that fails, has no room to work in, or does not pay, leaves the plain bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch

from octavo.errors import BudgetExceeded, CodecError
from octavo.memory.buffers import host_buffer, padded, resident
from octavo.memory.codecs import choose, encode_within
from octavo.memory.codecs.base import Codec
from octavo.memory.entry import Entry, Terms
from octavo.memory.ledger import Kind, Place, Reservation
from octavo.memory.payload import Payload
from octavo.memory.shelves import Shelves

#: A choice of codec serves so many values alike; so many choices are remembered.
_SAME_CHOICE, _CHOICES = 16, 1024


class Room(Protocol):
    """Reserves bytes, making room for them if it must."""

    def __call__(self, place: Place, kind: Kind, nbytes: int, owner: str) -> Reservation: ...


@dataclass(frozen=True, slots=True)
class Encoding:
    """How values are encoded on their way down.

    Attributes:
        enabled: whether other codecs than ``raw`` may be used at all.
        min_ratio: raw bytes by encoded bytes under which a value stays raw.
        pinned: whether host copies lie in page-locked memory.
    """

    enabled: bool = True
    min_ratio: float = 1.3
    pinned: bool = False


class Encoder:
    """Turns tensors into payloads whose bytes are reserved.

    Args:
        shelves: its ledger and counters.
        settings: what may be used.
        room: asked for bytes of host and disk before they are taken.
        shares_memory: whether the device's tensors lie in host memory.
        staging: the place whose bytes are used in passing.
    """

    def __init__(
        self,
        shelves: Shelves,
        settings: Encoding,
        room: Room,
        *,
        shares_memory: bool,
        staging: Place,
    ) -> None:
        self._shelves = shelves
        self._settings = settings
        self._room = room
        self._shares_memory = shares_memory
        self._staging = staging
        # Threads may overwrite each other's choice: at worst one is made twice.
        self._chosen: dict[object, tuple[Codec, int]] = {}

    def encode(
        self, entry: Entry, tensor: torch.Tensor, place: Place, kind: Kind
    ) -> tuple[Payload, Reservation]:
        """The payload, and the bytes of ``place`` that hold it.

        Bytes are reserved for the worst case before anything is allocated, and what was not
        needed is given back once the size is known.
        """
        codec = self._codec(tensor, entry.terms)
        if codec is not None:
            try:
                return self._compressed(entry, tensor, codec, place, kind)
            except BudgetExceeded:
                pass  # no room to work in; the plain bytes may need none
            except (CodecError, RuntimeError, ValueError, MemoryError) as error:
                with self._shelves.lock:
                    self._shelves.counters.failed(error)
        return self._plain(entry, tensor, place, kind)

    def _compressed(
        self, entry: Entry, tensor: torch.Tensor, codec: Codec, place: Place, kind: Kind
    ) -> tuple[Payload, Reservation]:
        largest = padded(max(codec.size_bound(entry.dtype, entry.shape), entry.nbytes))
        scratch = codec.scratch(entry.dtype, entry.shape)
        owner = entry.terms.owner
        held = self._take(place, kind, largest, owner)
        with (
            released_on_failure(held),
            self._take(self._staging, "staging", scratch, owner),
        ):
            payload = encode_within(
                tensor, entry.terms.max_error, self._settings.min_ratio, codec=codec
            )
            held.shrink(held.nbytes - resident(payload.data))
        self._count(entry, payload)
        return payload, held

    def _plain(
        self, entry: Entry, tensor: torch.Tensor, place: Place, kind: Kind
    ) -> tuple[Payload, Reservation]:
        shared = raw_view(tensor) if self._shares_memory else None
        if shared is None:
            held = self._take(place, kind, padded(entry.nbytes), entry.terms.owner)
            with released_on_failure(held):
                return _raw_copy(tensor, pinned=self._settings.pinned), held
        # To stay on the host it needs the host's bytes: the device's are released then.
        taken = tensor.untyped_storage().nbytes() if kind != "staging" else 0
        return shared, self._take(place, kind, taken, entry.terms.owner)

    def _take(self, place: Place, kind: Kind, nbytes: int, owner: str) -> Reservation:
        """Reserves bytes on the way down. None of the device's are freed for that.

        Whoever makes room on the device waits for this very move: it would wait for itself.
        """
        if place != "device":
            return self._room(place, kind, nbytes, owner)
        held = self._shelves.ledger.try_reserve(place, kind, nbytes, owner)
        if held is None:
            raise self._shelves.ledger.refusal(place, kind, nbytes, owner)
        return held

    def _codec(self, tensor: torch.Tensor, terms: Terms) -> Codec | None:
        """What to encode with; None for the plain bytes.

        Choosing takes a sample of the tensor. Values of one owner, dtype and width are alike, so
        a choice serves the next few of them too; what it does not suit ends as plain bytes.
        """
        if not self._settings.enabled or tensor.numel() == 0:
            return None
        alike = (terms.owner, terms.max_error, tensor.dtype, tensor.shape[-1:])
        codec, uses = self._chosen.get(alike, (None, 0))
        if codec is None or uses >= _SAME_CHOICE:
            codec, uses = choose(tensor, terms.max_error, self._settings.min_ratio), 0
            if len(self._chosen) >= _CHOICES:
                self._chosen.clear()
        self._chosen[alike] = (codec, uses + 1)
        return None if codec.name == "raw" else codec

    def _count(self, entry: Entry, payload: Payload) -> None:
        with self._shelves.lock:
            counters = self._shelves.counters
            counters.raw_bytes += entry.nbytes
            counters.encoded_bytes += payload.nbytes
            counters.codecs[payload.codec] = counters.codecs.get(payload.codec, 0) + 1


@contextmanager
def released_on_failure(held: Reservation) -> Iterator[None]:
    try:
        yield
    except BaseException:
        held.release()
        raise


def raw_view(tensor: torch.Tensor) -> Payload | None:
    """A payload that is the tensor's own memory; None where its bytes do not lie in order."""
    if tensor.device.type != "cpu" or not tensor.is_contiguous() or tensor.is_conj():
        return None
    data = tensor.detach().reshape(-1).view(torch.uint8)
    return Payload("raw", tensor.dtype, tuple(tensor.shape), data)


def _raw_copy(tensor: torch.Tensor, *, pinned: bool) -> Payload:
    data = host_buffer(tensor.nbytes, pinned=pinned)
    data.view(tensor.dtype).view(tensor.shape).copy_(tensor.detach())
    return Payload("raw", tensor.dtype, tuple(tensor.shape), data)
