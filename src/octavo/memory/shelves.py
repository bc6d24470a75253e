"""The store's bookkeeping: which value has a copy where. No bytes move here.

One lock guards it all and is only ever held for a few dictionary operations. Whoever moves the
bytes of a value holds the entry's own lock and comes here to write down what happened.
Order of locks: an entry's, then the shelves', then the ledger's.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from octavo.errors import ReleasedError
from octavo.memory.disk import DiskTier, Extent
from octavo.memory.entry import Entry, version_of
from octavo.memory.ledger import PLACES, Ledger, Place, Reservation
from octavo.memory.payload import Payload
from octavo.memory.policies.base import Key, Policy
from octavo.memory.store_stats import Counters, StoreStats
from octavo.memory.trace import Op

#: Uses remembered before they are told to the policies even without a miss.
_USES = 1024

#: Loans in the books from which those that ended are looked for.
_LOANS = 64

#: Told of every use, new value and deletion, in order.
Observer = Callable[[Op, Entry], None]


class Shelves:
    """Entries, policies, lent tensors and counters.

    Args:
        ledger: where bytes are reserved.
        policies: one per place.
        disk: the lowest tier, if there is one.
    """

    def __init__(
        self, ledger: Ledger, policies: Mapping[Place, Policy], disk: DiskTier | None
    ) -> None:
        self.lock = threading.RLock()
        #: Notified whenever a place has got room, or a move that was under way has ended.
        self.freed = threading.Condition(self.lock)
        self.ledger = ledger
        self.policies = dict(policies)
        self.disk = disk
        self.entries: dict[Key, Entry] = {}
        self.uses: deque[Entry] = deque()
        self.counters = Counters()
        self.observers: list[Observer] = []
        #: Bytes of this store's own copies, by place.
        self.held: dict[Place, int] = dict.fromkeys(PLACES, 0)
        #: How often bytes of a place were given back.
        self.releases: dict[Place, int] = dict.fromkeys(PLACES, 0)
        self.closed = False
        #: Memory of the copies here, by its address in torch, and how many copies lie in it.
        self._own: Counter[int] = Counter()
        self._lent: list[tuple[StorageWeakRef, Reservation]] = []
        self._reap_from = _LOANS
        self._stop_reaping: list[Callable[[], None]] = []

    # Uses.

    def used(self, entry: Entry) -> None:
        """``entry`` was hit in the top tier. Cheap: the policies hear of it later, in order."""
        self.uses.append(entry)
        if len(self.uses) > _USES and self.lock.acquire(blocking=False):
            try:
                self.settle()
            finally:
                self.lock.release()

    def settle(self) -> None:
        """Tells the policies and observers of uses so far."""
        with self.lock:
            self._settle()

    def _settle(self) -> None:
        device = self.policies["device"]
        while self.uses:
            entry = self.uses.popleft()
            self.counters.hits["device"] += 1
            if entry.prefetched:
                entry.prefetched = False
                self.counters.prefetch_hits += 1
            if not entry.dead and entry.key in device:
                device.touch(entry.key)
            # A reader may have found the value just before it was deleted, and told of that.
            if not entry.dead:
                self.tell("get", entry)

    def tell(self, event: Op, entry: Entry) -> None:
        for observer in self.observers:
            observer(event, entry)

    # Copies come and go. All of these hold the entry's lock.

    def set_tensor(self, entry: Entry, tensor: torch.Tensor, held: Reservation) -> None:
        with self.lock:
            # Detached: a view would keep its base as a second holder of the memory.
            entry.tensor, entry.tensor_held = tensor.detach(), held
            entry.version = version_of(entry.tensor)
            self._own[tensor.untyped_storage()._cdata] += 1
            self.held["device"] += held.nbytes
            self._told("device", entry, held.nbytes)

    def drop_tensor(self, entry: Entry) -> int:
        """Takes the top copy away; the bytes that this really freed.

        A reader may have taken the tensor an instant before: its bytes then stay reserved until
        the last view of them is gone, and nothing has been freed.
        """
        with self.lock:
            tensor, held = entry.tensor, entry.tensor_held
            entry.tensor = entry.tensor_held = None
            if tensor is None or held is None:
                return 0
            if self._current(entry):
                self.policies["device"].evict(entry.key)
            self.held["device"] -= held.nbytes
            memory = self._disown(tensor)
            del tensor
            return self._let_go(memory, held)

    def set_payload(self, entry: Entry, payload: Payload, held: Reservation) -> None:
        with self.lock:
            entry.payload, entry.payload_held = payload, held
            entry.lossy = entry.lossy or payload.error > 0
            self._own[payload.data.untyped_storage()._cdata] += 1
            self.held["host"] += held.nbytes
            self._told("host", entry, held.nbytes)

    def drop_payload(self, entry: Entry) -> int:
        """Takes the host copy away; the bytes that this freed."""
        with self.lock:
            payload, held = entry.payload, entry.payload_held
            entry.payload = entry.payload_held = None
            if payload is None or held is None:
                return 0
            if self._current(entry):
                self.policies["host"].evict(entry.key)
            self.held["host"] -= held.nbytes
            memory = self._disown(payload.data)
            del payload
            return self._let_go(memory, held)

    def lower(self, entry: Entry, payload: Payload, held: Reservation) -> int:
        """The tensor's own memory becomes the host copy; the device bytes that this freed."""
        with self.lock:
            self.set_payload(entry, payload, held)
            return self._hand_over("device", entry)

    def raise_(self, entry: Entry, tensor: torch.Tensor, held: Reservation) -> int:
        """The host copy's own memory becomes the tensor; the host bytes that this freed."""
        with self.lock:
            self.set_tensor(entry, tensor, held)
            return self._hand_over("host", entry)

    def _hand_over(self, place: Place, entry: Entry) -> int:
        if place == "device":
            held, tensor = entry.tensor_held, entry.tensor
            entry.tensor = entry.tensor_held = None
        else:
            held, tensor = entry.payload_held, entry.payload.data if entry.payload else None
            entry.payload = entry.payload_held = None
        if held is None or tensor is None:
            return 0
        if self._current(entry):
            self.policies[place].evict(entry.key)
        self._disown(tensor)
        self.held[place] -= held.nbytes
        return self._release(held)

    def set_extent(self, entry: Entry, extent: Extent, header: dict[str, object]) -> None:
        with self.lock:
            entry.extent, entry.header = extent, header
            entry.lossy = entry.lossy or bool(header.get("error"))
            self._told("disk", entry, extent.nbytes)

    def drop_extent(self, entry: Entry) -> int:
        """Takes the disk copy away; the bytes that this freed."""
        with self.lock:
            extent = entry.extent
            entry.extent = entry.header = None
            if extent is None or self.disk is None:
                return 0
            if self._current(entry):
                self.policies["disk"].evict(entry.key)
            self.disk.free(extent)
            self.freed.notify_all()
            return extent.nbytes

    def drop_all(self, entry: Entry) -> dict[Place, int]:
        """Takes every copy away; the bytes that this freed, by place."""
        with self.lock:
            return {
                "device": self.drop_tensor(entry),
                "host": self.drop_payload(entry),
                "disk": self.drop_extent(entry),
            }

    def close(self) -> list[Entry]:
        """Takes all values out and lets none in; those that were there, with their copies."""
        with self.lock:
            self.settle()
            self.closed = True
            entries = list(self.entries.values())
            self.entries.clear()
            for entry in entries:
                self._withdraw(entry)
            self._reap_for_others()
            return entries

    # Values come and go.

    def install(self, entry: Entry) -> Entry | None:
        """Makes ``entry`` the value of its key; the one that it replaces."""
        with self.lock:
            self.settle()
            if self.closed:
                raise ReleasedError("the store is closed", next_step="open a new one")
            before = self.entries.get(entry.key)
            self.entries[entry.key] = entry
            if before is not None:
                self._withdraw(before)
            self._enter(entry)
            self.counters.puts += 1
            self.tell("put", entry)
            return before

    def forget(self, key: Key, entry: Entry | None = None) -> Entry | None:
        """Takes the value of ``key`` out, if it is still ``entry``; None when it is not there."""
        with self.lock:
            self.settle()
            found = self.entries.get(key)
            if found is None or (entry is not None and found is not entry):
                return None
            del self.entries[key]
            self._withdraw(found)
            self.tell("delete", found)
            return found

    def abandon(self, entry: Entry) -> None:
        """Takes the copies of a new value back that did not become the one of its key."""
        with self.lock:
            if not self._current(entry):
                self.drop_all(entry)

    def _withdraw(self, entry: Entry) -> None:
        """No new reader finds ``entry``; the policies know its key no longer."""
        entry.dead = True
        for policy in self.policies.values():
            policy.remove(entry.key)

    def _enter(self, entry: Entry) -> None:
        """Tells the policies of the copies that a new value came with."""
        if entry.tensor_held is not None:
            self.policies["device"].insert(entry.key, entry.tensor_held.nbytes, entry.cost)
        if entry.payload_held is not None:
            self.policies["host"].insert(entry.key, entry.payload_held.nbytes, entry.cost)
        if entry.extent is not None:
            self.policies["disk"].insert(entry.key, entry.extent.nbytes, entry.cost)

    def _told(self, place: Place, entry: Entry, nbytes: int) -> None:
        # A value that is not yet, or no longer, the one of its key must not enter its books.
        if self._current(entry):
            self.policies[place].insert(entry.key, nbytes, entry.cost)

    def _current(self, entry: Entry) -> bool:
        return self.entries.get(entry.key) is entry

    # Tensors that callers hold.

    def lend(self, tensor: torch.Tensor, held: Reservation) -> None:
        """Keeps ``held`` for as long as somebody holds ``tensor``, which the store does not."""
        with self.lock:
            self._enter_loan(StorageWeakRef(tensor.untyped_storage()), held)

    def owns(self, tensor: torch.Tensor) -> bool:
        """Whether a copy of some value lies in the memory of ``tensor``."""
        with self.lock:
            return tensor.untyped_storage()._cdata in self._own

    def take_back(self, tensor: torch.Tensor) -> Reservation | None:
        """The bytes of a lent tensor, for a store that keeps it now; None where it is not lent."""
        storage = tensor.untyped_storage()
        with self.lock:
            for place, (memory, held) in enumerate(self._lent):
                if memory.cdata == storage._cdata and held.place == "device":
                    del self._lent[place]
                    return held
        return None

    def reap(self) -> int:
        """Releases what callers have let go; the bytes freed."""
        with self.lock:
            gone = [held for memory, held in self._lent if memory.expired()]
            if not gone:
                return 0
            self._lent = [pair for pair in self._lent if not pair[0].expired()]
            return sum(self._release(held) for held in gone)

    def lent_bytes(self) -> int:
        """Bytes of tensors that left the store while a caller still held them."""
        with self.lock:
            return sum(held.nbytes for _, held in self._lent)

    def _let_go(self, memory: StorageWeakRef, held: Reservation) -> int:
        if memory.expired():
            return self._release(held)
        self._enter_loan(memory, held)
        return 0

    def _reap_for_others(self) -> None:
        """After the end: whoever needs bytes of loans that outlive the store ends those it can."""
        if self.closed and self._lent and not self._stop_reaping:
            self._stop_reaping = [
                self.ledger.add_reclaimer(place, self._reap_late) for place in PLACES
            ]

    def _reap_late(self, _: int) -> int:
        with self.lock:
            freed = self.reap()
            while self._stop_reaping and not self._lent:
                self._stop_reaping.pop()()
            return freed

    def _enter_loan(self, memory: StorageWeakRef, held: Reservation) -> None:
        self._lent.append((memory, held))
        self._reap_for_others()
        if len(self._lent) >= self._reap_from:
            self.reap()
            self._reap_from = max(_LOANS, 2 * len(self._lent))

    def _disown(self, tensor: torch.Tensor) -> StorageWeakRef:
        storage = tensor.untyped_storage()
        self._own[storage._cdata] -= 1
        if not self._own[storage._cdata]:
            del self._own[storage._cdata]
        return StorageWeakRef(storage)

    def _release(self, held: Reservation) -> int:
        nbytes = held.nbytes
        held.release()
        self.releases[held.place] += nbytes > 0
        self.freed.notify_all()
        return nbytes

    # Looking.

    def victims(self, place: Place) -> Iterator[Entry]:
        """Values with a copy in ``place``, who goes first first. Under ``lock``."""
        self.settle()
        for key in self.policies[place].victims():
            entry = self.entries.get(key)
            if entry is not None:
                yield entry

    def stats(self) -> StoreStats:
        """What was counted, and what is here now."""
        with self.lock:
            self.reap()
            self.settle()
            copies = dict.fromkeys(PLACES, 0)
            for entry in self.entries.values():
                for place in entry.places():
                    copies[place] += 1
            return self.counters.stats(
                values=len(self.entries), copies=copies, lent_bytes=self.lent_bytes()
            )

    def all_up(self) -> bool:
        """Whether every value has a copy in the device tier. A look without the lock."""
        return len(self.policies["device"]) == len(self.entries)

    def check(self) -> None:
        """Raises AssertionError where the books disagree; for tests and debugging."""
        with self.lock:
            for key, entry in self.entries.items():
                assert entry.key == key
                assert not entry.dead
                assert entry.places(), f"{key!r} is in no tier"
                for place in PLACES:
                    assert (key in self.policies[place]) == (place in entry.places()), (key, place)
