"""Memory that runs out under a real engine: no request is lost, none is answered wrongly."""

from __future__ import annotations

import gc
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from benchmarks.many_requests import Drawn, Held, checkpoint

import octavo
from octavo.engine import compute
from octavo.models.model import Model
from octavo.requests import Completion, Finish, Request
from tests.engine.faults import FailingAllocations, cpu_error, cuda_error, failing_reservations

#: Two of them with pictures; odd seeds sample, even ones are greedy.
ASKED = (
    Drawn(words=30, new=5, side=0, seed=1),
    Drawn(words=5, new=6, side=64, seed=2),
    Drawn(words=8, new=4, side=96, seed=3),
    Drawn(words=90, new=3, side=0, seed=4),
)


@dataclass
class Scene:
    """An engine and its right answers. Faults are counted in the threads with these names."""

    model: Model
    faults: FailingAllocations
    right: tuple[tuple[int, ...], ...] = ()
    allocations: int = 0

    def ask(self) -> list[Completion]:
        """All of ``ASKED`` together, in their order."""
        requests = [drawn.request(f"{number}") for number, drawn in enumerate(ASKED)]
        done = list(self.model.generate(requests))
        self.faults.disarm()
        assert sorted(one.request_id for one in done) == [str(n) for n in range(len(ASKED))]
        return sorted(done, key=lambda one: int(one.request_id))

    def ask_and_compare(self) -> list[Completion]:
        done = self.ask()
        assert [one.failure for one in done] == [None] * len(ASKED)
        assert tuple(one.tokens for one in done) == self.right
        return done

    def alone(self, drawn: Drawn) -> tuple[int, ...]:
        (done,) = self.model.generate([drawn.request("alone")])
        return done.check().tokens

    def forget(self) -> None:
        """What is known of earlier requests is dropped, as after any fault."""
        short = Drawn(words=2, new=6, side=0, seed=1000)
        stages: set[str] = set()
        while "memory: idle" not in stages:
            self.faults.fail_next()
            (done,) = self.model.generate([short.request("forget")])
            stages = {attempt.stage for attempt in done.check().attempts}


def computes() -> bool:
    return threading.current_thread().name == "octavo-engine"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint("qwen3-vl", tmp_path_factory.mktemp("faults") / "model")


@pytest.fixture(scope="module")
def scene(folder: Path) -> Iterator[Scene]:
    with (
        FailingAllocations(counts=computes) as faults,
        octavo.load(str(folder), device="cpu", precision="fp32") as model,
        # Collecting garbage takes long beside torch.
        mock.patch.object(gc, "collect", return_value=0),
    ):
        made = Scene(model, faults)
        made.right = tuple(made.alone(drawn) for drawn in ASKED)
        made.forget()
        before = faults.count
        made.ask_and_compare()
        made.allocations = faults.count - before
        yield made


def test_answers_tell_inputs_apart(scene: Scene) -> None:
    assert len({tokens[0] for tokens in scene.right}) == len(ASKED)
    assert all(len(set(tokens)) > 1 for tokens in scene.right)


def test_a_machine_too_small_for_the_chunk_is_met_with_smaller_ones(scene: Scene) -> None:
    # Before all others: faults lower limits for a while.
    long = Drawn(words=700, new=4, side=0, seed=5)
    alone = scene.alone(long)
    scene.forget()
    # Less than the widest layer makes of a chunk, more than attention gathers of the history.
    scene.faults.largest = 128 << 10
    (small,) = scene.model.generate([long.request("small")])
    scene.faults.disarm()
    assert small.check().tokens == alone
    assert "memory: smaller chunk" in {attempt.stage for attempt in small.attempts}


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("run", cuda_error),
        ("run", cpu_error),
        ("choose_all", cuda_error),
        ("choose_all", cpu_error),
    ],
)
def test_a_fault_while_a_picture_is_seen_or_a_token_chosen_changes_no_answer(
    folder: Path, scene: Scene, place: str, kind: Callable[[int], BaseException]
) -> None:
    inside = False
    call = getattr(compute, place)

    def marked(*args: Any, **named: Any) -> Any:
        nonlocal inside
        inside = True
        try:
            made = call(*args, **named)
            return list(made) if place == "run" else made
        finally:
            inside = False

    with (
        mock.patch.object(compute, place, marked),
        FailingAllocations(error=kind, counts=lambda: inside and computes()) as faults,
        octavo.load(str(folder), device="cpu", precision="fp32") as model,
    ):
        for after in (0, 4, 9, 17):
            faults.fail_next(after=after)
        done = Scene(model, faults, scene.right).ask_and_compare()
    assert faults.failed == [1, 5, 10, 18]
    assert any(one.attempts for one in done)


