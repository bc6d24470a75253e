"""Makes room in a tier by sending values down, in the order of its policy.

A thread that needs room holds at most the lock of the entry that it moves. Victims' locks are
only tried, never waited for, and each place has threads of its own for its demotions, which
wait for lower places only: so nobody waits in a circle. Who finds no victim waits for the moves
of others, and gives up when the last of them has ended and freed nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice

from octavo.errors import BudgetExceeded, CodecError, OctavoError, TierError
from octavo.memory.buffers import holders_of
from octavo.memory.entry import Entry
from octavo.memory.ledger import PLACES, Kind, Place, Reservation
from octavo.memory.mover import Mover, without_frames
from octavo.memory.policies.base import Key
from octavo.memory.shelves import Shelves

#: Orders candidates of a place: the first goes first. Given at most ``_CONSIDERED`` of them.
Ranking = Callable[[Place, list[Key]], list[Key]]

#: Candidates that a ranking may reorder at a time.
_CONSIDERED = 64
#: From so many bytes on a demotion runs on a thread of its place; smaller ones cost less than
#: the change of threads.
_OWN_THREAD = 64 * 1024
#: A wait for a move that is under way is cut into pieces, in case its end was missed.
_WAIT_S = 0.05


class RoomMaker:
    """Reserves bytes in a tier and sends values down when there are too few.

    Args:
        shelves: the books.
        threads: per place, for demotions that encode or write.
    """

    def __init__(self, shelves: Shelves, *, threads: int) -> None:
        self._shelves = shelves
        #: Calls of :meth:`relieve` that found victims and are moving them.
        self._moving: dict[Place, int] = dict.fromkeys(PLACES, 0)
        self._closed = False
        places: tuple[Place, ...] = ("device", "host")
        self._pools = {
            place: ThreadPoolExecutor(threads, thread_name_prefix=f"octavo-{place}")
            for place in places
        }
        self.ranking: Ranking | None = None
        self.mover: Mover

    def close(self) -> None:
        """Ends the threads. Room can still be made: by the thread that needs it."""
        with self._shelves.lock:
            self._closed = True
        for pool in self._pools.values():
            pool.shutdown(wait=True)

    def room(self, place: Place, kind: Kind, nbytes: int, owner: str) -> Reservation:
        """Reserves ``nbytes``, sending values down until they fit.

        Raises:
            BudgetExceeded: they cannot fit; every value is still where it can be read. The
                cause is what kept the last victim from going down, if anything did.
        """
        ledger = self._shelves.ledger
        failure: OctavoError | None = None
        while True:
            held = ledger.try_reserve(place, kind, nbytes, owner)
            if held is not None:
                return held
            if nbytes > ledger.budget(place):
                raise ledger.refusal(place, kind, nbytes, owner)
            missing = ledger.state(place).short_of(nbytes)
            if not missing or self._shelves.reap():
                continue
            released = self._shelves.releases[place]
            freed, failure = self.relieve(place, missing)
            if not freed and not self._wait(place, released):
                break
        try:
            # Others that hold bytes, such as pools, may have some to give.
            return ledger.reserve(place, kind, nbytes, owner)
        except BudgetExceeded as error:
            raise error from failure

    def relieve(self, place: Place, nbytes: int) -> tuple[int, OctavoError | None]:
        """Frees up to ``nbytes`` of ``place``, or a little more; the bytes that were freed.

        The second value is the last failure of a victim, which stayed where it was.
        """
        if place == "disk":
            return self._thin_out_disk(nbytes), None
        freed, failure = 0, None
        tried: set[Key] = set()
        while freed < nbytes:
            victims = self._choose(place, nbytes - freed, tried)
            if not victims:
                break
            tried.update(entry.key for entry in victims)
            try:
                for got, error in self._demote_all(place, victims):
                    freed += got
                    failure = error or failure
            finally:
                with self._shelves.lock:
                    self._moving[place] -= 1
                    self._shelves.freed.notify_all()
        return freed, failure

    def disk_room(self, nbytes: int) -> bool:
        """Frees room on the disk for a value of ``nbytes``; False when there is none to free."""
        return self._thin_out_disk(nbytes) > 0

    def _wait(self, place: Place, released: int) -> bool:
        """Waits for moves under way in ``place``; whether any bytes of it were given back.

        Not to try again before that matters: threads that all find nothing would keep each
        other waiting by trying.

        Args:
            released: the shelves' count of releases when room was last looked for.
        """
        shelves = self._shelves
        with shelves.lock:
            while self._moving[place] and shelves.releases[place] == released:
                shelves.freed.wait(_WAIT_S)
                shelves.reap()
            return shelves.releases[place] != released

    def _choose(self, place: Place, nbytes: int, tried: set[Key]) -> list[Entry]:
        """The next victims, together at least ``nbytes`` if there are as many.

        If there are any they count as moving, until the caller has moved them.
        """
        with self._shelves.lock:
            chosen: list[Entry] = []
            for entry in self._ranked(place):
                if entry.key in tried or not _free_to_go(place, entry):
                    continue
                chosen.append(entry)
                held = entry.tensor_held if place == "device" else entry.payload_held
                nbytes -= held.nbytes if held is not None else 0
                if nbytes <= 0:
                    break
            self._moving[place] += bool(chosen)
            return chosen

    def _ranked(self, place: Place) -> Iterable[Entry]:
        victims = self._shelves.victims(place)
        ranking = self.ranking
        if ranking is None:
            return victims
        first = {entry.key: entry for entry in islice(victims, _CONSIDERED)}
        ranked = [first[key] for key in ranking(place, list(first))]
        return chain(ranked, victims)

    def _demote_all(
        self, place: Place, victims: list[Entry]
    ) -> list[tuple[int, OctavoError | None]]:
        under_way = []
        done = []
        for entry in victims:
            future = self._submitted(place, entry)
            if future is not None:
                under_way.append(future)
            else:
                done.append(self._demote(place, entry))
        return done + [future.result() for future in under_way]

    def _submitted(
        self, place: Place, entry: Entry
    ) -> Future[tuple[int, OctavoError | None]] | None:
        if entry.nbytes < _OWN_THREAD or _clean(place, entry):
            return None
        with self._shelves.lock:
            if self._closed:
                return None
            return self._pools[place].submit(self._demote, place, entry)

    def _demote(self, place: Place, entry: Entry) -> tuple[int, OctavoError | None]:
        if not entry.lock.acquire(blocking=False):
            return 0, None
        try:
            freed = self._send_down(place, entry)
        except (BudgetExceeded, TierError, CodecError) as error:
            return self._drop_if_allowed(place, entry, without_frames(error))
        finally:
            entry.lock.release()
        if freed:
            self._count(place, freed)
        return freed, None

    def _send_down(self, place: Place, entry: Entry) -> int:
        if entry.dead or entry.pins:
            return 0
        if place == "device":
            return self.mover.sink(entry)
        return self.mover.sink_payload(entry)

    def _drop_if_allowed(
        self, place: Place, entry: Entry, error: OctavoError
    ) -> tuple[int, OctavoError | None]:
        """A value that can be made again goes when the tiers below have no room for it."""
        with self._shelves.lock:
            self._shelves.counters.failed(error)
            full = isinstance(error, BudgetExceeded | TierError)
            if not (full and entry.terms.droppable):
                return 0, error
            if self._shelves.forget(entry.key, entry) is None:
                return 0, error
            self._shelves.counters.dropped += 1
            freed = self._shelves.drop_all(entry)
        return freed[place], None

    def _thin_out_disk(self, nbytes: int) -> int:
        """Frees extents of values that are also above, then droppable values."""
        with self._shelves.lock:
            candidates = list(self._shelves.victims("disk"))
        freed = 0
        for entry in candidates:
            if freed >= nbytes:
                break
            if not entry.lock.acquire(blocking=False):
                continue
            try:
                freed += self._give_up_extent(entry)
            finally:
                entry.lock.release()
        return freed

    def _give_up_extent(self, entry: Entry) -> int:
        with self._shelves.lock:
            exact_above = entry.tensor is not None and not entry.lossy
            if entry.payload is not None or exact_above:
                freed = self._shelves.drop_extent(entry)
            elif entry.terms.droppable and not entry.pins and not entry.dead:
                self._shelves.forget(entry.key, entry)
                self._shelves.counters.dropped += 1
                return self._shelves.drop_all(entry)["disk"]
            else:
                return 0
        self._count("disk", freed)
        return freed

    def _count(self, place: Place, nbytes: int) -> None:
        with self._shelves.lock:
            self._shelves.counters.demotions[place] += 1
            self._shelves.counters.demoted_bytes[place] += nbytes


def _clean(place: Place, entry: Entry) -> bool:
    """Whether a copy below is there already, so that no bytes need to move."""
    if place == "device":
        return entry.payload is not None or entry.extent is not None
    return entry.extent is not None


def _free_to_go(place: Place, entry: Entry) -> bool:
    if entry.pins or entry.lock.locked():
        return False
    if place == "device":
        return entry.tensor is not None and holders_of(entry.tensor) == 1
    return entry.payload is not None
