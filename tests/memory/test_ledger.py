"""The ledger against a plain dict, from many threads, and from finalizers."""

from __future__ import annotations

import gc
import random
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from octavo.errors import BudgetExceeded, ConfigError, ReleasedError, TierFull
from octavo.memory.ledger import KINDS, PLACES, Holding, Kind, Ledger, Place, Reservation
from octavo.memory.sizes import parse_bytes

BUDGETS: dict[Place, int] = {"device": 100, "host": 200, "disk": 0}
places = st.sampled_from(PLACES)
kinds = st.sampled_from(KINDS)
amounts = st.integers(0, 120)
owners = st.sampled_from(["a", "b", "c"])
numbers = st.integers(0, 100)


class LedgerModel(RuleBasedStateMachine):
    """A list of (place, kind, owner, bytes) says what the ledger must say."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(BUDGETS)
        self.budgets = dict(BUDGETS)
        self.held: list[tuple[Reservation, list[int]]] = []
        self.gone: list[Reservation] = []
        self.peak: Counter[object] = Counter()

    def used(self, place: Place, kind: Kind | None = None) -> int:
        return sum(
            size[0] for each, size in self.held if each.place == place and kind in (None, each.kind)
        )

    def fits(self, place: Place, nbytes: int) -> bool:
        return self.used(place) + nbytes <= self.budgets[place]

    def note_peak(self) -> None:
        for place in PLACES:
            for kind in (None, *KINDS):
                now = self.used(place, kind)
                self.peak[place, kind] = max(self.peak[place, kind], now)

    @rule(place=places, kind=kinds, nbytes=amounts, owner=owners)
    def reserve(self, place: Place, kind: Kind, nbytes: int, owner: str) -> None:
        if self.fits(place, nbytes):
            held = self.ledger.reserve(place, kind, nbytes, owner)
            assert (held.place, held.kind, held.owner, held.nbytes) == (place, kind, owner, nbytes)
            self.held.append((held, [nbytes]))
            self.note_peak()
        else:
            assert self.ledger.try_reserve(place, kind, nbytes, owner) is None
            with pytest.raises(BudgetExceeded):
                self.ledger.reserve(place, kind, nbytes, owner)

    @precondition(lambda self: self.held)
    @rule(number=numbers, nbytes=amounts)
    def grow(self, number: int, nbytes: int) -> None:
        held, size = self.held[number % len(self.held)]
        if nbytes == 0 or self.fits(held.place, nbytes):
            held.grow(nbytes)
            size[0] += nbytes
            self.note_peak()
        else:
            with pytest.raises(BudgetExceeded):
                held.grow(nbytes)

    @precondition(lambda self: self.held)
    @rule(number=numbers, nbytes=amounts)
    def shrink(self, number: int, nbytes: int) -> None:
        held, size = self.held[number % len(self.held)]
        if nbytes <= size[0]:
            held.shrink(nbytes)
            size[0] -= nbytes
        else:
            with pytest.raises(ValueError, match="cannot shrink"):
                held.shrink(nbytes)

    @precondition(lambda self: self.held)
    @rule(number=numbers)
    def release(self, number: int) -> None:
        held, _ = self.held.pop(number % len(self.held))
        held.release()
        self.gone.append(held)

    @precondition(lambda self: self.gone)
    @rule(number=numbers)
    def use_after_release(self, number: int) -> None:
        held = self.gone[number % len(self.gone)]
        held.release()
        for change in (held.grow, held.shrink):
            with pytest.raises(ReleasedError):
                change(1)
        assert held.nbytes == 0

    @rule(place=places, nbytes=st.integers(0, 250))
    def set_budget(self, place: Place, nbytes: int) -> None:
        self.ledger.set_budget(place, nbytes)
        self.budgets[place] = nbytes

    @invariant()
    def agrees(self) -> None:
        for place in PLACES:
            state = self.ledger.state(place)
            assert state.used == self.ledger.used(place) == self.used(place)
            assert state.budget == self.ledger.budget(place) == self.budgets[place]
            assert state.free == self.ledger.free(place)
            assert state.free == max(self.budgets[place] - self.used(place), 0)
            assert state.by_kind == {kind: self.used(place, kind) for kind in KINDS}
            assert state.peak == self.peak[place, None]
            assert state.peak_by_kind == {kind: self.peak[place, kind] for kind in KINDS}
        sums: Counter[tuple[Place, Kind, str]] = Counter()
        for held, size in self.held:
            sums[held.place, held.kind, held.owner] += size[0]
        expected = [Holding(*who, nbytes) for who, nbytes in sums.items() if nbytes]
        listed = self.ledger.holdings()
        assert sorted(map(str, listed)) == sorted(map(str, expected))
        assert [each.nbytes for each in listed] == sorted(
            (each.nbytes for each in listed), reverse=True
        )


TestLedgerModel = LedgerModel.TestCase
TestLedgerModel.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_unknown_places_are_refused() -> None:
    with pytest.raises(ConfigError, match="'tape' is not a place"):
        Ledger({"tape": 3})  # type: ignore[dict-item]


def test_negative_amounts_are_refused() -> None:
    ledger = Ledger(BUDGETS)
    with pytest.raises(ValueError, match="cannot reserve -1"):
        ledger.reserve("host", "kv", -1, "a")
    assert ledger.used("host") == 0


def test_with_releases_after_an_error() -> None:
    ledger = Ledger(BUDGETS)

    def fail(*, predicted: bool) -> None:
        if predicted:
            with ledger.activations("host", 7, "a") as held:
                assert held.kind == "activations"
                raise ZeroDivisionError
        with ledger.reserve("host", "kv", 7, "a"):
            assert ledger.used("host") == 7
            raise ZeroDivisionError

    for predicted in (True, False):
        with pytest.raises(ZeroDivisionError):
            fail(predicted=predicted)
        assert ledger.used("host") == 0


# What a refusal says.


def test_a_refusal_names_the_largest_holders() -> None:
    ledger = Ledger({"device": 10_000_000})
    for number in range(6):
        ledger.reserve("device", "kv", (number + 1) * 100_000, f"owner{number}")
    ledger.reserve("device", "weights", 5_000_000, "model")
    with pytest.raises(BudgetExceeded) as error:
        ledger.reserve("device", "features", 4_000_000, "tower")
    text = str(error.value)
    assert error.value.where == "device memory"
    assert "tower wants 4 MB of features" in text
    assert "2.9 MB of 10 MB is free" in text
    assert "model 5 MB of weights, owner5 600 kB of kv" in text
    assert "owner2" not in text
    assert "free 1100000 bytes" in text


def test_a_refusal_where_nobody_holds_anything() -> None:
    with pytest.raises(BudgetExceeded, match="held by nobody"):
        Ledger({}).reserve("disk", "other", 1, "a")


@pytest.mark.parametrize(("used", "wanted"), [(900, 200), (123_456_789, 1_000_004), (0, 2**40 + 1)])
def test_the_next_step_is_enough(used: int, wanted: int) -> None:
    """The budget that a refusal asks for is enough, and so are the bytes to free."""
    budget = used + wanted - 1
    ledger = Ledger({"host": budget})
    ledger.reserve("host", "kv", used, "a")
    with pytest.raises(BudgetExceeded) as error:
        ledger.reserve("host", "kv", wanted, "b")
    assert error.value.next_step is not None
    assert "free 1 bytes" in error.value.next_step
    ledger.set_budget("host", asked_for(error.value.next_step))
    ledger.reserve("host", "kv", wanted, "b")


def asked_for(next_step: str) -> int:
    figure = next_step.split("at least ")[1]
    return parse_bytes(figure.replace(" bytes", ""))


def test_after_a_lower_budget_the_overdraft_is_to_be_freed_too() -> None:
    ledger = Ledger({"host": 100})
    held = ledger.reserve("host", "kv", 100, "a")
    ledger.set_budget("host", 40)
    assert ledger.free("host") == 0
    with pytest.raises(BudgetExceeded, match="free 70 bytes"):
        ledger.reserve("host", "kv", 10, "b")
    asked: list[int] = []

    def reclaim(nbytes: int) -> int:
        asked.append(nbytes)
        held.shrink(nbytes)
        return nbytes

    ledger.add_reclaimer("host", reclaim)
    ledger.reserve("host", "kv", 10, "b")
    assert asked == [70]
    assert ledger.used("host") == 40


# Reclaimers.


def test_reclaimers_are_asked_in_turn_without_the_lock() -> None:
    ledger = Ledger({"host": 100})
    first = ledger.reserve("host", "kv", 30, "first")
    second = ledger.reserve("host", "kv", 70, "second")
    asked: list[tuple[str, int]] = []

    def other_thread_can_look() -> None:
        looked = threading.Event()

        def look() -> None:
            ledger.state("host")
            looked.set()

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        assert looked.wait(30), "the lock is held while a reclaimer runs"
        thread.join()

    def reclaim_first(nbytes: int) -> int:
        asked.append(("first", nbytes))
        other_thread_can_look()
        first.release()
        return 30

    def reclaim_second(nbytes: int) -> int:
        asked.append(("second", nbytes))
        second.release()
        return 70

    def never(nbytes: int) -> int:
        raise AssertionError("there is room already")

    for reclaim in (reclaim_first, reclaim_second, never):
        ledger.add_reclaimer("host", reclaim)
    ledger.add_reclaimer("device", never)
    ledger.reserve("host", "weights", 50, "new")
    assert asked == [("first", 50), ("second", 20)]
    assert ledger.used("host") == 50


def test_a_reclaimer_may_reserve_and_lie() -> None:
    """What counts is what is free, not what a reclaimer says."""
    ledger = Ledger({"host": 100, "disk": 100})
    ledger.reserve("host", "kv", 100, "a")

    def reclaim(nbytes: int) -> int:
        ledger.reserve("disk", "kv", nbytes, "spilled")
        return nbytes

    ledger.add_reclaimer("host", reclaim)
    with pytest.raises(BudgetExceeded):
        ledger.reserve("host", "kv", 10, "b")
    assert ledger.used("disk") == 10


def test_a_reclaimer_that_fails_leaves_no_trace() -> None:
    ledger = Ledger({"host": 100})
    ledger.reserve("host", "kv", 100, "a")

    def fail(nbytes: int) -> int:
        raise TierFull("no space")

    stop = ledger.add_reclaimer("host", fail)
    before = ledger.state("host")
    with pytest.raises(TierFull):
        ledger.reserve("host", "kv", 10, "b")
    assert ledger.state("host") == before
    assert not ledger._lock._is_owned()  # type: ignore[attr-defined]
    stop()
    stop()
    with pytest.raises(BudgetExceeded):
        ledger.reserve("host", "kv", 10, "b")


def test_nobody_is_asked_without_need() -> None:
    ledger = Ledger({"host": 100})

    def never(nbytes: int) -> int:
        raise AssertionError("asked")

    ledger.add_reclaimer("host", never)
    ledger.reserve("host", "kv", 100, "a")
    assert ledger.try_reserve("host", "kv", 1, "b") is None


# Threads.


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads take turns a thousand times more often than usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("switching")
def test_threads_never_pass_the_budget() -> None:
    """Eight threads; what each truly holds is summed up beside the ledger."""
    ledger = Ledger({"host": 1000, "device": 300})
    start = threading.Barrier(9)
    truth: Counter[str] = Counter()
    guard = threading.Lock()
    faults: list[str] = []
    done = threading.Event()

    def watch() -> None:
        start.wait()
        while not done.is_set():
            for place in ("host", "device"):
                state = ledger.state(place)
                if state.used > state.budget or sum(state.by_kind.values()) != state.used:
                    faults.append(f"{state}")
                if sum(each.nbytes for each in ledger.holdings(place)) > state.budget:
                    faults.append("holdings pass the budget")

    def count(place: str, nbytes: int) -> None:
        with guard:
            truth[place] += nbytes
            if truth[place] > {"host": 1000, "device": 300}[place]:
                faults.append(f"{truth[place]} granted in {place}")

    def work(seed: int) -> None:
        chance = random.Random(seed)
        held: list[Reservation] = []
        start.wait()
        for _ in range(300):
            if held and chance.random() < 0.5:
                each = held.pop(chance.randrange(len(held)))
                # Counted out before the release, and in after the grant: the truth is never more.
                count(each.place, -each.nbytes)
                each.release()
                continue
            place = chance.choice(("host", "device"))
            found = ledger.try_reserve(place, chance.choice(KINDS), chance.randrange(150), "x")
            if found is not None:
                count(place, found.nbytes)
                held.append(found)
                try:
                    found.grow(20)
                except BudgetExceeded:
                    continue
                count(place, 20)
        for each in held:
            count(each.place, -each.nbytes)
            each.release()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    watcher = threading.Thread(target=watch)
    for thread in (*threads, watcher):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    watcher.join()
    assert faults == []
    assert ledger.holdings() == []
    assert ledger.used("host") == ledger.used("device") == 0


def test_one_of_many_threads_releases() -> None:
    ledger = Ledger({"host": 100})
    for _ in range(50):
        held = ledger.reserve("host", "kv", 100, "a")
        start = threading.Barrier(4)

        def release(held: Reservation = held, start: threading.Barrier = start) -> None:
            start.wait()
            held.release()

        threads = [threading.Thread(target=release) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ledger.used("host") == 0


# Finalizers: the collector may run one inside any call of the ledger, in the same thread.


class Node:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.me = self


def drop_in_a_cycle(held: Reservation) -> None:
    weakref.finalize(Node(), held.release)


@pytest.fixture
def collector() -> Iterator[None]:
    """Switched off until the test wants it, and fast: older objects are left alone."""
    before = gc.get_threshold()
    gc.disable()
    gc.freeze()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)
    gc.enable()


@contextmanager
def collects_after_allocations(count: int) -> Iterator[None]:
    gc.set_threshold(gc.get_count()[0] + count)
    gc.enable()
    yield
    gc.disable()


@contextmanager
def collects_at_line(number: int) -> Iterator[None]:
    """At the given line that runs in the ledger."""
    left = number
    before = sys.gettrace()

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename != sys.modules[Ledger.__module__].__file__:
            return None
        left -= event == "line"
        if event == "line" and left == 0:
            gc.collect()
        return trace

    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.mark.usefixtures("collector")
@pytest.mark.parametrize("when", [collects_after_allocations, collects_at_line])
@pytest.mark.parametrize("call", ["reserve", "grow", "release", "holdings", "state"])
def test_a_finalizer_may_release_at_any_moment(
    call: str, when: Callable[[int], AbstractContextManager[None]]
) -> None:
    """The collector runs ever later, so in every place where it can run."""
    for moment in range(1, 40):
        ledger = Ledger({"host": 1000})
        kept = ledger.reserve("host", "kv", 5, "a")
        also = ledger.reserve("host", "kv", 11, "z")
        for owner in ("a", "a", "b", "c", "d", "z"):
            drop_in_a_cycle(ledger.reserve("host", "kv", 7, owner))
        calls: dict[str, Callable[[], object]] = {
            "reserve": lambda ledger=ledger: ledger.reserve("host", "kv", 3, "a"),
            "grow": lambda kept=kept: kept.grow(3),
            "release": also.release,
            "holdings": ledger.holdings,
            "state": lambda ledger=ledger: ledger.state("host"),
        }
        with when(moment):
            calls[call]()
        gc.collect()
        held = {"a": 8 if call in ("reserve", "grow") else 5, "z": 0 if call == "release" else 11}
        assert {each.owner: each.nbytes for each in ledger.holdings()} == {
            owner: nbytes for owner, nbytes in held.items() if nbytes
        }, moment
        assert ledger.used("host") == sum(held.values()), moment


class Owner(str):
    """An owner whose hash runs the collector: the ledger asks for it under its lock."""

    __slots__ = ()

    def __hash__(self) -> int:
        gc.collect()
        return super().__hash__()


@pytest.mark.usefixtures("collector")
def test_a_finalizer_under_the_lock_does_not_lock_up() -> None:
    ledger = Ledger({"host": 100})
    drop_in_a_cycle(ledger.reserve("host", "kv", 60, "a"))
    finished: list[Reservation] = []
    thread = threading.Thread(
        target=lambda: finished.append(ledger.reserve("host", "kv", 30, Owner("b"))),
        daemon=True,
    )
    thread.start()
    thread.join(30)
    assert finished, "locked up"
    assert ledger.used("host") == 30
