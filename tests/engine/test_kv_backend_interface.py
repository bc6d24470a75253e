"""What the backend that keeps keys and values by sequence refuses, counts and lets go of."""

from __future__ import annotations

import pytest
import torch

from octavo.engine.blocks import Blocks
from octavo.engine.kv_backend import SequenceKv
from octavo.engine.kv_backend_room import staging_bytes
from octavo.engine.limits import Limits
from octavo.engine.scheduler import Scheduler
from octavo.engine.sequence import Job, Sequence
from octavo.engine.step import Slice, Step
from octavo.errors import BudgetExceeded, ConfigError
from octavo.memory.ledger import Ledger
from tests.engine.kv_tools import DIM, HEADS, sizes
from tests.engine.test_kv_backend import STEP, Made
from tests.engine.test_kv_tiers import Shelf


def test_bytes_are_in_the_ledger_and_within_the_budget() -> None:
    made = Made("int4", 300)
    state = made.ledger.state("device")
    assert state.used == made.kv.nbytes <= state.budget
    assert state.by_kind["staging"] == 2 * STEP * 2 * HEADS * DIM * 4
    made.over()


@pytest.mark.parametrize("missing", ["all", "staging"])
def test_a_refusal_leaves_nothing(missing: str) -> None:
    wanted = sizes()
    budget = wanted.nbytes_for(200, 2) + staging_bytes(wanted.shape, STEP)
    ledger = Ledger({"device": 4096 if missing == "all" else budget - 4096})
    with pytest.raises(BudgetExceeded):
        SequenceKv(ledger, wanted, budget=budget, sequences=2, step_tokens=STEP)
    assert ledger.used("device") == 0


def test_lower_tiers_need_a_store_and_room_for_a_step() -> None:
    wanted = sizes()
    budget = wanted.nbytes_for(60, 4) + staging_bytes(wanted.shape, STEP)
    ledger = Ledger({"device": budget})
    with pytest.raises(ConfigError, match="no store"):
        SequenceKv(ledger, wanted, budget=budget, sequences=4, step_tokens=STEP, lower_bytes=1)
    with pytest.raises(BudgetExceeded, match="a step of 40 tokens"):
        SequenceKv(
            ledger,
            wanted,
            budget=budget,
            sequences=4,
            step_tokens=STEP,
            store=Shelf(),
            lower_bytes=1 << 20,
        )
    assert ledger.used("device") == 0


def test_a_sequence_that_may_not_be_so_long_is_refused() -> None:
    made = Made("int8", 300, max_length=50)
    made.world.add("a", 45, 20)
    with pytest.raises(BudgetExceeded, match="50 are allowed"):
        made.world.run()
    made.kv.close()


def test_keys_of_another_shape_are_refused() -> None:
    made = Made()
    made.world.add("a", 5, 2)
    made.kv.begin(made.world.scheduler.step())
    odd = torch.zeros(1, HEADS, 5, DIM + 2)
    with pytest.raises(ConfigError, match="not quantized"):
        made.kv.attend(0, odd, odd, odd, 1.0)
    made.kv.close()


def test_mistakes_of_the_caller_are_found() -> None:
    made = Made()
    empty = torch.zeros(1, HEADS, 1, DIM)
    with pytest.raises(RuntimeError, match="no step"):
        made.kv.attend(0, empty, empty, empty, 1.0)
    with pytest.raises(RuntimeError, match="no step"):
        made.kv.commit()
    sequence = Sequence(Job("a", (1, 2, 3), 5), 0, (0, 0))
    with pytest.raises(RuntimeError, match="nothing is held of a"):
        made.kv.begin(Step(1, prefills=[Slice(sequence, 2, 1)]))
    made.kv.begin(Step(1, prefills=[Slice(sequence, 0, 1)]))
    with pytest.raises(RuntimeError, match="2 layers"):
        made.kv.commit()
    made.kv.rollback()
    sequence.computed = 2
    with pytest.raises(RuntimeError, match="goes on from 2, 0 tokens are held"):
        made.kv.begin(Step(1, prefills=[Slice(sequence, 2, 1)]))
    made.kv.close()


def test_views_of_larger_tensors_are_copied() -> None:
    """Else a step would hold three times what the ledger counts for it."""
    made = Made()
    made.world.add("a", 5, 2)
    made.kv.begin(made.world.scheduler.step())
    query = torch.zeros(1, HEADS, 5, DIM)
    fused = torch.zeros(3, 1, HEADS, 5, DIM)
    made.kv.attend(0, query, fused[1], fused[2], 1.0)
    assert made.kv._open is not None
    for kept in made.kv._open.staged[0]:
        assert kept.untyped_storage().nbytes() == kept.nbytes
    own = torch.zeros(1, 5, HEADS, DIM).transpose(1, 2)
    made.kv.attend(1, query, own, own, 1.0)
    assert made.kv._open.staged[1][0].data_ptr() == own.data_ptr()
    made.kv.close()


def test_a_lost_job_starts_over() -> None:
    scheduler = Scheduler(Blocks(20, 4), Limits(20, 2, 20), share=False)
    scheduler.add(Job("a", (1,) * 10, 5, keep=True))
    for _ in range(2):
        step = scheduler.step()
        scheduler.finished(step, {"a": 1})
    scheduler.lose("a")
    scheduler.lose("nobody")
    scheduler.check()
    step = scheduler.step()
    assert [(part.start, part.count) for part in step.slices] == [(0, 12)]
    scheduler.finished(step, {"a": 1}, stopped={"a"})
    scheduler.lose("a")
    scheduler.check()
    scheduler.resume("a", 2)
    assert scheduler.step().slices[0].start == 0
