"""What pools that grow by slabs have in common."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Generic, Self

import torch

from octavo.errors import BudgetExceeded, ConfigError, ReleasedError
from octavo.memory.ledger import Kind, Ledger, Place
from octavo.memory.pools.handles import Handle, Share
from octavo.memory.pools.slab import Slab

#: 0xFF in every byte is NaN in all float types and -1 in signed integers.
POISON = 0xFF


class GrowingPool(ABC, Generic[Share]):
    """Slabs, a lock, and the shares of handles that were dropped without release.

    The lock is never held while the ledger is asked or memory is allocated: the ledger may ask
    this or another pool to give something up.

    Args:
        ledger: counts the slabs.
        name: of the pool; the owner in the ledger.
        kind, place: in the ledger.
        device: where the slabs lie.
        pinned: page-locked main memory; needs CUDA.
        poison: fill what is released with ``0xFF``, so that use of stale addresses shows.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        name: str,
        kind: Kind,
        place: Place,
        device: torch.device | str,
        pinned: bool,
        poison: bool,
    ) -> None:
        self.name, self.kind, self.place = name, kind, place
        self.device = torch.device(device)
        if pinned:
            check_pinned(self.device, name)
        self._ledger = ledger
        self._pinned = pinned
        self._poison = poison
        self._lock = threading.Lock()
        self._grown = threading.Condition(self._lock)
        self._growing = False
        self._closed = False
        # A collected handle must not take the lock: its thread may hold it already.
        self._dropped: deque[tuple[str, Share]] = deque()
        self._leaked: Counter[str] = Counter()
        self._handles = 0
        self._refused = 0
        self._used = 0
        self._peak = 0
        self._stop_reclaiming = ledger.add_reclaimer(place, self._reclaim)

    def trim(self) -> int:
        """Gives back slabs that nobody uses; the bytes that were freed."""
        with self._lock:
            self._settle()
            return self._free_idle(keep=0)

    def close(self) -> None:
        """Ends the pool: its handles cannot be used any more. Harmless when repeated.

        Memory that a tensor still shows stays counted until that tensor is gone.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            slabs = self._abandon()
            self._grown.notify_all()
        self._stop_reclaiming()
        for slab in slabs:
            slab.retire(self._ledger)

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

    def _release(self, handle: Handle[Share]) -> None:
        with self._lock:
            share, handle._share = handle._share, None
            if share is not None and not self._closed:
                self._handles -= 1
                self._give(handle.owner, share)

    def _drop(self, owner: str, share: Share) -> None:
        """Takes note of a handle that was collected. Takes no lock."""
        self._dropped.append((owner, share))

    def _check_open(self) -> None:
        if self._closed:
            raise ReleasedError("the pool is closed", where=self.name, next_step="open a new pool")

    # For pools. All but ``_obtain`` and ``_open_slab`` want the lock.

    def _obtain(
        self, take: Callable[[], Share | None], sizes: Callable[[], Sequence[int]]
    ) -> Share:
        """What ``take`` finds, after growing where it finds nothing.

        Args:
            take: under the lock; None when there is no room.
            sizes: of the new slab, under the lock; smaller ones for when the first is refused.
                Raises ``BudgetExceeded`` where the pool may not grow.
        """
        while True:
            with self._lock:
                self._check_open()
                self._settle()
                share = take()
                if share is not None:
                    self._handles += 1
                    return share
                if self._growing:
                    # One growth at a time, or threads that come together add a slab each.
                    self._grown.wait()
                    continue
                try:
                    wanted = sizes()
                except BudgetExceeded:
                    self._refused += 1
                    raise
                self._growing = True
            self._grow(wanted)

    def _grow(self, sizes: Sequence[int]) -> None:
        slab: Slab | None = None
        try:
            slab = self._open_first(sizes)
        finally:
            with self._lock:
                self._growing = False
                closed = self._closed
                if slab is None:
                    self._refused += 1
                elif not closed:
                    self._add(slab)
                self._grown.notify_all()
            if slab is not None and closed:
                slab.free()

    def _open_first(self, sizes: Sequence[int]) -> Slab:
        *larger, last = sizes
        for nbytes in larger:
            try:
                return self._open_slab(nbytes)
            except BudgetExceeded:
                continue
        return self._open_slab(last)

    def _open_slab(self, nbytes: int) -> Slab:
        return Slab(
            self._ledger,
            place=self.place,
            kind=self.kind,
            owner=self.name,
            nbytes=nbytes,
            device=self.device,
            pinned=self._pinned,
        )

    def _settle(self) -> None:
        """Takes back what collected handles held and what lent tensors have let go."""
        while self._dropped:
            owner, share = self._dropped.popleft()
            if not self._closed:
                self._leaked[owner] += 1
                self._handles -= 1
                self._give(owner, share)
        if not self._closed:
            self._sweep()

    def _count(self, nbytes: int) -> None:
        self._used += nbytes
        self._peak = max(self._peak, self._used)

    def _reclaim(self, _wanted: int) -> int:
        """For the ledger: another owner, or this pool, needs room."""
        with self._lock:
            self._settle()
            return self._free_idle(keep=0)

    @abstractmethod
    def _give(self, owner: str, share: Share) -> None:
        """Takes a share back."""

    @abstractmethod
    def _sweep(self) -> None:
        """Takes back what was lent and is not used any more."""

    @abstractmethod
    def _add(self, slab: Slab) -> None:
        """Takes a new slab in."""

    @abstractmethod
    def _free_idle(self, keep: int) -> int:
        """Frees slabs without live bytes while at least ``keep`` bytes are left."""

    @abstractmethod
    def _abandon(self) -> list[Slab]:
        """Forgets everything; the slabs that there were."""


def check_pinned(device: torch.device, name: str) -> None:
    """
    Raises:
        ConfigError: page-locked memory is not to be had.
    """
    if device.type != "cpu" or not torch.cuda.is_available():
        raise ConfigError(
            "page-locked memory is main memory of a machine with CUDA",
            where=name,
            next_step="use pinned=False" if device.type == "cpu" else "use device='cpu'",
        )
