"""The one place that knows the budget.

Every long-lived byte has an owner here. Bytes are counted per *place* (``device``, ``host``,
``disk``, each with a budget of its own) and per *kind* (what they are for). The ledger counts;
it allocates nothing, so the order is always: reserve, allocate, free, release.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self, get_args

from octavo.errors import BudgetExceeded, ConfigError, ReleasedError
from octavo.memory.sizes import format_bytes

Place = Literal["device", "host", "disk"]
Kind = Literal["weights", "kv", "features", "activations", "staging", "pinned", "other"]
PLACES: tuple[Place, ...] = get_args(Place)
KINDS: tuple[Kind, ...] = get_args(Kind)

#: Asked for a number of bytes in its place, frees what it can; says how much it freed.
Reclaimer = Callable[[int], int]
#: How often reclaimers are asked for one reservation, as long as they free something.
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Holding:
    """Bytes that one owner holds of one kind in one place."""

    place: Place
    kind: Kind
    owner: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class PlaceState:
    """One place at one moment; all figures in bytes.

    Attributes:
        budget, used: the limit, and the sum of all reservations.
        peak: the highest ``used`` so far.
        by_kind, peak_by_kind: the same, by kind.
    """

    budget: int
    used: int
    peak: int
    by_kind: Mapping[Kind, int]
    peak_by_kind: Mapping[Kind, int]

    @property
    def free(self) -> int:
        return max(self.budget - self.used, 0)

    def short_of(self, nbytes: int) -> int:
        """Bytes to free so that ``nbytes`` fit, those of an overdrawn budget included."""
        return max(self.used + nbytes - self.budget, 0)


class Reservation:
    """Bytes granted to an owner until released. Made by :meth:`Ledger.reserve`.

    Releasing twice is harmless; growing or shrinking after release raises ``ReleasedError``.
    """

    __slots__ = ("_ledger", "_nbytes", "_released", "kind", "owner", "place")

    def __init__(self, ledger: Ledger, place: Place, kind: Kind, nbytes: int, owner: str) -> None:
        self._ledger = ledger
        self._nbytes = nbytes
        self._released = False
        self.place = place
        self.kind = kind
        self.owner = owner

    @property
    def nbytes(self) -> int:
        return self._nbytes

    def grow(self, nbytes: int) -> None:
        """Adds ``nbytes``, all or nothing.

        Raises:
            BudgetExceeded: they do not fit; the reservation is as before.
        """
        self._ledger._change(self, nbytes)

    def shrink(self, nbytes: int) -> None:
        """Gives ``nbytes`` back."""
        self._ledger._change(self, -nbytes)

    def reassign(self, kind: Kind, owner: str) -> None:
        """The same bytes, for something else."""
        self._ledger._reassign(self, kind, owner)

    def release(self) -> None:
        self._ledger._release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<{self.nbytes} bytes of {self.kind} in {self.place} for {self.owner}>"


class _Account:
    """What is held in one place."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.used = 0
        self.peak = 0
        self.by_kind: dict[Kind, int] = dict.fromkeys(KINDS, 0)
        self.peak_by_kind: dict[Kind, int] = dict.fromkeys(KINDS, 0)
        self.by_owner: defaultdict[tuple[Kind, str], int] = defaultdict(int)
        self.reclaimers: list[Reclaimer] = []

    def add(self, kind: Kind, owner: str, nbytes: int) -> None:
        self.used += nbytes
        self.peak = max(self.peak, self.used)
        self.by_kind[kind] += nbytes
        self.peak_by_kind[kind] = max(self.peak_by_kind[kind], self.by_kind[kind])
        # Read and written in one step: a finalizer may release for the same owner in between.
        self.by_owner[kind, owner] += nbytes
        if not self.by_owner[kind, owner]:
            self.by_owner.pop((kind, owner), None)


