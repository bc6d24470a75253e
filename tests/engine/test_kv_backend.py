"""Keys and values by sequence under the real scheduler, against attention in float64."""

from __future__ import annotations

import pytest
import torch

from octavo.engine import kv_codes, kv_layer
from octavo.engine.kv_backend import SequenceKv
from octavo.engine.kv_backend_room import staging_bytes
from octavo.engine.kv_extent import KvStore
from octavo.engine.kv_layout import PRECISIONS, KvPrecision
from octavo.engine.limits import Limits
from octavo.engine.sequence import Job
from octavo.errors import BudgetExceeded, LostValue, TierFull
from octavo.memory.ledger import Ledger
from tests.engine.kv_tools import BLOCK, contents, shape, sizes
from tests.engine.kv_world import FAR, Rough, World, no_blocks_after, used
from tests.engine.test_kv_tiers import Shelf

STEP, RUNNING = 40, 4
WINDOWS: list[tuple[int | None, ...]] = [(), (None, 30)]


@pytest.fixture(autouse=True)
def _small_extents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octavo.engine.kv_layout._TILE_TOKENS", (16, 24))


class Made:
    """A backend, its world, and the ids that it lost."""

    def __init__(
        self,
        precision: KvPrecision = "int8",
        tokens: int = 200,
        *,
        windows: tuple[int | None, ...] = (),
        sequences: int = RUNNING,
        seed: int = 0,
        store: KvStore | None = None,
        lower: int = 0,
        parked: int = 0,
        limits: Limits | None = None,
        max_length: int | None = None,
    ) -> None:
        wanted = sizes(precision, of=shape(windows=windows))
        budget = wanted.nbytes_for(tokens, sequences) + staging_bytes(wanted.shape, STEP)
        self.ledger = Ledger({"device": budget})
        self.kv = SequenceKv(
            self.ledger,
            wanted,
            budget=budget,
            sequences=sequences,
            step_tokens=STEP,
            max_length=max_length,
            store=store,
            lower_bytes=lower,
            parked_bytes=parked,
        )
        self.world = World(
            self.kv,
            windows=windows,
            seed=seed,
            far=FAR[precision],
            host_blocks=self.kv.parked_blocks,
            limits=limits or Limits(STEP, RUNNING, 24, aging=10),
        )
        self.lost: list[str] = []
        self.kv.on_lost = self._lose

    def _lose(self, name: str) -> None:
        self.lost.append(name)
        self.world.scheduler.lose(name)

    def over(self) -> None:
        """Nothing is left of anything."""
        assert used(self.kv) == (0, 0)
        self.kv.close()
        self.kv.close()
        assert self.ledger.used("device") == 0


