"""The ledger under threads and finalizers."""

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
from hypothesis import strategies as st

from octavo.errors import BudgetExceeded
from octavo.memory.ledger import KINDS, PLACES, Ledger, Place, Reservation

BUDGETS: dict[Place, int] = {"device": 100, "host": 200, "disk": 0}
places = st.sampled_from(PLACES)
kinds = st.sampled_from(KINDS)
amounts = st.integers(0, 120)
owners = st.sampled_from(["a", "b", "c"])
numbers = st.integers(0, 100)


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
