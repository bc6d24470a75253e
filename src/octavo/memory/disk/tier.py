"""The disk tier: values in slab files, moved past the page cache, verified when read.

The disk never holds more than the ledger's budget for it: blocks of freed extents, which are
reused faster than new ones, are given back as soon as values need the room.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import torch

from octavo.errors import (
    BudgetExceeded,
    CorruptValue,
    LostValue,
    ReleasedError,
    TierError,
    TierFull,
)
from octavo.memory.disk.access import NO_ROOM, can_punch, why_not_direct
from octavo.memory.disk.bounce import Bounces
from octavo.memory.disk.calls import Calls
from octavo.memory.disk.classes import class_of
from octavo.memory.disk.extent import DiskStats, Extent
from octavo.memory.disk.folders import kept_folder, scratch_folder, unusable
from octavo.memory.disk.index import Index
from octavo.memory.disk.recovery import Recovered, entry_of, recovered
from octavo.memory.disk.slabs import Slabs, slab_path
from octavo.memory.disk.transfer import Transfer, in_pages
from octavo.memory.disk.tuning import DEFAULT, Tuning, load_tuning
from octavo.memory.ledger import Kind, Ledger, Reservation

#: Blocks of freed extents are given back when they are this much and half of the budget.
_IDLE_BYTES: Final = 64 << 20


class DiskTier:
    """Values on a disk. Safe to use from many threads; not to be used across ``fork``.

    Without ``keep`` the files are scratch, in a folder of this process that goes with it; what
    killed processes left is removed by the next one. With ``keep`` values that were committed
    are there for the next process, also after ``kill -9``; after a power failure those that are
    not whole are found out by their checksums.

    Args:
        folder: on the disk; made if it is not there.
        ledger: its ``disk`` budget counts the values, its ``host`` budget a few buffers.
        keep: whether values outlive the process. One process at a time keeps values in a folder.
        tuning: block size and depth; else what ``tune`` found for this disk, else 4 MiB and 4.
        direct: True insists on direct I/O, False does without; None uses it where it works.

    Attributes:
        direct: whether direct I/O is used.
        note: in words why not, when it is not.

    Raises:
        TierError: the folder cannot be used, or another process keeps values in it.
    """

    def __init__(
        self,
        folder: Path,
        ledger: Ledger,
        *,
        keep: bool = False,
        tuning: Tuning | None = None,
        direct: bool | None = None,
    ) -> None:
        self.keep = keep
        self._ledger = ledger
        self._lock = threading.Lock()
        self._extents: dict[tuple[int, int], Extent] = {}
        self._recovered: list[Recovered] = []
        self._trimming = False
        self._lost = 0
        self._index: Index | None = None
        self._calls = Calls()
        with contextlib.ExitStack() as undo:
            self._folder = kept_folder(folder) if keep else scratch_folder(folder)
            undo.callback(self._folder.close, remove=not keep)
            try:
                self.tuning = tuning or load_tuning(folder) or DEFAULT
                self.note = _buffered_note(self._folder.path, direct)
                self._open_slabs(undo)
            except OSError as error:
                raise unusable(self._folder.path, error) from error
            undo.pop_all()
        self.direct = self.note is None
        self._bounces = Bounces(ledger)
        self._transfer = Transfer(
            depth=self.tuning.depth, direct=self.direct, bounces=self._bounces
        )

    def _open_slabs(self, undo: contextlib.ExitStack) -> None:
        path = self._folder.path
        self._punches = can_punch(path)
        taken: dict[int, set[int]] = {}
        if self.keep:
            self._index = Index(path)
            undo.callback(self._index.close)
            self._recovered, self._lost = recovered(
                self._index, path, self._ledger, self._footprint
            )
            for _, _, extent in self._recovered:
                undo.callback(extent.held.release)
                self._extents[extent.size, extent.slot] = extent
                taken.setdefault(extent.size, set()).add(extent.slot)
        self._slabs = Slabs(path, direct=self.note is None, punches=self._punches, taken=taken)

    def write(self, data_b: torch.Tensor, *, kind: Kind, owner: str) -> Extent:
        """Writes a value; blocks until the disk, or its cache, has it.

        Args:
            data_b: 1-D contiguous ``uint8`` on the CPU. Without a copy if it starts on a page
                and its storage goes to the end of its last one, as ``host_buffer`` makes them.
            kind, owner: for the ledger.

        Raises:
            TierFull: the ledger's disk budget is used up, or the disk is full.
            TierError: the disk refused. After either, nothing of the value is held.
        """
        _check_bytes(data_b)
        with self._calls.one("write", data_b.numel()):
            size = class_of(data_b.numel())
            held = self._reserve(kind, self._footprint(data_b.numel(), size), owner)
            try:
                return self._write(data_b, size, held)
            except BaseException:
                held.release()
                raise

    def read(self, extent: Extent, out_b: torch.Tensor) -> None:
        """Fills ``out_b`` with the value, verified.

        Args:
            extent: from :meth:`write` or :meth:`recover`; not to be freed meanwhile.
            out_b: 1-D contiguous ``uint8`` on the CPU, ``extent.nbytes`` long. If it starts on a
                page, its storage may be overwritten up to the end of its last page.

        Raises:
            CorruptValue: the bytes are not those that were written.
            LostValue: the file is too short.
            TierError: the disk refused.
            ReleasedError: the extent was freed.
        """
        _check_bytes(out_b)
        if out_b.numel() != extent.nbytes:
            raise ValueError(f"{out_b.numel()} bytes cannot take a value of {extent.nbytes}")
        with self._calls.one("read", extent.nbytes), self._located(extent.size):
            self._check_held(extent)
            with self._slabs.moving(extent.size) as fd:
                self._transfer.read(fd, extent.offset, out_b, extent.block, extent.sums)

    def commit(self, key: Hashable, header: Mapping[str, Any], extent: Extent) -> None:
        """Has the value outlive this process, if the tier keeps values; else does nothing.

        Raises:
            CodecError: the key is not made of str, int, float, bool, bytes, None and tuples, or
                the header not of JSON values.
            TierFull, TierError: the disk refused. After any of these it is not committed.
        """
        if self._index is None:
            return
        with self._calls.one("commit"), self._located(extent.size):
            self._check_held(extent)
            self._index.put(entry_of(key, header, extent))
            # The value is in; a disk too full to tidy up is no failure of this call.
            with contextlib.suppress(OSError):
                self._index.tidy()

    def free(self, extent: Extent) -> None:
        """Gives the extent up. Harmless when repeated, and after :meth:`close`."""
        with contextlib.suppress(ReleasedError), self._calls.one("free"):
            with self._lock:
                if self._extents.get((extent.size, extent.slot)) is not extent:
                    return
                del self._extents[extent.size, extent.slot]
            if self._voided(extent):
                self._slabs.give(extent.size, extent.slot, extent.held.nbytes)
            extent.held.release()
            self._trim_beside()

    def recover(self) -> list[Recovered]:
        """What an earlier process committed: key, header and extent; oldest first, and once.

        Of values for which the budget had no room the newest were kept, the others are gone.
        """
        with self._lock:
            found, self._recovered = self._recovered, []
        return found

    def trim(self) -> None:
        """Gives the blocks of freed extents back to the disk now."""
        with self._calls.one("trim"):
            self._slabs.trim(0)

    def stats(self) -> DiskStats:
        with self._lock:
            extents = list(self._extents.values())
        return DiskStats(
            used_bytes=sum(extent.held.nbytes for extent in extents),
            idle_bytes=self._slabs.idle_bytes,
            extents=dict(sorted(Counter(extent.size for extent in extents).items())),
            reads=self._calls.done["read"],
            writes=self._calls.done["write"],
            read_bytes=self._calls.bytes["read"],
            written_bytes=self._calls.bytes["write"],
            read_seconds=self._calls.seconds.get("read", 0.0),
            write_seconds=self._calls.seconds.get("write", 0.0),
            errors=self._calls.errors,
            lost=self._lost,
            peak_in_flight=self._transfer.flight.peak,
            direct=self.direct,
            note=self.note,
        )

    def close(self) -> None:
        """Waits for what is under way and ends; scratch files go. Harmless when repeated."""
        if not self._calls.close():
            return
        self._transfer.close()
        if self._index is not None:
            self._drop_uncommitted(self._index)
            self._index.close()
        self._slabs.close()
        self._bounces.close()
        self._folder.close(remove=not self.keep)
        for extent in self._extents.values():
            extent.held.release()
        self._extents.clear()
        self._recovered.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _footprint(self, nbytes: int, size: int) -> int:
        """Disk bytes that a value takes in an extent of ``size``: its pages.

        All of the extent where the filesystem cannot give back what an earlier value left there.
        """
        return in_pages(nbytes) if self._punches else size

    def _reserve(self, kind: Kind, nbytes: int, owner: str) -> Reservation:
        try:
            return self._ledger.reserve("disk", kind, nbytes, owner)
        except BudgetExceeded as error:
            raise TierFull(error.what, where=error.where, next_step=error.next_step) from error

    def _write(self, data_b: torch.Tensor, size: int, held: Reservation) -> Extent:
        with self._located(size):
            try:
                return self._write_once(data_b, size, held)
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
            # Once more without the blocks that freed extents take.
            self._slabs.trim(0)
            try:
                return self._write_once(data_b, size, held)
            except OSError:
                self._slabs.trim(0)
                raise

    def _write_once(self, data_b: torch.Tensor, size: int, held: Reservation) -> Extent:
        slot = self._slabs.take(size, held.nbytes)
        try:
            free = self._ledger.free("disk")
            if self._slabs.idle_bytes > free:
                self._slabs.trim(free)
            with self._slabs.moving(size) as fd:
                sums = self._transfer.write(fd, size * slot, data_b, self.tuning.block)
        except BaseException:
            self._slabs.give(size, slot, held.nbytes)
            raise
        extent = Extent(size, slot, data_b.numel(), self.tuning.block, sums, held)
        with self._lock:
            self._extents[size, slot] = extent
        return extent

    def _check_held(self, extent: Extent) -> None:
        with self._lock:
            held = self._extents.get((extent.size, extent.slot)) is extent
        if not held:
            raise ReleasedError("this extent was freed", next_step="write the value anew")

    def _voided(self, extent: Extent) -> bool:
        """Takes the extent out of the index; False when the disk refuses.

        Its slot is then not used again: the index still says that the value lies there.
        """
        if self._index is None:
            return True
        try:
            self._index.void((extent.size, extent.slot))
        except OSError:
            self._calls.failed()
            return False
        return True

    def _trim_beside(self) -> None:
        """Has a thread give blocks back when freed extents hold many."""
        idle = self._slabs.idle_bytes
        with self._lock:
            if self._trimming or idle <= max(_IDLE_BYTES, self._ledger.budget("disk") // 2):
                return
            self._trimming = True
        self._transfer.submit(lambda: self._trim_half(idle // 2))

    def _trim_half(self, most: int) -> None:
        try:
            self._slabs.trim(most)
        finally:
            with self._lock:
                self._trimming = False

    def _drop_uncommitted(self, index: Index) -> None:
        """Values that nobody committed take no disk after the end."""
        for (size, slot), extent in self._extents.items():
            if (size, slot) not in index:
                self._slabs.give(size, slot, extent.held.nbytes)
        # What stays behind is given back at the next opening.
        with contextlib.suppress(OSError):
            self._slabs.trim(0)

    @contextmanager
    def _located(self, size: int) -> Iterator[None]:
        """Says which file an error concerns, and turns the disk's errors into the tier's."""
        try:
            yield
        except (CorruptValue, LostValue) as error:
            error.where = str(slab_path(self._folder.path, size))
            raise
        except OSError as error:
            where = str(slab_path(self._folder.path, size))
            if error.errno in NO_ROOM:
                raise TierFull(
                    f"the disk has no room: {error.strerror}",
                    where=where,
                    next_step="free room on that disk, or lower the disk budget",
                ) from error
            raise TierError(
                f"the disk refused: {error.strerror or error}",
                where=where,
                next_step="look into the system's log for errors of this disk",
            ) from error


def _buffered_note(folder: Path, direct: bool | None) -> str | None:
    """None for direct I/O, else why not."""
    if direct is False:
        return "direct I/O is switched off: values pass through the page cache"
    note = why_not_direct(folder)
    if note is not None and direct:
        raise TierError(note, where=str(folder), next_step="use another disk, or direct=None")
    return note


def _check_bytes(data_b: torch.Tensor) -> None:
    if (
        data_b.dtype != torch.uint8
        or data_b.dim() != 1
        or data_b.device.type != "cpu"
        or not data_b.is_contiguous()
    ):
        raise ValueError(
            f"the disk tier takes contiguous 1-D uint8 on the CPU, not {data_b.dtype} "
            f"{tuple(data_b.shape)} on {data_b.device}"
        )
