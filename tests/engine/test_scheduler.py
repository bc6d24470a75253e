"""What a step holds: admission, chunks, priorities, giving way, ends."""

from __future__ import annotations

import pytest

from octavo.engine.limits import Limits
from octavo.engine.sequence import Ending, Media, Status
from octavo.engine.step import Step
from octavo.errors import BudgetExceeded, ConfigError
from tests.engine.machine import answer, drain, finish
from tests.engine.making import alone, job, make, parts, turn


def test_a_prompt_goes_in_chunks_and_then_token_by_token() -> None:
    scheduler, machine = make(chunk=6)
    sequence = scheduler.add(job("a", prompt=10, new=3))
    steps = [turn(scheduler, machine) for _ in range(4)]
    # The first chunk ends where a block of 4 does.
    assert [parts(step) for step in steps] == [
        [("a", 0, 4)],
        [("a", 4, 6)],
        [("a", 10, 1)],
        [("a", 11, 1)],
    ]
    assert [len(step.decodes) for step in steps] == [0, 0, 1, 1]
    assert sequence.ending is Ending.LENGTH
    assert sequence.status is Status.FINISHED
    assert scheduler.idle


def test_prefill_and_decode_share_a_step_and_decodes_are_never_held_up() -> None:
    scheduler, machine = make(tokens=8, chunk=64)
    for name in "abc":
        scheduler.add(job(name, prompt=1, new=20))
    turn(scheduler, machine)
    scheduler.add(job("long", prompt=40, new=2))
    for _ in range(8):
        step = turn(scheduler, machine)
        assert [part.id for part in step.decodes] == ["a", "b", "c"]
        assert [part.id for part in step.prefills] == ["long"]
        assert step.tokens <= 8


def test_a_long_prompt_of_a_higher_rank_does_not_hold_decodes_up_either() -> None:
    scheduler, machine = make(tokens=8, chunk=64)
    scheduler.add(job("a", prompt=1, new=20))
    turn(scheduler, machine)
    scheduler.add(job("first", prompt=40, new=2, priority=5))
    assert parts(turn(scheduler, machine)) == [("a", 1, 1), ("first", 0, 4)]


def test_with_enough_of_everything_all_run_at_once() -> None:
    scheduler, machine = make(total=400, tokens=1000, running=40)
    for index in range(40):
        scheduler.add(job(f"job {index}", prompt=8 + index % 5, new=5))
    assert len(turn(scheduler, machine).prefills) == 40
    for _ in range(4):
        assert len(turn(scheduler, machine).decodes) == 40
    assert scheduler.idle


def test_a_job_is_admitted_when_its_prompt_fits_beside_the_others() -> None:
    scheduler, machine = make(total=12, chunk=4)
    scheduler.add(job("a", prompt=24, new=2))
    scheduler.add(job("b", prompt=24, new=2))
    for _ in range(6):
        # 6 of 12 blocks are promised to "a" long before it holds them.
        turn(scheduler, machine)
        assert [s.id for s in scheduler.running] == ["a"]
    drain(scheduler, machine)


def test_nobody_overtakes_the_first_that_waits() -> None:
    scheduler, machine = make(total=12)
    for name, prompt in (("a", 24), ("large", 40), ("small", 4)):
        scheduler.add(job(name, prompt=prompt, new=3))
    turn(scheduler, machine)
    assert [s.id for s in scheduler.waiting] == ["large", "small"]
    drain(scheduler, machine)


def test_priority_goes_first_and_equals_in_order() -> None:
    scheduler, machine = make(running=1)
    for name, priority in (("a", 0), ("b", 0), ("c", 2), ("d", 1), ("e", 2)):
        scheduler.add(job(name, new=1, priority=priority))
    order = [turn(scheduler, machine).slices[0].id for _ in range(5)]
    assert order == ["c", "e", "d", "a", "b"]


def test_a_higher_priority_displaces_the_youngest_of_the_lowest() -> None:
    scheduler, machine = make(running=3)
    for name, priority in (("mid", 1), ("old", 0), ("young", 0)):
        scheduler.add(job(name, priority=priority, new=9))
    turn(scheduler, machine)
    scheduler.add(job("high", priority=2))
    step = turn(scheduler, machine)
    assert [(one.id, one.parked) for one in step.preempted] == [("young", False)]
    assert [s.id for s in scheduler.running] == ["high", "mid", "old"]
    scheduler.add(job("equal", priority=0))
    assert not turn(scheduler, machine).preempted


