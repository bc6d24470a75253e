"""Schedulers, jobs and steps for tests."""

from __future__ import annotations

import zlib
from typing import Any

from octavo.engine.blocks import Blocks
from octavo.engine.limits import Limits
from octavo.engine.scheduler import Scheduler
from octavo.engine.sequence import Job
from octavo.engine.step import Step
from tests.engine.machine import Machine, drain


def make(
    total: int = 100,
    size: int = 4,
    *,
    tokens: int = 64,
    running: int = 8,
    chunk: int = 64,
    aging: int = 1000,
    **other: Any,
) -> tuple[Scheduler, Machine]:
    limits = Limits(tokens, running, chunk, aging)
    scheduler = Scheduler(Blocks(total, size), limits, **other)
    held = {key: other[key] for key in ("feature_bytes", "host_blocks") if key in other}
    return scheduler, Machine(scheduler, **held)


def job(name: str, prompt: int = 8, new: int = 4, **other: Any) -> Job:
    """A prompt that begins unlike all others."""
    return Job(name, (zlib.crc32(name.encode()), *range(1, prompt)), new, **other)


def turn(scheduler: Scheduler, machine: Machine) -> Step:
    """One step in which no answer stops by itself."""
    step = scheduler.step()
    scheduler.finished(step, machine.run(step))
    return step


def alone(one: Job) -> list[int]:
    """All tokens of a job that nobody disturbs and that does not stop by itself."""
    scheduler, machine = make()
    sequence = scheduler.add(one)
    drain(scheduler, machine)
    return sequence.tokens


def parts(step: Step) -> list[tuple[str, int, int]]:
    return [(part.id, part.start, part.count) for part in step.slices]
