"""The ladder over a machine of numbers: what is given up, in which order, and how it comes back."""

from __future__ import annotations

import gc
import random
import weakref

import pytest

from octavo.engine.recovery import GivenUp, Ladder
from octavo.errors import BudgetExceeded, ConfigError
from octavo.types import Attempt

RUNGS = ("idle", "offload", "smaller chunk", "smaller tower", "smaller batch")


class Machine:
    """Limits, and what a step needs with them. Each way frees what it says, like an engine's."""

    def __init__(
        self, *, idle: int = 0, running: int = 8, chunk: int = 512, tower: int = 4096
    ) -> None:
        self.idle, self.running, self.chunk, self.tower = idle, running, chunk, tower
        self.batch = running
        self.full = (running, chunk, tower)
        self.notches: list[tuple[str, int]] = []
        self.calls: list[str] = []

    @property
    def needs(self) -> int:
        return self.idle + 100 * self.running + self.chunk + self.tower

    def drop_idle(self) -> str | None:
        self.calls.append("idle")
        idle, self.idle = self.idle, 0
        return f"{idle} bytes" if idle else None

    def offload(self) -> str | None:
        self.calls.append("offload")
        if self.running == 1:
            return None
        self.running -= 1
        self.notches.append(("running", self.running + 1))
        return f"sequence {self.running + 1}"

    def smaller_chunk(self) -> str | None:
        return self._halve("chunk", 32)

    def smaller_tower(self) -> str | None:
        return self._halve("tower", 256)

    def smaller_batch(self) -> str | None:
        self.calls.append("batch")
        if self.running == 1:
            return None
        self.notches.append(("running", self.running))
        self.running //= 2
        return f"{self.running} at a time"

    def restore(self) -> bool:
        self.calls.append("restore")
        if self.notches:
            name, value = self.notches.pop()
            setattr(self, name, value)
        return not self.notches

    def _halve(self, name: str, least: int) -> str | None:
        self.calls.append(name)
        value = getattr(self, name)
        if value <= least:
            return None
        self.notches.append((name, value))
        setattr(self, name, value // 2)
        return f"{name} of {value // 2}"


@pytest.fixture
def without_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collecting takes long beside torch."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


def climb(ladder: Ladder) -> str:
    attempt = ladder.climb("OutOfMemoryError: CUDA out of memory")
    assert attempt is not None
    assert not attempt.kept
    stage, _, rung = attempt.stage.partition(": ")
    assert stage == "memory"
    return rung


def test_a_fault_that_comes_back_meets_the_next_rung() -> None:
    ladder = Ladder(Machine(idle=7))
    assert tuple(climb(ladder) for _ in RUNGS) == RUNGS


def test_what_was_given_up_and_why_is_on_record() -> None:
    attempt = Ladder(Machine(idle=7)).climb("OutOfMemoryError: no room")
    assert attempt == Attempt("memory: idle", False, "7 bytes, after OutOfMemoryError: no room")


def test_a_rung_that_has_nothing_is_passed_over() -> None:
    ladder = Ladder(Machine(idle=0, running=1))
    assert climb(ladder) == "smaller chunk"


def test_after_steps_that_hold_it_begins_at_the_bottom() -> None:
    machine = Machine(idle=7)
    ladder = Ladder(machine)
    assert [climb(ladder), climb(ladder)] == ["idle", "offload"]
    for _ in range(4):
        ladder.stood()
    machine.idle = 5
    assert climb(ladder) == "idle"


def test_a_rung_that_holds_for_a_step_only_has_not_helped() -> None:
    machine = Machine(idle=7)
    ladder = Ladder(machine)
    taken = []
    for _ in range(5):
        taken.append(climb(ladder))
        ladder.stood()
        machine.idle = 7
    assert tuple(taken) == RUNGS


def test_what_lies_idle_is_not_dropped_twice_for_one_fault() -> None:
    machine = Machine(idle=7, running=1, chunk=32, tower=256)
    ladder = Ladder(machine)
    assert climb(ladder) == "idle"
    machine.idle = 7
    assert climb(ladder) == "again"
    ladder.stood()
    assert climb(ladder) == "idle"


@pytest.mark.usefixtures("without_garbage")
def test_the_same_fault_without_end_ends_at_the_lowest_setting() -> None:
    machine = Machine(idle=7)
    ladder = Ladder(machine)
    climbs = 0
    while ladder.climb("again") is not None:
        climbs += 1
        machine.idle = 7
        assert climbs < 64
    assert (machine.running, machine.chunk, machine.tower) == (1, 32, 256)
    assert sum(ladder.climbs.values()) == climbs


@pytest.mark.usefixtures("without_garbage")
def test_with_nothing_left_a_step_is_tried_a_few_times_more() -> None:
    ladder = Ladder(Machine(running=1, chunk=32, tower=256))
    assert [climb(ladder) for _ in range(4)] == ["again"] * 4
    assert ladder.climb("again") is None
    assert [climb(ladder) for _ in range(4)] == ["again"] * 4
    ladder.stood()
    assert [climb(ladder) for _ in range(4)] == ["again"] * 4
    assert ladder.normal, "nothing was lowered"


def test_garbage_is_collected_before_a_step_is_tried_again() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.me = self

    cycle = Cycle()
    held = weakref.ref(cycle)
    gc.disable()
    try:
        del cycle
        climb(Ladder(Machine(running=1, chunk=32, tower=256)))
    finally:
        gc.enable()
    assert held() is None


def test_a_relief_that_never_runs_dry_is_not_asked_for_ever() -> None:
    class Endless(Machine):
        def offload(self) -> str | None:
            return "a sequence that comes back at once"

    ladder = Ladder(Endless())
    assert sum(ladder.climb("again") is not None for _ in range(65)) == 64
    assert climb(ladder) == "offload"


@pytest.mark.parametrize("error", [MemoryError(), BudgetExceeded("full")])
def test_a_rung_that_runs_out_of_memory_itself_counts_as_nothing(error: Exception) -> None:
    class Short(Machine):
        def offload(self) -> str | None:
            raise error

        def restore(self) -> bool:
            raise error

    ladder = Ladder(Short(idle=7), patience=1)
    assert [climb(ladder), climb(ladder)] == ["idle", "smaller chunk"]
    ladder.stood()
    assert not ladder.normal


def test_a_fault_in_relief_that_is_no_shortage_is_raised() -> None:
    class Broken(Machine):
        def drop_idle(self) -> str | None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Ladder(Broken()).climb("again")


def test_good_steps_give_everything_back_notch_by_notch() -> None:
    machine = Machine(idle=7)
    ladder = Ladder(machine, patience=5)
    for _ in range(9):
        climb(ladder)
    notches = len(machine.notches)
    assert notches == 8
    good = 0
    while not ladder.normal:
        ladder.stood()
        good += 1
    assert (machine.running, machine.chunk, machine.tower) == machine.full
    assert good == 5 * notches
    machine.calls.clear()
    for _ in range(50):
        ladder.stood()
    assert machine.calls == [], "what is normal is not restored"


def test_a_fault_that_comes_back_with_a_notch_doubles_the_wait() -> None:
    machine = Machine(running=1, tower=256)
    ladder = Ladder(machine, patience=4)

    def stands_until_restored() -> int:
        machine.calls.clear()
        for number in range(1, 1000):
            ladder.stood()
            if "restore" in machine.calls:
                return number
        raise AssertionError

    waits = []
    for _ in range(7):
        climb(ladder)
        waits.append(stands_until_restored())
        ladder.stood()
    assert waits == [4, 8, 16, 32, 64, 64, 64]
    for _ in range(64):
        ladder.stood()
    climb(ladder)
    assert stands_until_restored() == 4, "a notch that held brings patience back"


@pytest.mark.usefixtures("without_garbage")
def test_any_machine_comes_to_a_setting_that_fits_or_is_told_that_none_does() -> None:
    dice = random.Random(0)
    for _ in range(500):
        machine = Machine(
            idle=dice.randrange(500),
            running=dice.randint(1, 40),
            chunk=2 ** dice.randint(5, 11),
            tower=2 ** dice.randint(8, 13),
        )
        lowest = 100 + 32 + 256
        room = dice.randint(lowest - 200, machine.needs)
        ladder = Ladder(machine)
        ended = False
        while machine.needs > room and not ended:
            ended = ladder.climb("short") is None
        assert ended == (room < lowest)
        while not ladder.normal:
            ladder.stood()
        assert (machine.running, machine.chunk, machine.tower) == machine.full


def test_patience_is_at_least_a_step() -> None:
    with pytest.raises(ConfigError):
        Ladder(Machine(), patience=0)


def test_each_request_takes_what_was_given_up_while_it_ran() -> None:
    record = GivenUp()
    first, second = Attempt("memory: idle", False, "a"), Attempt("memory: offload", False, "b")
    record.note(first, ["one", "two"])
    record.note(second, ["two"])
    assert record.take("one") == (first,)
    assert record.take("two") == (first, second)
    assert record.take("two") == ()
    assert len(record) == 0


def test_a_request_keeps_a_bounded_record() -> None:
    record = GivenUp()
    for number in range(1000):
        record.note(Attempt("memory: idle", False, f"number {number}"), ["one"])
    kept = record.take("one")
    assert len(kept) == 32
    assert kept[0].reason == "number 0"
    assert kept[-1].reason == "number 999, and 968 before it"
    record.note(Attempt("memory: idle", False, "new"), ["one"])
    assert record.take("one")[0].reason == "new"