def test_nobody_gives_way_in_vain() -> None:
    scheduler, machine = make(total=12)
    scheduler.add(job("equal", prompt=20, new=12, priority=2))
    scheduler.add(job("low", prompt=4, new=12))
    turn(scheduler, machine)
    # It would find its 6 blocks, but not those that "equal" still needs.
    scheduler.add(job("high", prompt=24, priority=2))
    assert not turn(scheduler, machine).preempted
    drain(scheduler, machine)


def test_a_low_priority_is_overtaken_for_a_bounded_time_only() -> None:
    def first_step_of_low(aging: int) -> int | None:
        scheduler, machine = make(running=1, aging=aging)
        scheduler.add(job("low", new=2))
        for number in range(150):
            # Two steps of work come every two steps: the machine is never free.
            scheduler.add(job(f"high {number}", new=2, priority=3))
            for _ in range(2):
                if turn(scheduler, machine).slices[0].id == "low":
                    return number
        return None

    waited = first_step_of_low(aging=20)
    assert waited is not None
    assert waited <= 3 * 20 / 2 + 1
    assert first_step_of_low(aging=10_000) is None


def test_the_youngest_gives_way_when_blocks_run_out_and_goes_on_where_it_was() -> None:
    scheduler, machine = make(total=8, parks=lambda _: True, host_blocks=8)
    scheduler.add(job("a", prompt=10, new=15))
    young = scheduler.add(job("b", prompt=10, new=8))
    step = turn(scheduler, machine)
    while not step.preempted:
        before = young.computed
        step = turn(scheduler, machine)
    assert [(one.id, one.parked) for one in step.preempted] == [("b", True)]
    assert (young.status, young.parked, young.blocks) == (Status.PREEMPTED, before, [])
    while not step.restores:
        step = turn(scheduler, machine)
    assert step.restores[0].tokens == before
    assert ("b", before, 1) in parts(step)
    drain(scheduler, machine)
    assert machine.computed == 10 + 14 + 10 + 7, "nothing was computed twice"
    assert young.preemptions == 1
    assert young.lost == 0


@pytest.mark.parametrize(("host", "parks"), [(0, True), (2, True), (8, False)])
def test_without_room_on_the_host_or_when_it_does_not_pay_it_is_computed_again(
    host: int, parks: bool
) -> None:
    asked = []
    scheduler, machine = make(
        total=8, parks=lambda s: asked.append(s.id) or parks, host_blocks=host, share=False
    )
    scheduler.add(job("a", prompt=10, new=15))
    young = scheduler.add(job("b", prompt=10, new=8))
    ended = drain(scheduler, machine, stops=True)
    assert young.preemptions >= 1
    assert young.lost > 10
    assert asked == ([] if host < 3 else ["b"] * young.preemptions)
    for one in ended:
        said = one.sequence.tokens[one.sequence.prompt_tokens :]
        assert (said, one.ending) == answer(one.sequence.job, one.sequence.limit)


def test_cancel_ends_waiting_and_running_jobs_once() -> None:
    scheduler, machine = make(running=1)
    for name in "ab":
        scheduler.add(job(name, new=9))
    turn(scheduler, machine)
    step = scheduler.step()
    assert scheduler.cancel("a")
    assert scheduler.cancel("a")
    assert scheduler.cancel("b")
    assert finish(scheduler, step, machine.run(step)) == []
    step = scheduler.step()
    assert {(one.id, one.ending) for one in step.ended} == {
        ("a", Ending.CANCELLED),
        ("b", Ending.CANCELLED),
    }
    assert not step.slices
    scheduler.finished(step, {})
    assert not scheduler.cancel("a")
    assert scheduler.blocks.available == scheduler.blocks.total


def test_a_cancel_that_comes_too_late_does_not_end_the_next_job_of_that_name() -> None:
    scheduler, machine = make()
    scheduler.add(job("a", new=1))
    step = scheduler.step()
    scheduler.cancel("a")
    ended = finish(scheduler, step, machine.run(step))
    assert [one.ending.whole for one in ended] == [True]
    scheduler.add(job("a", new=1))
    assert len(turn(scheduler, machine).slices) == 1


def test_deadlines_end_jobs_that_wait_or_run() -> None:
    now = [0.0]
    scheduler, machine = make(running=1, clock=lambda: now[0])
    scheduler.add(job("a", new=50, deadline=5.0))
    scheduler.add(job("b", deadline=3.0))
    scheduler.add(job("c", new=2, deadline=100.0))
    ends = {}
    for second in range(12):
        now[0] = float(second)
        ends.update({one.id: (second, one.ending) for one in turn(scheduler, machine).ended})
    assert ends == {"b": (4, Ending.EXPIRED), "a": (6, Ending.EXPIRED)}
    assert scheduler.idle
    scheduler.add(job("c", new=2))
    now[0] = 200.0
    assert not turn(scheduler, machine).ended, "the deadline was the first job's"


