"""The ledger against a plain dict, from many threads, and from finalizers."""

from __future__ import annotations

import threading
from collections import Counter

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
    # It is asked again, but not for ever.
    assert 10 <= ledger.used("disk") <= 50


def test_what_was_freed_and_taken_by_another_is_asked_for_again() -> None:
    ledger = Ledger({"host": 100})
    held = [ledger.reserve("host", "kv", 100, "a")]
    asked: list[int] = []

    def reclaim(nbytes: int) -> int:
        asked.append(nbytes)
        held.pop().release()
        if len(asked) < 3:
            held.append(ledger.reserve("host", "kv", 100, "reads ahead"))
        return 100

    ledger.add_reclaimer("host", reclaim)
    ledger.reserve("host", "kv", 10, "b")
    assert len(asked) == 3


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
