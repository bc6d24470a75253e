"""Thousands of random workloads, and what batching is for."""

from __future__ import annotations

import random

import pytest

from octavo.engine.blocks import Blocks
from octavo.engine.limits import Limits
from octavo.engine.scheduler import Scheduler
from octavo.engine.sequence import Job
from tests.engine.machine import Machine, finish
from tests.engine.workloads import Workload


@pytest.mark.parametrize("first", range(0, 1300, 100))
def test_everything_at_once_and_steps_that_fail(first: int) -> None:
    """Each answer is what it is alone, each job ends once, nothing is left behind."""
    runs = [Workload(seed) for seed in range(first, first + 100)]
    for run in runs:
        run.run(jobs=12)
    assert sum(run.preempted for run in runs) > 20, "blocks never ran out"
    assert sum(run.shared for run in runs) > 500, "nothing was shared"


@pytest.mark.parametrize("first", range(5000, 5200, 100))
def test_undisturbed_jobs_end_whole(first: int) -> None:
    for seed in range(first, first + 100):
        run = Workload(seed, rough=False)
        run.run(jobs=12)
        assert not run.meant
        assert sum(run.ends.values()) >= 12 - run.refused


@pytest.mark.parametrize("seed", range(60))
def test_equals_start_in_the_order_they_came_and_priorities_before_them(seed: int) -> None:
    pick = random.Random(seed)
    running = pick.randint(1, 6)
    scheduler = Scheduler(
        Blocks(pick.randint(12, 40), 4),
        Limits(running + pick.choice((0, 8)), running, pick.choice((2, 64)), aging=10_000),
        share=False,
    )
    machine = Machine(scheduler)
    started: list[tuple[int, int]] = []
    coming = 30
    while coming or not scheduler.idle:
        while coming and pick.random() < 0.6:
            tokens = [pick.randrange(9) for _ in range(pick.randint(1, 24))]
            name = f"{30 - coming:02}"
            scheduler.add(
                Job(name, tuple(tokens), pick.randint(1, 20), priority=pick.choice((0, 1)))
            )
            coming -= 1
        waited = {s.id: s.job.priority for s in scheduler.waiting if not s.preemptions}
        step = scheduler.step()
        began = [s for s in scheduler.running if s.id in waited and not s.preemptions]
        for sequence in began:
            priority = sequence.job.priority
            left = [n for n in waited if n not in {s.id for s in began}]
            assert not [n for n in left if waited[n] > priority], "a lower priority began first"
            assert not [n for n in left if waited[n] == priority and n < sequence.id]
            started.append((priority, int(sequence.id)))
        finish(scheduler, step, machine.run(step))
    for priority in (0, 1):
        order = [number for level, number in started if level == priority]
        assert order == sorted(order)


@pytest.mark.parametrize("seed", range(20))
def test_each_waits_no_longer_than_all_before_it_take(seed: int) -> None:
    """With one priority, the first of those that are left moves on in every step."""
    pick = random.Random(seed)
    scheduler = Scheduler(Blocks(pick.randint(10, 20), 4), Limits(8, 4, 8))
    machine = Machine(scheduler)
    bound, bounds = 0, {}
    for index in range(25):
        prompt, new = pick.randint(1, 16), pick.randint(1, 20)
        scheduler.add(Job(str(index), tuple(pick.randrange(5) for _ in range(prompt)), new))
        # A chunk may be cut to the one token that is left beside three decodes.
        bound += prompt + new
        bounds[str(index)] = bound
    number = 0
    while not scheduler.idle:
        number += 1
        step = scheduler.step()
        first = min((*scheduler.running, *scheduler.waiting), key=lambda s: s.rank)
        assert first.id in {part.id for part in step.slices}
        for one in finish(scheduler, step, machine.run(step)):
            assert number <= bounds[one.id]


def skewed(count: int) -> list[int]:
    """Lengths of answers like those of pages: most are short, a few very long."""
    pick = random.Random(11)
    return [min(max(int(pick.lognormvariate(3.2, 0.9)), 8), 160) for _ in range(count)]


def steps_of(lengths: list[int], running: int, *, total: int = 1000) -> int:
    scheduler = Scheduler(Blocks(total, 4), Limits(128, running, 32))
    machine = Machine(scheduler)
    for index, length in enumerate(lengths):
        scheduler.add(Job(str(index), (index, 1, 2, 3), length))
    count = 0
    while not scheduler.idle:
        step = scheduler.step()
        finish(scheduler, step, machine.run(step))
        count += 1
    return count


def test_continuous_batches_need_fewer_steps_than_static_ones() -> None:
    lengths = skewed(48)
    static = sum(steps_of(lengths[i : i + 8], 8) for i in range(0, 48, 8))
    continuous = steps_of(lengths, 8)
    assert static == sum(max(lengths[i : i + 8]) for i in range(0, 48, 8))
    assert static >= 1.8 * continuous
    assert sum(lengths) >= 2.5 * continuous


def test_a_tight_cache_costs_steps_but_not_many() -> None:
    lengths = skewed(48)
    wide, tight = steps_of(lengths, 8), steps_of(lengths, 8, total=60)
    assert wide < tight < 2 * wide