def test_one_that_fails_takes_nobody_with_it() -> None:
    scheduler, machine = make()
    for name in "ab":
        scheduler.add(job(name, new=2))
    step = scheduler.step()
    tokens = machine.run(step)
    ended = scheduler.finished(step, {"b": tokens["b"]}, failed={"a"})
    assert [(one.id, one.ending) for one in ended] == [("a", Ending.FAILED)]
    assert parts(turn(scheduler, machine)) == [("b", 8, 1)]


def test_an_abandoned_step_is_planned_again_under_other_limits() -> None:
    scheduler, machine = make()
    scheduler.add(job("a", prompt=16, new=2))
    step = scheduler.step()
    assert parts(step) == [("a", 0, 16)]
    scheduler.abandon(step)
    scheduler.limits = Limits(8, 8, 4)
    assert parts(turn(scheduler, machine)) == [("a", 0, 4)]
    drain(scheduler, machine)


def test_lower_limits_make_the_youngest_give_way() -> None:
    scheduler, machine = make()
    for name in "abcd":
        scheduler.add(job(name, new=6))
    turn(scheduler, machine)
    scheduler.limits = Limits(2, 2, 2)
    step = turn(scheduler, machine)
    assert [one.id for one in step.preempted] == ["d", "c"]
    assert parts(step) == [("a", 8, 1), ("b", 8, 1)]
    assert len(drain(scheduler, machine)) == 4


def test_a_restore_that_was_abandoned_is_not_trusted() -> None:
    scheduler, machine = make(total=8, parks=lambda _: True, host_blocks=8, share=False)
    scheduler.add(job("a", prompt=10, new=15))
    young = scheduler.add(job("b", prompt=10, new=8))
    step = scheduler.step()
    while not step.restores:
        finish(scheduler, step, machine.run(step))
        step = scheduler.step()
    scheduler.abandon(step)
    machine.host.clear()
    assert (young.computed, young.parked, young.blocks) == (0, 0, [])
    assert young in scheduler.waiting
    drain(scheduler, machine)
    assert young.tokens == alone(young.job)


def test_what_could_never_fit_is_refused_and_leaves_nothing() -> None:
    scheduler, machine = make(total=4, feature_bytes=5)
    scheduler.add(job("whole", prompt=10, new=7))
    with pytest.raises(BudgetExceeded, match=r"more: 17 tokens need 5 KV blocks of 4"):
        scheduler.add(job("more", prompt=10, new=8))
    with pytest.raises(BudgetExceeded, match="features of 6 bytes do not fit in 5"):
        scheduler.add(job("more", prompt=4, media=(Media(0, 1, b"p", 6),)))
    assert len(drain(scheduler, machine)) == 1


def test_misuse_is_one_clear_error_and_changes_nothing() -> None:
    scheduler, machine = make()
    scheduler.add(job("a", new=2, keep=True))
    with pytest.raises(ConfigError, match="a: a job with this id is not over"):
        scheduler.add(job("a"))
    step = scheduler.step()
    with pytest.raises(ConfigError, match="a step is open"):
        scheduler.step()
    with pytest.raises(ConfigError, match="step 9: this step is not open"):
        scheduler.finished(Step(9), {})
    with pytest.raises(ConfigError, match="a: no token for a sequence"):
        scheduler.finished(step, {})
    finish(scheduler, step, machine.run(step))
    with pytest.raises(ConfigError, match="step 1: this step is not open"):
        scheduler.abandon(step)
    with pytest.raises(ConfigError, match="a: no such job is kept"):
        scheduler.resume("a", 1)
    drain(scheduler, machine)
    with pytest.raises(ConfigError, match="a: a job needs a token to make"):
        scheduler.resume("a", 0)
    with pytest.raises(ConfigError, match="a: a job with this id is not over"):
        scheduler.add(job("a"))
    scheduler.forget("a")
    with pytest.raises(ConfigError, match="a: no such job is kept"):
        scheduler.forget("a")


@pytest.mark.parametrize("limits", [(4, 5, 1, 1), (4, 0, 1, 1), (4, 1, 0, 1), (4, 1, 1, 0)])
def test_limits_that_cannot_be_are_refused(limits: tuple[int, int, int, int]) -> None:
    with pytest.raises(ConfigError):
        Limits(*limits)


def test_a_feature_budget_below_nothing_is_refused() -> None:
    with pytest.raises(ConfigError):
        make(feature_bytes=-1)
