"""A fixed row of equal slots in one slab, handed out and taken back: under ring and staging."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar

import torch

from octavo.errors import BudgetExceeded, ConfigError, ReleasedError
from octavo.memory.buffers import PAGE, holders_of
from octavo.memory.ledger import Kind, Ledger, Place
from octavo.memory.pools.growing import POISON, check_pinned
from octavo.memory.pools.parts import Fence, Part
from octavo.memory.pools.slab import Slab
from octavo.memory.pools.stats import SlotStats
from octavo.memory.sizes import format_bytes

#: A collected handle cannot wake those who wait, so they look for themselves so often.
_LOOK_S = 0.05

Got = TypeVar("Got")


class SlotRow:
    """Slots, a lock, and those that wait. One slab from construction to :meth:`close`.

    A slot starts on a page, whole pages long. It is used again at once: a tensor that somebody
    kept over it then shows what comes next. Such releases are counted as stale.

    Args:
        ledger: counts the slab under ``kind`` in ``place`` for owner ``name``.
        slots, slot_nbytes: how many, and bytes of each.
        device: where they lie.
        pinned: page-locked main memory; needs CUDA.
        poison: fill released slots with ``0xFF`` (NaN in float types), to find stale use.

    Raises:
        BudgetExceeded: there is no room for all slots.
        ConfigError: no such slots can be.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        name: str,
        slots: int,
        slot_nbytes: int,
        kind: Kind,
        place: Place,
        device: torch.device | str = "cpu",
        pinned: bool = False,
        poison: bool = False,
    ) -> None:
        if slots < 1 or slot_nbytes < 1:
            raise ConfigError(
                f"{slots} slots of {slot_nbytes} bytes hold nothing",
                where=name,
                next_step="give at least one slot of one byte",
            )
        self.name, self.kind, self.place = name, kind, place
        self.slots, self.slot_nbytes = slots, slot_nbytes
        self.device = torch.device(device)
        if pinned:
            check_pinned(self.device, name)
        self._ledger = ledger
        self._poison = poison
        stride = -(-slot_nbytes // PAGE) * PAGE
        self._slab = Slab(
            ledger,
            place=place,
            kind=kind,
            owner=name,
            nbytes=slots * stride,
            device=self.device,
            pinned=pinned,
        )
        self._pieces = [self._slab.piece(i * stride, stride) for i in range(slots)]
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._free = deque(range(slots))
        self._fences: dict[int, Fence] = {}
        self._out: Counter[str] = Counter()
        self._dropped: deque[tuple[int, str]] = deque()
        self._leaked: Counter[str] = Counter()
        self._closed = False
        self._peak = 0
        self._refused = 0
        self._stale = 0

    def close(self) -> None:
        """Wakes all who wait, with ``ReleasedError``; handles cannot be used any more.

        Memory that a tensor still shows stays counted until that tensor is gone. Harmless when
        repeated.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._pieces.clear()
            self._fences.clear()
            self._changed.notify_all()
        self._slab.retire(self._ledger)

    def stats(self) -> SlotStats:
        with self._lock:
            self._settle()
            return SlotStats(
                name=self.name,
                kind=self.kind,
                place=self.place,
                nbytes=self._slab.counted,
                slots=self.slots,
                free=len(self._free),
                peak=self._peak,
                leaked=dict(self._leaked),
                refused=self._refused,
                stale=self._stale,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # For handles.

    def _buffer(self, handle: SlotHandle) -> torch.Tensor:
        with self._lock:
            return self._pieces[handle._held()][: self.slot_nbytes]

    def _release(self, handle: SlotHandle, after: Fence | None) -> None:
        with self._lock:
            slot, handle._slot = handle._slot, None
            if slot is not None and not self._closed:
                self._put_back(slot, handle.owner, after)

    def _drop(self, slot: int, owner: str) -> None:
        """Takes note of a handle that was collected. Takes no lock: its thread may hold it."""
        self._dropped.append((slot, owner))

    def _check_open(self) -> None:
        if self._closed:
            raise ReleasedError("it is closed", where=self.name, next_step="open a new one")

    # For ring and staging.

    def _claim(self, owner: str, timeout: float | None) -> int | None:
        """A free slot whose last work has ended; None after ``timeout`` seconds."""
        with self._lock:
            slot = self._wait_for(self._pop_free, timeout)
            if slot is None:
                self._refused += 1
                return None
            self._out[owner] += 1
            self._peak = max(self._peak, self.slots - len(self._free))
            fence = self._fences.pop(slot, None)
        if fence is not None:
            # Without the lock: it may take as long as a copy.
            try:
                fence.synchronize()
            except BaseException:
                with self._lock:
                    self._put_back(slot, owner, None)
                raise
        return slot

    def _refusal(self, owner: str, timeout: float | None) -> BudgetExceeded:
        with self._lock:
            holders = ", ".join(
                f"{who or 'nameless'} {held}" for who, held in self._out.most_common(4) if held
            )
        waited = f" after {timeout} s" if timeout else ""
        return BudgetExceeded(
            f"{owner or 'nameless'} wants a slot of {format_bytes(self.slot_nbytes)}, none of "
            f"{self.slots} is free{waited}; held by {holders or 'nobody'}",
            where=self.name,
            next_step="release slots, wait longer, or open it with more slots",
        )

    # Under the lock.

    def _wait_for(self, look: Callable[[], Got | None], timeout: float | None) -> Got | None:
        """What ``look`` finds as soon as it finds something; None after ``timeout`` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            self._check_open()
            self._settle()
            found = look()
            if found is not None:
                return found
            left = _LOOK_S if until is None else min(until - time.monotonic(), _LOOK_S)
            if left <= 0:
                return None
            self._changed.wait(left)

    def _pop_free(self) -> int | None:
        return self._free.popleft() if self._free else None

    def _put_back(self, slot: int, owner: str, after: Fence | None) -> None:
        self._out[owner] -= 1
        if self._closed:
            return
        piece = self._pieces[slot]
        if holders_of(piece) > 1:
            self._stale += 1
        if after is not None:
            self._fences[slot] = after
        elif self._poison:
            piece.fill_(POISON)
        self._free.append(slot)
        self._changed.notify_all()

    def _settle(self) -> None:
        """Takes back what collected handles held."""
        while self._dropped:
            slot, owner = self._dropped.popleft()
            if not self._closed:
                self._leaked[owner] += 1
                self._lost(slot, owner)

    def _lost(self, slot: int, owner: str) -> None:
        self._put_back(slot, owner, None)


class SlotHandle:
    """One slot, held. Every use after it was given back, or after the close of its pool, raises
    ``ReleasedError``. One that is dropped instead goes back and is counted as a leak."""

    __slots__ = ("_row", "_slot", "owner")

    def __init__(self, row: SlotRow, slot: int, owner: str) -> None:
        self._row = row
        self._slot: int | None = slot
        self.owner = owner

    @property
    def buffer(self) -> torch.Tensor:
        """The slot's bytes: 1-D ``uint8`` of ``slot_nbytes``, starting on a page."""
        return self._row._buffer(self)

    def view(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """The start of the slot as a tensor.

        Raises:
            ConfigError: it does not fit.
        """
        return self.views({"tensor": Part(0, tuple(shape), dtype)})["tensor"]

    def views(self, layout: Mapping[str, Part]) -> dict[str, torch.Tensor]:
        """Tensors by name that lie in the slot. Nothing is copied.

        Raises:
            ConfigError: one does not fit, or its offset is no multiple of its dtype's size.
        """
        buffer = self.buffer
        return {name: part.of(buffer, name) for name, part in layout.items()}

    def __del__(self) -> None:
        if self._slot is not None:
            self._row._drop(self._slot, self.owner)

    def _held(self) -> int:
        if self._slot is None:
            raise ReleasedError(
                "this slot was given back", where=self._row.name, next_step="take one anew"
            )
        self._row._check_open()
        return self._slot
