"""A mapping of keys to tensors over device, host and disk.

What holds at any moment, whatever fails:

- A key is in at least one tier. A value that cannot go down stays where it is.
- A value comes back exact, or within the ``max_error`` it was put with.
- No global lock is held while bytes move; two values move at the same time.
- The ledger's budgets hold. A tensor that a caller still holds keeps its bytes reserved, also
  after the store has let go of it.

Values go into the highest tier with room and are written back only when room is needed. The
only loss that is allowed is of values put as ``droppable``, and only when the lowest tier is
full. A disk that loses bytes costs the values in them: reading one raises and forgets it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch

from octavo.errors import BudgetExceeded, CodecError, OctavoError, ReleasedError
from octavo.memory.disk import DiskTier
from octavo.memory.entry import Entry, Terms
from octavo.memory.foresight import Foresight
from octavo.memory.ledger import Ledger, Place
from octavo.memory.mover import Mover, entry_of
from octavo.memory.policies.base import Key, Policy
from octavo.memory.prediction.base import Predictor
from octavo.memory.room import RoomMaker
from octavo.memory.shelves import Observer, Shelves
from octavo.memory.store_settings import StoreSettings
from octavo.memory.store_stats import StoreStats

__all__ = ["Advice", "StoreSettings", "TieredStore"]

_DEFAULT_TERMS = Terms()
_MISSING: Any = object()

#: How much a key is worth keeping up: values of the lowest rank leave a tier first.
Advice = Callable[[Key], int]


class TieredStore(MutableMapping[Key, torch.Tensor]):
    """Tensors by key, each in the tier where it belongs.

    Args:
        ledger: with a budget for each tier; one of 0 bytes leaves the tier out.
        device: of the tensors that come out.
        disk: the lowest tier, if there is one; the store closes it.
        settings: how it works.

    The store keeps a reference to a tensor put into it and gives out aliases of its own: do not
    change them in place. (A change that torch counts is noticed while the value is in the device
    tier, and kept.) Safe to use from many threads. On CUDA the tensors belong to the stream that
    is current in the thread that asks; other streams must wait for it as usual.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        device: torch.device | str = "cpu",
        disk: DiskTier | None = None,
        settings: StoreSettings | None = None,
    ) -> None:
        self.settings = settings or StoreSettings()
        self.device = torch.device(device)
        policies: dict[Place, Policy] = {
            "device": self.settings.device_policy(ledger.budget("device")),
            "host": self.settings.host_policy(ledger.budget("host")),
            "disk": self.settings.disk_policy(ledger.budget("disk")),
        }
        self._shelves = Shelves(ledger, policies, disk)
        self._rooms = RoomMaker(self._shelves, threads=self.settings.movers)
        self._mover = Mover(
            self._shelves,
            self.device,
            self.settings.encoding,
            self._rooms.room,
            self._rooms.disk_room,
        )
        self._rooms.mover = self._mover
        self._fetchers = ThreadPoolExecutor(self.settings.movers, thread_name_prefix="octavo-fetch")
        self._fetching: dict[Key, Future[None]] = {}
        self._foresight: Foresight | None = None
        self._advice: Advice | None = None
        self._margin = 0
        self._closed = False
        self._reclaimers = [
            ledger.add_reclaimer("device", partial(self.relieve, "device")),
            ledger.add_reclaimer("host", partial(self.relieve, "host")),
        ]
        try:
            self._recover()
        except BaseException:
            self._stop()
            raise

    # The mapping.

    def __getitem__(self, key: Key) -> torch.Tensor:
        """The value on the device.

        Raises:
            KeyError: no such key.
            ReleasedError: the store is closed.
            BudgetExceeded: the device has no room for it; the value stays where it is.
            CorruptValue, LostValue: the disk lost it; the key is gone.
        """
        entry = self._shelves.entries.get(key)
        tensor = entry.tensor if entry is not None else None
        if entry is None or tensor is None:
            return self._fetch(key)
        self._shelves.used(entry)
        # At the edge of what was fetched ahead there is something to decide.
        self._look_ahead(key, now=entry.prefetched)
        return tensor.detach()

    def __setitem__(self, key: Key, tensor: torch.Tensor) -> None:
        self.put(key, tensor)

    def put(self, key: Key, tensor: torch.Tensor, terms: Terms = _DEFAULT_TERMS) -> None:
        """Stores a value in place of the one before, if there was one.

        Raises:
            BudgetExceeded, TierFull: no tier has room; the value before is still there.
        """
        self._check_open()
        hash(key)  # one that has none is refused before anything is reserved
        entry = Entry(key, tensor.dtype, tuple(tensor.shape), tensor.nbytes, terms)
        with entry.lock:
            try:
                self._mover.adopt(entry, tensor)
                before = self._shelves.install(entry)
            except BaseException:
                self._shelves.abandon(entry)
                raise
        if before is not None:
            self._free(before)

    def __delitem__(self, key: Key) -> None:
        if not self.discard(key):
            raise KeyError(key)

    def pop(self, key: Key, /, default: Any = _MISSING) -> Any:
        """Reads and deletes a value; one that comes meanwhile under the same key stays."""
        while True:
            entry = self._shelves.entries.get(key)
            try:
                value = self[key]
            except KeyError:
                if default is _MISSING:
                    raise
                return default
            if entry is not None and self._shelves.forget(key, entry) is not None:
                self._free(entry)
                return value

    def discard(self, key: Key) -> bool:
        """Deletes a value without reading it; whether it was there."""
        entry = self._shelves.forget(key)
        if entry is not None:
            self._free(entry)
        return entry is not None

    def clear(self) -> None:
        """Deletes all values without reading them."""
        for key in self:
            self.discard(key)

    def __contains__(self, key: object) -> bool:
        return key in self._shelves.entries

    def __iter__(self) -> Iterator[Key]:
        with self._shelves.lock:
            return iter(list(self._shelves.entries))

    def __len__(self) -> int:
        return len(self._shelves.entries)

    # More than a mapping.

    def places(self, key: Key) -> tuple[Place, ...]:
        """The tiers in which ``key`` has a copy, highest first; empty when it is not there."""
        entry = self._shelves.entries.get(key)
        with self._shelves.lock:
            return entry.places() if entry is not None else ()

    @contextmanager
    def pinned(self, key: Key) -> Iterator[torch.Tensor]:
        """The value, which stays in the device tier meanwhile."""
        tensor, entry = self._pin(key)
        try:
            yield tensor
        finally:
            with self._shelves.lock:
                entry.pins -= 1

    def borrow(self, shape: tuple[int, ...], dtype: torch.dtype, *, owner: str) -> torch.Tensor:
        """A new tensor on the device, within the budget for as long as anybody holds it.

        Raises:
            BudgetExceeded: the device has no room for it.
        """
        return self._mover.empty_lent(shape, dtype, owner)

    def prefetch(self, keys: Iterable[Key]) -> None:
        """Starts bringing values to the device and returns at once.

        Keys that are not there, or there already, are passed over. A failure is counted; the
        read that follows meets it again and raises.
        """
        with self._shelves.lock:
            for key in keys:
                entry = self._shelves.entries.get(key)
                if entry is None or entry.tensor is not None or key in self._fetching:
                    continue
                if self._closed:
                    return
                self._shelves.counters.prefetches += 1
                self._fetching[key] = self._fetchers.submit(self._fetch_ahead, key)

    def follow(self, predictor: Predictor | None, *, every: int = 1) -> None:
        """Fetches ahead what ``predictor`` names, and lets go first what it expects last.

        Args:
            predictor: None ends it.
            every: hits after which it is asked; a miss asks it at once.
        """
        self._foresight = Foresight(predictor, every=every) if predictor is not None else None
        self._rank()

    def advise(self, advice: Advice | None) -> None:
        """Lets go first the values that ``advice`` ranks lowest, whatever the policy says."""
        self._advice = advice
        self._rank()

    def observe(self, observer: Observer) -> None:
        """Has ``observer`` told of uses, new values and deletions, in order, in batches.

        It is called under the store's lock: it must be quick, must not raise, and must not
        use the store.
        """
        with self._shelves.lock:
            self._shelves.observers.append(observer)

    def settle(self) -> None:
        """Tells policies and observers of the uses so far."""
        self._shelves.settle()

    def relieve(self, place: Place, nbytes: int) -> int:
        """Frees up to ``nbytes`` of a tier, or a little more; what was freed."""
        return self._shelves.reap() + self._rooms.relieve(place, nbytes)[0]

    def flush(self) -> None:
        """Makes a disk copy of every value; the other copies stay.

        Raises:
            TierError, BudgetExceeded, CodecError: the first failure, after all were tried.
        """
        failure: OctavoError | None = None
        for key in self:
            entry = self._shelves.entries.get(key)
            if entry is None:
                continue
            with entry.lock:
                try:
                    if not entry.dead:
                        self._mover.write_out(entry)
                except OctavoError as error:
                    failure = failure or error
        if failure is not None:
            raise failure

    def stats(self) -> StoreStats:
        """What it did and holds, now."""
        return self._shelves.stats()

    def close(self) -> None:
        """Ends the threads, frees every tier and closes the disk. Harmless when repeated.

        Operations of other threads end first, or raise ``ReleasedError``. With a kept disk every
        value is written to it.

        Raises:
            TierError, BudgetExceeded, CodecError: a value could not be kept; it is closed still.
        """
        with self._shelves.lock:
            if self._closed:
                return
            self._closed = True
        self._fetchers.shutdown(wait=True, cancel_futures=True)
        disk = self._shelves.disk
        keep = disk is not None and disk.keep
        try:
            if keep:
                self.flush()
        finally:
            for entry in self._shelves.close():
                # Threads that still move it end first.
                self._free(entry, keep_extent=keep)
            self._stop()
            if disk is not None:
                disk.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Reading from below.

    def _fetch(self, key: Key, *, ahead: bool = False) -> torch.Tensor:
        while True:
            entry = self._found(key)
            with entry.lock:
                if entry.dead:
                    continue
                tensor = entry.tensor
                if tensor is None:
                    self._check_open()
                    tensor = self._mover.lift(entry, (lambda _: True) if ahead else self._worth)
                    entry.prefetched = ahead
                elif not ahead:
                    self._shelves.used(entry)
            if not ahead:
                self._look_ahead(key, now=True)
            return tensor.detach()

    def _fetch_ahead(self, key: Key) -> None:
        try:
            self._fetch(key, ahead=True)
        except (KeyError, ReleasedError):
            pass
        except (OctavoError, RuntimeError, MemoryError, OSError) as error:
            with self._shelves.lock:
                self._shelves.counters.prefetch_failures += 1
                self._shelves.counters.failed(error)
        finally:
            with self._shelves.lock:
                self._fetching.pop(key, None)

    def _worth(self, entry: Entry) -> bool:
        """Whether a value just read may stay in the device tier. Under the shelves' lock.

        One that may not is lent, and its bytes are free again when the caller lets go of it. The
        policy plans with what is left beside such loans and other owners' bytes.
        """
        policy = self._shelves.policies["device"]
        free = self._shelves.ledger.free("device")
        policy.capacity = self._shelves.held["device"] + free + entry.nbytes - self._margin
        if policy.admits(entry.key, entry.nbytes, entry.cost):
            return True
        self._margin = max(self._margin, entry.nbytes)
        return False

    def _pin(self, key: Key) -> tuple[torch.Tensor, Entry]:
        while True:
            entry = self._found(key)
            with entry.lock:
                if entry.dead:
                    continue
                if entry.tensor is None:
                    self._mover.lift(entry, lambda _: True)
                else:
                    self._shelves.used(entry)
                if entry.tensor is None:
                    raise BudgetExceeded("the device has no room to pin a value", where=repr(key))
                with self._shelves.lock:
                    entry.pins += 1
                return entry.tensor.detach(), entry

    # Prediction.

    def _look_ahead(self, key: Key, *, now: bool) -> None:
        foresight = self._foresight
        if foresight is None or (foresight.learns and not now and self._shelves.all_up()):
            return
        coming = foresight.after(key, self.settings.lookahead, now=now)
        found = map(self._shelves.entries.get, coming)
        if any(entry is not None and entry.tensor is None for entry in found):
            self.prefetch(coming)

    def _rank(self) -> None:
        """Has victims ranked by foresight, and above that by advice, if there are any."""
        foresight, advice = self._foresight, self._advice

        def ranked(_: Place, keys: list[Key]) -> list[Key]:
            farthest = foresight.farthest_first(keys) if foresight is not None else keys
            return sorted(farthest, key=advice) if advice is not None else farthest

        self._rooms.ranking = ranked if foresight is not None or advice is not None else None

    # Ends.

    def _free(self, entry: Entry, *, keep_extent: bool = False) -> None:
        """Frees the copies of an entry that nobody finds any more, once its bytes are at rest."""
        with entry.lock:
            self._shelves.drop_tensor(entry)
            self._shelves.drop_payload(entry)
            if not keep_extent:
                self._shelves.drop_extent(entry)

    def _found(self, key: Key) -> Entry:
        entry = self._shelves.entries.get(key)
        if entry is None:
            self._check_open()
            with self._shelves.lock:
                self._shelves.counters.misses += 1
            raise KeyError(key)
        return entry

    def _stop(self) -> None:
        for stop in self._reclaimers:
            stop()
        self._rooms.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ReleasedError("the store is closed", next_step="open a new one")

    def _recover(self) -> None:
        """Enters what an earlier process left in a kept disk tier."""
        disk = self._shelves.disk
        if disk is None:
            return
        for key, header, extent in disk.recover():
            try:
                entry = entry_of(key, header)
            except CodecError:
                disk.free(extent)
                self._shelves.counters.lost += 1
                continue
            self._shelves.set_extent(entry, extent, dict(header))
            before = self._shelves.install(entry)
            # Where the process was killed between the commit of a value and the end of an older.
            if before is not None:
                self._free(before)
