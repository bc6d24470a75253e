"""Moves the bytes of one value between tiers. The caller holds the entry's lock.

On a CPU the device tier and the host tier are the same memory, so a raw value changes tier by
changing hands; anywhere else, and for encoded values, bytes are copied. A failure leaves every
copy that was there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import torch

from octavo.errors import (
    BudgetExceeded,
    CodecError,
    ConfigError,
    CorruptValue,
    LostValue,
    OctavoError,
    TierFull,
)
from octavo.memory.buffers import PAGE, holders_of, host_buffer, padded
from octavo.memory.codecs import codec_named
from octavo.memory.disk import DiskTier, Extent
from octavo.memory.encoder import Encoder, Encoding, Room, released_on_failure
from octavo.memory.entry import Entry, Terms, version_of
from octavo.memory.ledger import Place, Reservation
from octavo.memory.payload import Payload
from octavo.memory.policies.base import Key
from octavo.memory.shelves import Shelves


class Mover:
    """Lifts values to the device, and sinks them to host and disk.

    Args:
        shelves: where it writes down what it did.
        device: of the tensors in the top tier.
        encoding: how values are encoded on the way down.
        room: asked for bytes before they are taken.
        disk_room: frees room on the disk; False when it cannot.
    """

    def __init__(
        self,
        shelves: Shelves,
        device: torch.device,
        encoding: Encoding,
        room: Room,
        disk_room: Callable[[int], bool],
    ) -> None:
        self._shelves = shelves
        self._device = device
        self._room = room
        self._disk_room = disk_room
        # Passing through needs memory too; without a host budget it comes from the device's,
        # which is the same memory on a CPU.
        self._staging: Place = "host" if shelves.ledger.budget("host") else "device"
        self._encoder = Encoder(
            shelves,
            encoding,
            room,
            shares_memory=self.shares_memory,
            staging=self._staging,
        )

    @property
    def shares_memory(self) -> bool:
        """Whether the device tier lies in the host's memory."""
        return self._device.type == "cpu"

    def lift(self, entry: Entry, keep: Callable[[Entry], bool]) -> torch.Tensor:
        """The value as a tensor on the device, read from the highest tier that has it.

        Args:
            entry: without a tensor.
            keep: whether the tensor stays in the device tier; else it is only lent.

        Raises:
            BudgetExceeded: no room on the device.
            CorruptValue, LostValue, CodecError: what the disk gave back is damaged; the value
                is gone. (A host copy that cannot be decoded is a fault of its codec, and stays.)
        """
        payload = entry.payload
        if payload is not None and self._same_memory(payload):
            return self._lift_shared(entry, payload, keep)
        nbytes = padded(entry.nbytes) if self.shares_memory else entry.nbytes
        held = self._room("device", entry.terms.kind, nbytes, entry.terms.owner)
        with released_on_failure(held):
            tensor = self._decoded(payload) if payload is not None else self._read(entry)
            with self._shelves.lock:
                self._shelves.counters.hits["host" if payload is not None else "disk"] += 1
                if keep(entry):
                    self._shelves.set_tensor(entry, tensor, held)
                else:
                    self._shelves.lend(tensor, held)
        return tensor

    def _lift_shared(
        self, entry: Entry, payload: Payload, keep: Callable[[Entry], bool]
    ) -> torch.Tensor:
        """The host copy as it lies; it changes hands where the device tier has room for it."""
        tensor = _as_tensor(payload)
        nbytes = tensor.untyped_storage().nbytes()
        held: Reservation | None = None
        with suppress(BudgetExceeded):
            held = self._room("device", entry.terms.kind, nbytes, entry.terms.owner)
        with self._shelves.lock:
            self._shelves.counters.hits["host"] += 1
            if held is None:
                return tensor
            with released_on_failure(held):
                if keep(entry):
                    self._shelves.raise_(entry, tensor, held)
                else:
                    held.release()
        return tensor

    def sink(self, entry: Entry) -> int:
        """Gives up the device copy, after a copy below is sure; the bytes freed there.

        Raises:
            BudgetExceeded, TierFull, TierError, CodecError: there is no copy below and none
                can be made; the tensor stays.
        """
        # No name for the tensor here: it would be one more holder, and nothing would be freed.
        if entry.tensor is None or holders_of(entry.tensor) > 1:
            return 0
        self._forget_stale(entry, entry.tensor)
        if entry.payload is not None or entry.extent is not None:
            return self._shelves.drop_tensor(entry)
        if self._shelves.ledger.budget("host"):
            try:
                return self._to_host(entry)
            except (BudgetExceeded, TierFull):
                if self._shelves.disk is None:
                    raise
        self._tensor_to_disk(entry, entry.tensor)
        return self._shelves.drop_tensor(entry)

    def sink_payload(self, entry: Entry) -> int:
        """Gives up the host copy, after another is sure that is as exact; the bytes freed there.

        Raises:
            TierFull, TierError, CodecError: the disk did not take it; the copy stays.
        """
        freed = 0
        if entry.tensor is not None:
            # An older copy is of no use, and to make it anew would need the room asked for here.
            freed = self._forget_stale(entry, entry.tensor)
        if entry.payload is None:
            return freed
        if entry.extent is None and (entry.tensor is None or entry.lossy):
            self._to_disk(entry, entry.payload)
        return self._shelves.drop_payload(entry)

    def write_out(self, entry: Entry) -> None:
        """Makes a disk copy, if there is none; the other copies stay."""
        if entry.tensor is not None:
            self._forget_stale(entry, entry.tensor)
        if entry.extent is not None:
            return
        if entry.payload is not None:
            self._to_disk(entry, entry.payload)
        elif entry.tensor is not None:
            self._tensor_to_disk(entry, entry.tensor)

    def adopt(self, entry: Entry, tensor: torch.Tensor) -> None:
        """Puts a new value into the highest tier with room, before others can see it.

        Raises:
            BudgetExceeded, TierFull, CodecError: no tier takes it; it is in none.
        """
        ledger = self._shelves.ledger
        terms = entry.terms
        refused: OctavoError | None = None
        if entry.nbytes <= ledger.budget("device"):
            try:
                self._adopt_on_device(entry, tensor)
                return
            except BudgetExceeded as error:
                refused = without_frames(error)
        tensor = tensor.resolve_conj().resolve_neg()
        if ledger.budget("host"):
            try:
                payload, host_held = self._encoder.encode(entry, tensor, "host", terms.kind)
                self._shelves.set_payload(entry, payload, host_held)
                return
            except BudgetExceeded as error:
                refused = refused or without_frames(error)
        if self._shelves.disk is None:
            raise refused or ledger.refusal("device", terms.kind, entry.nbytes, terms.owner)
        self._tensor_to_disk(entry, tensor)

    def empty_lent(self, shape: tuple[int, ...], dtype: torch.dtype, owner: str) -> torch.Tensor:
        """A new tensor of any content, whose bytes stay reserved while somebody holds it."""
        nbytes = torch.Size(shape).numel() * dtype.itemsize
        held = self._room(
            "device", "staging", padded(nbytes) if self.shares_memory else nbytes, owner
        )
        with released_on_failure(held):
            tensor = self._empty(dtype, shape)
        self._shelves.lend(tensor, held)
        return tensor

    # Up.

    def _same_memory(self, payload: Payload) -> bool:
        return self.shares_memory and payload.codec == "raw"

    def _read(self, entry: Entry) -> torch.Tensor:
        """The value from its extent. A damaged one is gone, and its entry with it."""
        disk, extent, header = self._shelves.disk, entry.extent, entry.header
        if disk is None or extent is None or header is None:
            raise LostValue("the value is in no tier", where=repr(entry.key))
        try:
            if self.shares_memory and header["codec"] == "raw":
                return _as_tensor(_read_payload(disk, extent, header))
            taken = padded(extent.nbytes)
            with self._room(self._staging, "staging", taken, entry.terms.owner):
                return self._decoded(_read_payload(disk, extent, header))
        except (CorruptValue, LostValue, CodecError) as error:
            self._lose(entry)
            error.where = f"{entry.key!r}" + (f", {error.where}" if error.where else "")
            raise

    def _decoded(self, payload: Payload) -> torch.Tensor:
        tensor = self._empty(payload.dtype, payload.shape)
        codec_named(payload.codec).decode(payload, tensor)
        return tensor

    def _empty(self, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
        if not self.shares_memory:
            return torch.empty(shape, dtype=dtype, device=self._device)
        nbytes = torch.Size(shape).numel() * dtype.itemsize
        return host_buffer(nbytes).view(dtype).view(shape)

    def _lose(self, entry: Entry) -> None:
        with self._shelves.lock:
            self._shelves.counters.lost += 1
            self._shelves.forget(entry.key, entry)
            self._shelves.drop_extent(entry)

    # Down.

    def _forget_stale(self, entry: Entry, tensor: torch.Tensor) -> int:
        """Copies older than an in-place change of the tensor must go; the host bytes freed."""
        if entry.version is None or entry.version == version_of(tensor):
            return 0
        with self._shelves.lock:
            freed = self._shelves.drop_payload(entry)
            self._shelves.drop_extent(entry)
            entry.lossy = False
            entry.version = version_of(tensor)
            return freed

    def _to_host(self, entry: Entry) -> int:
        if entry.tensor is None:
            return 0
        payload, held = self._encoder.encode(entry, entry.tensor, "host", entry.terms.kind)
        if payload.data.untyped_storage()._cdata == entry.tensor.untyped_storage()._cdata:
            return self._shelves.lower(entry, payload, held)
        self._shelves.set_payload(entry, payload, held)
        return self._shelves.drop_tensor(entry)

    def _tensor_to_disk(self, entry: Entry, tensor: torch.Tensor) -> None:
        payload, held = self._encoder.encode(entry, tensor, self._staging, "staging")
        with held:
            self._to_disk(entry, payload)

    def _to_disk(self, entry: Entry, payload: Payload) -> None:
        disk = self._shelves.disk
        if disk is None:
            raise TierFull(
                "there is no disk tier to write to",
                where=repr(entry.key),
                next_step="give a disk folder, or a larger memory",
            )
        header = {**payload.header(), "terms": terms_header(entry.terms)}
        extent = self._write(disk, entry, payload.data)
        try:
            # Replaced meanwhile: a commit after that of the newer value would outlive it.
            if not entry.dead:
                disk.commit(entry.key, header, extent)
        except BaseException:
            disk.free(extent)
            raise
        self._shelves.set_extent(entry, extent, header)

    def _write(self, disk: DiskTier, entry: Entry, data_b: torch.Tensor) -> Extent:
        while True:
            try:
                return disk.write(data_b, kind=entry.terms.kind, owner=entry.terms.owner)
            except TierFull:
                if not self._disk_room(data_b.numel()):
                    raise

    def _adopt_on_device(self, entry: Entry, tensor: torch.Tensor) -> None:
        """Keeps the tensor itself where it can stay as it is, else a copy.

        Memory that another value lies in is copied: neither could leave the device any more.
        """
        terms, shelves = entry.terms, self._shelves
        if self._fits_as_it_is(tensor):
            held = shelves.take_back(tensor)
            if held is not None:
                held.reassign(terms.kind, terms.owner)
            else:
                storage = tensor.untyped_storage().nbytes()
                held = self._room("device", terms.kind, storage, terms.owner)
            with shelves.lock:
                # Only now is it sure: another thread may have put the same tensor.
                if not shelves.owns(tensor):
                    shelves.set_tensor(entry, tensor, held)
                    return
            held.release()
        nbytes = padded(tensor.nbytes) if self.shares_memory else tensor.nbytes
        held = self._room("device", terms.kind, nbytes, terms.owner)
        with released_on_failure(held):
            copy = self._empty(tensor.dtype, tuple(tensor.shape))
            shelves.set_tensor(entry, copy.copy_(tensor.detach()), held)

    def _fits_as_it_is(self, tensor: torch.Tensor) -> bool:
        """On the device, in order, and not a small view that keeps a large storage alive."""
        here = tensor.device.type == self._device.type and (
            self._device.index is None or tensor.device.index == self._device.index
        )
        plain = tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()
        if not here or not plain or self._shelves.owns(tensor):
            return False
        return tensor.untyped_storage().nbytes() - tensor.nbytes < PAGE


def without_frames(error: OctavoError) -> OctavoError:
    """The error without its traceback, whose frames hold tensors that would count as in use."""
    chain: list[BaseException | None] = [error]
    seen: set[int] = set()
    while chain:
        link = chain.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            link.__traceback__ = None
            chain += [link.__cause__, link.__context__]
    return error


def _read_payload(disk: DiskTier, extent: Extent, header: Mapping[str, Any]) -> Payload:
    data = host_buffer(extent.nbytes)
    disk.read(extent, data)
    return Payload.from_header(header, data)


def _as_tensor(payload: Payload) -> torch.Tensor:
    """The tensor whose memory a raw payload is."""
    return payload.data.view(payload.dtype).view(payload.shape)


def terms_header(terms: Terms) -> dict[str, Any]:
    """Terms as JSON values, for the index of a kept disk tier."""
    return asdict(terms)


def entry_of(key: Key, header: Mapping[str, Any]) -> Entry:
    """The entry of a kept value, still without its extent.

    Raises:
        CodecError: the header is not one that was written here.
    """
    payload = Payload.from_header(header, torch.empty(0, dtype=torch.uint8))
    nbytes = torch.Size(payload.shape).numel() * payload.dtype.itemsize
    try:
        return Entry(key, payload.dtype, payload.shape, nbytes, Terms(**header["terms"]))
    except (KeyError, TypeError, ConfigError) as error:
        raise CodecError(
            f"the terms of a stored value are damaged: {error}",
            next_step="put the value anew",
        ) from error
