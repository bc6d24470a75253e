"""Memory as the engine's loop sees it: when it is time, and what each phase took."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from octavo.engine.watch import MemoryWatch, PhaseUse, ProcessUse, Use
from octavo.errors import ConfigError
from octavo.hardware.plan_types import Line, Phase, Plan
from octavo.hardware.plan_workload import Workload
from octavo.memory.readings import Bound, Reading

MIB = 1 << 20


class Scene:
    """A process, a machine and a clock that do as they are told."""

    def __init__(self, **other: Any) -> None:
        self.now, self.used, self.peak = 0.0, 500, 500
        self.machine, self.group = Bound(100_000, 10), Bound(50_000, 10)
        self.reads = 0
        self.watch = MemoryWatch(
            1000, margin=100, use=self.use, read=self.read, clock=lambda: self.now, **other
        )

    def use(self) -> Use:
        return Use(self.used, self.peak)

    def read(self) -> Reading:
        self.reads += 1
        return Reading(self.machine, (self.group,))

    def step(self, phase: str = "decode", used: int | None = None, *, peak: int = 0) -> bool:
        """A step that takes 10 ms; then the next one's question."""
        self.now += 0.01
        self.used = self.used if used is None else used
        self.peak = max(self.peak, peak, self.used)
        return self.watch.enter(phase)

    def later(self, used: int | None = None) -> bool:
        self.now += 1
        return self.step(used=used)


def test_it_is_time_when_use_passes_the_budget_less_a_margin() -> None:
    scene = Scene()
    assert not scene.later(used=900)
    assert scene.later(used=901)
    assert scene.watch.pressed
    assert scene.watch.used == 901
    assert not scene.later(used=900)


@pytest.mark.parametrize("bound", ["machine", "group"])
def test_limits_of_others_count_too(bound: str) -> None:
    scene = Scene()
    setattr(scene, bound, Bound(1000, 960))
    assert not scene.later()
    setattr(scene, bound, Bound(1000, 961))
    assert scene.later()


def test_memory_is_looked_at_every_interval_within_a_phase() -> None:
    scene = Scene()
    scene.step()
    looks, reads = scene.watch.looks, scene.reads
    for _ in range(4):
        assert not scene.step(used=2000)
    assert (scene.watch.looks, scene.reads) == (looks, reads)
    assert scene.step()
    assert (scene.watch.looks, scene.reads) == (looks + 1, reads + 1)


def test_what_was_given_up_has_until_use_comes_half_way_to_the_limit() -> None:
    scene = Scene()
    assert scene.later(used=920)
    scene.watch.relieved()
    assert not scene.watch.pressed
    assert not scene.later(used=960)
    assert scene.later(used=961)
    scene.watch.relieved()
    assert not scene.later(used=980)
    assert scene.later(used=981)


def test_over_the_limit_it_is_time_again_a_margin_later() -> None:
    scene = Scene()
    assert scene.later(used=1200)
    scene.watch.relieved()
    assert not scene.later(used=1300)
    assert scene.later(used=1301)


def test_once_use_has_fallen_the_first_line_counts_again() -> None:
    scene = Scene()
    assert scene.later(used=990)
    scene.watch.relieved()
    assert not scene.later(used=994)
    assert not scene.later(used=800)
    assert scene.later(used=910)


def test_a_limit_that_is_lowered_counts_at_once() -> None:
    scene = Scene()
    scene.group = Bound(1000, 970)
    assert scene.later()
    scene.watch.relieved()
    assert not scene.later()
    scene.group = Bound(990, 971)
    assert scene.later()


def test_a_peak_within_a_step_belongs_to_the_phase_that_was_running() -> None:
    scene = Scene()
    scene.watch.enter("prefill")
    scene.step("decode", used=600, peak=850)
    scene.step("decode", used=610)
    scene.step("prefill", used=620)
    scene.watch.leave()
    scene.step("other", used=640)
    found = {phase.name: phase.measured for phase in scene.watch.phases}
    assert found == {"prefill": 850, "decode": 620}


def test_what_happens_between_two_runs_belongs_to_no_phase() -> None:
    scene = Scene()
    scene.watch.enter("decode")
    scene.step("decode", used=600)
    scene.watch.leave()
    scene.used = scene.peak = 5000
    scene.used = 600
    scene.watch.enter("decode")
    scene.watch.leave()
    assert [phase.measured for phase in scene.watch.phases] == [600]


def plan(**other: Any) -> Plan:
    phases = (Phase("prefill", (Line("process", 300), Line("all", 500))),)
    made = Plan(
        model="m", family="f", device="cpu", budget=1000, reserve=40, base=300,
        workload=Workload(), components=(), prompt_tokens=1, kv_tokens=1, kv_bytes=1,
        feature_bytes=0, prefill_chunk=None, vision_batch=None, batch=1, phases=phases,
    )  # fmt: skip
    return replace(made, **other)


def test_a_plan_is_compared_with_what_was_measured() -> None:
    scene = Scene(plan=plan())
    scene.watch.enter("prefill")
    scene.step("decode", used=640)
    scene.watch.leave()
    prefill, decode = scene.watch.phases
    assert (prefill.predicted, prefill.measured) == (800, 640)
    assert prefill.error == pytest.approx(0.25)
    assert (decode.predicted, decode.error) == (None, None)


def test_on_a_device_what_the_process_takes_is_left_out_of_the_plan() -> None:
    watch = MemoryWatch(
        1000, device=torch.device("cuda", 0), plan=plan(), use=lambda: Use(400, 450)
    )
    watch.enter("prefill")
    watch.leave()
    assert [phase.predicted for phase in watch.phases] == [500]


def test_where_nothing_was_allocated_there_is_no_error() -> None:
    assert PhaseUse("prefill", measured=0, predicted=5).error is None


def test_the_margin_is_what_the_plan_left_free() -> None:
    used = 960
    watch = MemoryWatch(1000, plan=plan(), interval_s=0, use=lambda: Use(used))
    assert not watch.enter("decode")
    used = 961
    assert watch.enter("decode")


@pytest.mark.parametrize("wrong", [{"margin": 1000}, {"margin": -1}, {"interval_s": -1.0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        MemoryWatch(1000, **wrong)


def test_the_process_is_measured_as_the_system_does() -> None:
    use = ProcessUse()
    before = use()
    assert before.now == pytest.approx(psutil.Process().memory_info().rss, abs=4 * MIB)
    held = np.ones(64 * MIB, dtype=np.uint8)
    during = use()
    assert during.now - before.now == pytest.approx(held.nbytes, abs=4 * MIB)
    del held
    after = use()
    assert after.now < before.now + 8 * MIB
    if sys.platform == "linux":
        assert during.peak is not None
        assert after.peak is not None
        assert after.peak >= during.peak - 4 * MIB >= during.now - 8 * MIB


def test_without_the_system_file_the_process_is_measured_still(tmp_path: Path) -> None:
    found = ProcessUse(tmp_path / "nothing")()
    assert found.now == pytest.approx(psutil.Process().memory_info().rss, abs=4 * MIB)
    assert found.peak is None


def test_a_real_process_over_its_budget_is_seen() -> None:
    start = ProcessUse()().now
    watch = MemoryWatch(start + 64 * MIB, margin=16 * MIB, interval_s=0)
    assert not watch.enter("prefill")
    held = np.ones(96 * MIB, dtype=np.uint8)
    assert watch.enter("prefill")
    del held
    assert not watch.enter("prefill")
    watch.leave()
    (prefill,) = watch.phases
    assert prefill.measured >= start + 90 * MIB