@pytest.mark.parametrize("in_a_row", [1, 4])
def test_a_fault_at_any_allocation_changes_no_answer(scene: Scene, in_a_row: int) -> None:
    dice = random.Random(in_a_row)
    recorded = 0
    for _ in range(8):
        first = dice.randrange(scene.allocations - in_a_row)
        failed = len(scene.faults.failed)
        for number in range(first, first + in_a_row):
            scene.faults.fail_next(after=number)
        done = scene.ask_and_compare()
        recorded += len(scene.faults.failed) > failed
        assert any(one.attempts for one in done) == (len(scene.faults.failed) > failed)
    # A round that knows the prompts already may not come to the last allocations.
    assert recorded > 4


def test_what_was_given_up_is_on_record_with_the_reason(scene: Scene) -> None:
    scene.faults.fail_next(after=scene.allocations // 4)
    attempts = [attempt for one in scene.ask_and_compare() for attempt in one.attempts]
    assert attempts
    assert all(not attempt.kept for attempt in attempts)
    assert all("llocat" in attempt.reason for attempt in attempts)


def test_a_shortage_without_end_fails_requests_and_nothing_else(scene: Scene) -> None:
    scene.faults.largest = 0
    done = scene.ask()
    assert [one.finish for one in done] == [Finish.ERROR] * len(ASKED)
    assert {one.failure.error for one in done if one.failure} == {"BudgetExceeded"}
    scene.ask_and_compare()


def test_a_request_that_can_never_fit_takes_no_other_with_it(scene: Scene) -> None:
    never = Request.of("a " * 3, max_new_tokens=10**9, id="never")
    requests = [never, *(drawn.request(f"{n}") for n, drawn in enumerate(ASKED))]
    done = {one.request_id: one for one in scene.model.generate(requests)}
    assert done.pop("never").finish is Finish.ERROR
    assert [done[str(n)].check().tokens for n in range(len(ASKED))] == list(scene.right)


def test_bytes_that_the_ledger_refuses_change_no_answer(scene: Scene) -> None:
    with failing_reservations() as reservations:
        scene.ask_and_compare()
        for place in range(reservations.count + 1):
            reservations.fail_next(after=place)
            scene.ask_and_compare()
            reservations.disarm()


def test_faults_leave_nothing_behind(scene: Scene) -> None:
    dice = random.Random(7)

    def rounds(count: int) -> Held:
        for _ in range(count):
            scene.faults.fail_next(after=dice.randrange(scene.allocations))
            scene.ask_and_compare()
        return Held.by(scene.model)

    before, after = rounds(3), rounds(8)
    grown = after.since(before)
    assert grown["ledger"] == 0
    assert grown["tensors"] <= 8, "features of the last pictures come and go"
    assert grown["tensor_bytes"] <= 256 << 10


def test_a_fault_while_a_prompt_is_prepared_loses_no_request(folder: Path) -> None:
    """In the caller's thread, while the engine computes for others."""
    with (
        FailingAllocations(counts=lambda: not computes()) as faults,
        octavo.load(str(folder), device="cpu", precision="fp32") as model,
        mock.patch.object(gc, "collect", return_value=0),
    ):
        scene = Scene(model, faults)
        scene.right = tuple(scene.alone(drawn) for drawn in ASKED)
        before = faults.count
        scene.ask_and_compare()
        allocations = faults.count - before
        for place in range(0, allocations, max(allocations // 8, 1)):
            faults.fail_next(after=place)
            done = scene.ask_and_compare()
            assert [a.stage for one in done for a in one.attempts] == ["memory: prepare"]