@pytest.mark.parametrize("windows", WINDOWS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_any_workload_gives_softmax_attention(
    precision: KvPrecision, windows: tuple[int | None, ...]
) -> None:
    """With preemption, forks, cancels, blocks that run out and steps that break off anywhere."""
    broken = out = forked = preempted = 0
    for seed in range(2):
        made = Made(precision, 150 + 50 * seed, windows=windows, sequences=7, seed=seed)
        rough = Rough(made.world)
        rough.run(12)
        made.over()
        broken, out = broken + rough.broken, out + rough.out
        forked, preempted = forked + made.world.forked, preempted + made.world.preempted
    assert broken > 5
    assert out
    assert forked + preempted


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_gave_way_comes_back_from_the_store(precision: KvPrecision) -> None:
    parked = 0
    for seed in range(3):
        shelf = Shelf()
        made = Made(precision, 100, seed=seed, sequences=7, store=shelf, parked=1 << 20)
        made.world.scheduler._books._parks = lambda _: True
        Rough(made.world, faults=seed > 0).run(10)
        parked += made.world.parked
        assert shelf.held == {}
        made.over()
    assert parked


@pytest.mark.parametrize("windows", WINDOWS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_admitted_fits(precision: KvPrecision, windows: tuple[int | None, ...]) -> None:
    """Pools that are as full as the scheduler allows never refuse, and nobody is lost."""
    made = Made(precision, 250 if windows else 130, windows=windows, seed=5)
    for number in range(10):
        made.world.add(f"job-{number}", 20 + 9 * number % 50, 30)
    fullest = 0
    while not made.world.scheduler.idle:
        made.world.step()
        blocks = made.world.scheduler.blocks
        fullest = max(fullest, blocks.total - blocks.available)
    assert fullest > made.kv.total_blocks * 0.8
    assert made.lost == []
    made.world.step()
    made.over()


def test_a_sequence_as_long_as_the_budget_is_admitted() -> None:
    for precision in PRECISIONS:
        made = Made(precision, 201, sequences=1, limits=Limits(STEP, 1, STEP))
        made.world.add("long", 190, 11)
        made.world.run()
        made.world.step()
        made.over()


# Lower tiers.


@pytest.mark.parametrize("windows", WINDOWS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_lower_tier_holds_three_times_the_length(
    precision: KvPrecision, windows: tuple[int | None, ...]
) -> None:
    limits, shelf = Limits(20, 2, 20), Shelf()
    tokens = 250 if windows else 130
    plain = Made(precision, tokens, windows=windows, sequences=2, limits=limits)
    lower = Made(
        precision,
        tokens,
        windows=windows,
        sequences=2,
        limits=limits,
        store=shelf,
        lower=1 << 22,
    )
    assert lower.kv.nbytes == plain.kv.nbytes
    assert lower.kv.total_blocks > 3 * plain.kv.total_blocks
    longest = 380
    assert longest > (1.5 if windows else 3) * (plain.kv.total_blocks * BLOCK - 60)
    with pytest.raises(BudgetExceeded):
        plain.world.add("long", longest, 10)
    lower.world.add("long", longest, 10)
    lower.world.add("beside", 200, 40)
    lower.world.run()
    assert shelf.puts
    assert set(shelf.puts.values()) == {1}
    assert shelf.prefetched
    lower.world.step()
    assert lower.lost == []
    assert shelf.held == {}
    lower.over()
    plain.over()


@pytest.mark.parametrize("seed", range(3))
def test_rough_workloads_over_a_lower_tier(seed: int) -> None:
    shelf = Shelf()
    made = Made(
        PRECISIONS[seed], 150, sequences=7, seed=seed, store=shelf, lower=1 << 22, parked=1 << 20
    )
    Rough(made.world).run(12)
    assert shelf.held == {}
    made.over()


def test_a_store_that_is_full_fails_the_step_and_nothing_else() -> None:
    shelf = Shelf()
    made = Made("int8", 130, sequences=2, store=shelf, lower=1 << 22, limits=Limits(20, 2, 20))
    made.world.add("long", 300, 5)
    shelf.room = 3
    with pytest.raises(TierFull, match="injected"):
        made.world.run()
    assert len(shelf.held) == 3
    made.world.scheduler.abandon(made.world.scheduler._open)  # type: ignore[arg-type]
    shelf.room = 10**9
    made.world.run()
    made.world.step()
    made.over()


def test_one_that_cannot_be_parked_starts_over() -> None:
    shelf = Shelf()
    made = Made("int8", 130, sequences=2, store=shelf, parked=1 << 22)
    made.world.scheduler._books._parks = lambda _: True
    shelf.room, failed = 0, 0
    for number in range(4):
        made.world.add(f"job-{number}", 40, 40)
    while not made.world.scheduler.idle:
        try:
            made.world.step()
        except TierFull:
            failed += 1
            made.world.scheduler.abandon(made.world.scheduler._open)  # type: ignore[arg-type]
    assert failed
    made.world.step()
    made.over()


def test_what_a_lower_tier_lost_is_an_error_of_that_request() -> None:
    shelf = Shelf()
    made = Made("int8", 130, sequences=2, store=shelf, lower=1 << 22, limits=Limits(20, 2, 20))
    made.world.add("long", 300, 5)
    while not shelf.held:
        made.world.step()
    shelf.held.clear()
    with pytest.raises(LostValue):
        made.world.step()
    made.kv.close()


# Faults.


@pytest.mark.parametrize("precision", PRECISIONS)
def test_blocks_may_run_out_anywhere(precision: KvPrecision) -> None:
    made = Made(precision, 200)
    made.world.add("a", 30, 30)
    made.world.add("b", 12, 30)
    for _ in range(6):
        made.world.step()
    made.world.add("c", 38, 20)
    failed = 0
    for count in range(100):
        step = made.world.scheduler.step()
        before = _bytes(made.kv)
        try:
            with no_blocks_after(count):
                made.kv.begin(step)
        except BudgetExceeded:
            assert count == 0 or _bytes(made.kv) == before
            failed += 1
            made.world.scheduler.abandon(step)
            continue
        for layer in range(2):
            made.world.attend(step, layer)
        made.kv.commit()
        made.world.scheduler.finished(step, made.world.tokens(step))
        break
    assert failed > 3
    made.world.run()
    made.world.step()
    made.over()


def _bytes(kv: SequenceKv) -> tuple[int, int, list[tuple[int, int]]]:
    held = kv._held._held.values()
    lengths = [(one.kv.length, one.kv.nbytes) for one in held if one.kv.length]
    return *used(kv), lengths


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_step_that_breaks_off_changes_no_block(precision: KvPrecision) -> None:
    made = Made(precision)
    made.world.add("a", 60, 30)
    made.world.add("b", 33, 30)
    for _ in range(5):
        made.world.step()
    step = made.world.scheduler.step()
    made.kv.begin(step)
    before = _contents(made.kv)
    made.world.attend(step, 0)
    made.kv.rollback()
    made.world.scheduler.abandon(step)
    assert all(
        torch.equal(one, other) for one, other in zip(_contents(made.kv), before, strict=True)
    )
    made.world.run()
    made.world.step()
    made.over()


def _contents(kv: SequenceKv) -> list[torch.Tensor]:
    held = [one.kv for one in kv._held._held.values()]
    return [part for one in held for layer in range(2) for part in contents(one, layer)]


def test_a_step_that_is_abandoned_after_commit_is_computed_again() -> None:
    made = Made("int8")
    made.world.add("a", 60, 20)
    for number in range(30):
        step = made.world.scheduler.step()
        made.kv.begin(step)
        for layer in range(2):
            made.world.attend(step, layer)
        made.kv.commit()
        made.kv.rollback()
        if number % 2:
            made.world.scheduler.abandon(step)
        else:
            made.world.scheduler.finished(step, made.world.tokens(step))
    assert made.world.checked > 70
    made.world.run()
    made.world.step()
    made.over()


def test_memory_that_runs_out_while_blocks_are_written_costs_only_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = Made("int8")
    for name in "ab":
        made.world.add(name, 50, 30)
    real, calls = kv_codes.encode, 0

    def encode(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls in (3, 6):
            raise MemoryError("injected")
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(kv_layer, "encode", encode)
    failed = 0
    while not made.world.scheduler.idle:
        try:
            made.world.step()
        except MemoryError:
            failed += 1
            made.world.scheduler.abandon(made.world.scheduler._open)  # type: ignore[arg-type]
    assert failed == 2
    assert made.lost
    made.world.step()
    made.over()


# Kept sequences.


def test_kept_ones_give_way_to_those_that_run() -> None:
    """Their tails are more than were set aside."""
    made = Made("int8", 900, sequences=4)
    for number in range(12):
        made.world.add(f"kept-{number}", 20, 3, keep=True)
        made.world.run()
    made.world.step()
    assert made.lost == [f"kept-{number}" for number in range(len(made.lost))]
    assert 0 < len(made.lost) < 12
    for number in (0, 11):
        made.world.scheduler.resume(f"kept-{number}", 10)
    made.world.run()
    for number in range(12):
        made.world.scheduler.forget(f"kept-{number}")
    made.world.step()
    made.over()


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("windows", WINDOWS)
def test_a_turn_goes_on_from_the_turn_before(
    precision: KvPrecision, windows: tuple[int | None, ...]
) -> None:
    made = Made(precision, 300, windows=windows)
    parent = made.world.add("a", 61, 5, keep=True)
    made.world.run()
    before = made.world.checked
    for name in "bc":
        more = (*parent.tokens, 1, 2, 3)
        made.world.scheduler.add(Job(name, more, 30, after="a"))
    made.world.run()
    assert made.world.forked == 2
    # The last token of the answer and three more, each time; 65 tokens were computed before.
    assert made.world.checked - before == 2 * 2 * (4 + 29)
    made.world.scheduler.resume("a", 20)
    made.world.run()
    made.world.scheduler.forget("a")
    made.world.step()
    made.over()


def test_a_fork_survives_the_end_of_its_parent() -> None:
    made = Made("int8", 300, limits=Limits(STEP, 2, 24))
    parent = made.world.add("a", 60, 2, keep=True)
    made.world.run()
    made.world.scheduler.add(Job("b", (*parent.tokens, 1, 2, 3), 30, after="a"))
    made.world.step()
    made.world.scheduler.forget("a")
    made.kv.release("a")
    made.kv.release("nobody")
    made.world.run()
    made.world.step()
    made.over()


def test_a_parent_may_go_in_the_step_of_its_fork() -> None:
    made = Made("int8", 300)
    parent = made.world.add("a", 60, 2, keep=True)
    made.world.run()
    made.world.scheduler.add(Job("b", (*parent.tokens, 1, 2, 3), 30, after="a"))
    step = made.world.scheduler.step()
    made.world.scheduler.forget("a")
    made.kv.begin(step)
    for layer in range(2):
        made.world.attend(step, layer)
    made.kv.commit()
    made.world.scheduler.finished(step, made.world.tokens(step))
    assert list(made.kv._held._held) == ["b"]
    made.world.run()
    made.world.step()
    made.over()