class Ledger:
    """Grants bytes or refuses and says who holds them. Safe to use from many threads.

    Args:
        budgets: bytes per place; a place that is not named has none.
    """

    def __init__(self, budgets: Mapping[Place, int]) -> None:
        unknown = set(budgets) - set(PLACES)
        if unknown:
            raise ConfigError(
                f"{min(unknown)!r} is not a place for memory",
                next_step=f"use {', '.join(PLACES)}",
            )
        # Re-entrant: a finalizer may release while this thread is inside.
        self._lock = threading.RLock()
        self._accounts = {place: _Account(budgets.get(place, 0)) for place in PLACES}

    def reserve(self, place: Place, kind: Kind, nbytes: int, owner: str) -> Reservation:
        """Grants ``nbytes``, after asking reclaimers to make room if it must.

        Raises:
            BudgetExceeded: they do not fit; says who holds what. Nothing is reserved.
        """
        granted = self.try_reserve(place, kind, nbytes, owner)
        # What was freed may be taken by another thread, one that reads ahead above all.
        for _ in range(_ATTEMPTS):
            freed = 0
            for reclaim in self._reclaimers(place):
                if granted is not None:
                    return granted
                # Without the lock: a reclaimer moves bytes and releases reservations.
                freed += reclaim(max(self.state(place).short_of(nbytes), 1))
                granted = self.try_reserve(place, kind, nbytes, owner)
            if granted is not None or not freed:
                break
        if granted is None:
            raise self.refusal(place, kind, nbytes, owner)
        return granted

    def try_reserve(self, place: Place, kind: Kind, nbytes: int, owner: str) -> Reservation | None:
        """Grants ``nbytes`` if they are free now, else None; asks nobody to make room."""
        if nbytes < 0:
            raise ValueError(f"cannot reserve {nbytes} bytes")
        with self._lock:
            account = self._accounts[place]
            if account.used + nbytes > account.budget:
                return None
            account.add(kind, owner, nbytes)
        return Reservation(self, place, kind, nbytes, owner)

    @contextmanager
    def activations(self, place: Place, nbytes: int, owner: str) -> Iterator[Reservation]:
        """Holds the predicted ``nbytes`` of a computation's intermediate results meanwhile."""
        with self.reserve(place, "activations", nbytes, owner) as held:
            yield held

    def add_reclaimer(self, place: Place, reclaim: Reclaimer) -> Callable[[], None]:
        """Has ``reclaim`` asked before a reservation is refused; call the result to stop that."""
        with self._lock:
            self._accounts[place].reclaimers.append(reclaim)

        def stop() -> None:
            with self._lock:
                if reclaim in self._accounts[place].reclaimers:
                    self._accounts[place].reclaimers.remove(reclaim)

        return stop

    def budget(self, place: Place) -> int:
        return self._accounts[place].budget

    def used(self, place: Place) -> int:
        return self._accounts[place].used

    def free(self, place: Place) -> int:
        """Bytes that can be reserved now; 0 while a lowered budget is overdrawn."""
        with self._lock:
            account = self._accounts[place]
            return max(account.budget - account.used, 0)

    def set_budget(self, place: Place, nbytes: int) -> None:
        """Changes a budget. A lower one than what is used grants nothing until enough is freed."""
        with self._lock:
            self._accounts[place].budget = nbytes

    def state(self, place: Place) -> PlaceState:
        with self._lock:
            account = self._accounts[place]
            return PlaceState(
                account.budget,
                account.used,
                account.peak,
                dict(account.by_kind),
                dict(account.peak_by_kind),
            )

    def holdings(self, place: Place | None = None) -> list[Holding]:
        """Who holds what, largest first."""
        with self._lock:
            held = [
                Holding(where, kind, owner, nbytes)
                for where in ((place,) if place else PLACES)
                # A copy: a finalizer may release while the list grows.
                for (kind, owner), nbytes in self._accounts[where].by_owner.copy().items()
            ]
        return sorted(held, key=lambda holding: (-holding.nbytes, holding.owner))

    def refusal(self, place: Place, kind: Kind, nbytes: int, owner: str) -> BudgetExceeded:
        """The error that says why ``nbytes`` are not granted."""
        state = self.state(place)
        holders = ", ".join(
            f"{held.owner} {format_bytes(held.nbytes)} of {held.kind}"
            for held in self.holdings(place)[:4]
        )
        return BudgetExceeded(
            f"{owner} wants {format_bytes(nbytes)} of {kind}, {format_bytes(state.free)} of "
            f"{format_bytes(state.budget)} is free; held by {holders or 'nobody'}",
            where=f"{place} memory",
            next_step=f"free {state.short_of(nbytes)} bytes there, or raise the {place} budget "
            f"to at least {state.used + nbytes} bytes",
        )

    def _reclaimers(self, place: Place) -> list[Reclaimer]:
        with self._lock:
            return list(self._accounts[place].reclaimers)

    def _change(self, held: Reservation, nbytes: int) -> None:
        with self._lock:
            if held._released:
                raise ReleasedError(
                    "this reservation was released", where=held.owner, next_step="reserve anew"
                )
            if held._nbytes + nbytes < 0:
                raise ValueError(f"cannot shrink {held._nbytes} bytes by {-nbytes}")
            account = self._accounts[held.place]
            fits = nbytes <= 0 or account.used + nbytes <= account.budget
            if fits:
                account.add(held.kind, held.owner, nbytes)
                held._nbytes += nbytes
        if not fits:
            raise self.refusal(held.place, held.kind, nbytes, held.owner)

    def _reassign(self, held: Reservation, kind: Kind, owner: str) -> None:
        with self._lock:
            account = self._accounts[held.place]
            account.add(held.kind, held.owner, -held._nbytes)
            held.kind, held.owner = kind, owner
            account.add(kind, owner, held._nbytes)

    def _release(self, held: Reservation) -> None:
        with self._lock:
            if held._released:
                return
            held._released = True
            self._accounts[held.place].add(held.kind, held.owner, -held._nbytes)
            held._nbytes = 0
