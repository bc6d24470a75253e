"""Which errors say that memory is short, and that none of them keeps a tensor."""

from __future__ import annotations

import errno
import gc
import threading
import weakref
from concurrent.futures import Future
from typing import Any

import pytest
import torch

from octavo.engine.recovery import Ladder, Shortage, guarded, insist, out_of_memory
from octavo.errors import BudgetExceeded, CorruptValue, LimitExceeded, TierFull
from octavo.types import Attempt
from tests.engine.faults import (
    FailingAllocations,
    cpu_error,
    cuda_error,
    failing_reservations,
)
from tests.engine.test_recovery import Machine

SHORT: list[BaseException] = [
    cuda_error(1),
    cpu_error(1),
    MemoryError(),
    BudgetExceeded("full"),
    TierFull("full"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:116] data. DefaultCPUAllocator: not enough memory"
    ),
    RuntimeError(
        "Native API failed. Native API returns: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"
    ),
    RuntimeError("std::bad_alloc"),
]
OTHER: list[BaseException] = [
    RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"),
    ValueError("out of memory"),
    OSError(errno.ENOENT, "No such file"),
    LimitExceeded("a picture of 900 megapixels"),
    CorruptValue("a checksum"),
    KeyboardInterrupt(),
]


@pytest.mark.parametrize("error", SHORT, ids=lambda error: str(error)[:40])
def test_these_say_that_memory_is_short(error: BaseException) -> None:
    assert out_of_memory(error)


@pytest.mark.parametrize("error", OTHER, ids=lambda error: str(error)[:40])
def test_these_do_not(error: BaseException) -> None:
    assert not out_of_memory(error)


def test_real_errors_of_the_allocators_here_are_known() -> None:
    with pytest.raises(RuntimeError) as from_torch:
        torch.empty(1 << 48)
    with pytest.raises(MemoryError) as from_python:
        bytearray(1 << 60)
    assert out_of_memory(from_torch.value)
    assert out_of_memory(from_python.value)


def chained(cause: BaseException, *, handling: bool = False) -> BaseException:
    try:
        try:
            raise cause
        except BaseException as error:
            if handling:
                raise ValueError("something else went wrong while cleaning up")  # noqa: B904
            raise ValueError("a layer could not be computed") from error
    except ValueError as error:
        return error


def test_the_cause_of_an_error_counts() -> None:
    assert out_of_memory(chained(chained(MemoryError())))
    assert not out_of_memory(chained(KeyError("x")))


def test_a_bug_while_memory_was_short_is_a_bug() -> None:
    assert not out_of_memory(chained(MemoryError(), handling=True))


def test_a_chain_that_bites_its_tail_ends() -> None:
    error = chained(KeyError("x"))
    assert error.__cause__ is not None
    error.__cause__.__cause__ = error
    assert not out_of_memory(error)


def test_a_shortage_names_the_first_error_that_says_so_and_is_short() -> None:
    shortage = Shortage.of(chained(cuda_error(3)))
    assert shortage.kind == "OutOfMemoryError"
    assert str(shortage).startswith("OutOfMemoryError: CUDA out of memory. Tried to allocate")
    long = Shortage.of(RuntimeError("out of memory\n" + "statistics " * 1000))
    assert len(long.text) <= 160
    assert "\n" not in long.text
    assert str(Shortage.of(MemoryError())) == "MemoryError"
    assert long.failure().error == "BudgetExceeded"


def test_a_good_call_returns_its_value() -> None:
    outcome = guarded(lambda: 3)
    assert (outcome.value, outcome.shortage) == (3, None)


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(KeyError, match="x") as error:
        guarded(lambda: {}["x"])
    assert error.value.__traceback__ is not None


class Failing:
    """Computes through a few frames, each of which holds a tensor, and then runs out of memory."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.held: list[weakref.ref[torch.Tensor]] = []

    def __call__(self) -> None:
        states = self.make()
        self.layer(states)

    def layer(self, states: torch.Tensor) -> None:
        normed = self.make()
        try:
            self.attention(normed)
        except RuntimeError as error:
            raise RuntimeError(f"layer 3 of {states.shape}") from error

    def attention(self, normed: torch.Tensor) -> None:
        scores = [self.make() for _ in range(3)]
        try:
            self.allocate()
        finally:
            scores.append(normed)

    def allocate(self) -> None:
        workspace = self.make()
        assert workspace is not None
        raise self.error

    def make(self) -> torch.Tensor:
        made = torch.ones(1000)
        self.held.append(weakref.ref(made))
        return made

    @property
    def alive(self) -> int:
        return sum(held() is not None for held in self.held)


@pytest.mark.parametrize("error", [cuda_error(1), cpu_error(1), MemoryError()])
def test_nothing_of_the_failed_call_is_alive_when_the_ladder_acts(error: BaseException) -> None:
    failing = Failing(error)
    gc.disable()
    try:
        alive: list[int] = []

        class Looking(Machine):
            def drop_idle(self) -> str | None:
                alive.append(failing.alive)
                return "nothing"

        outcome = guarded(failing)
        assert outcome.shortage is not None
        assert Ladder(Looking()).climb(str(outcome.shortage)) is not None
    finally:
        gc.enable()
    assert len(failing.held) == 6
    assert alive == [0]


def test_an_error_that_somebody_keeps_holds_nothing_either() -> None:
    failing = Failing(MemoryError())
    future: Future[Any] = Future()

    def asked() -> None:
        try:
            failing()
        except MemoryError as error:
            future.set_exception(error)
        future.result()

    assert guarded(asked).shortage is not None
    assert failing.alive == 0
    kept = future.exception()
    assert isinstance(kept, MemoryError)
    assert kept.__traceback__ is None


def test_a_traceback_that_somebody_keeps_holds_nothing_either() -> None:
    failing = Failing(MemoryError())
    kept: list[Any] = []

    def asked() -> None:
        try:
            failing()
        except MemoryError as error:
            kept.append(error.__traceback__)
            raise

    assert guarded(asked).shortage is not None
    assert kept
    assert failing.alive == 0


def test_an_error_in_the_place_of_another_holds_nothing_of_it() -> None:
    failing = Failing(KeyError("x"))

    def cleaning() -> None:
        try:
            failing()
        except KeyError:
            raise MemoryError  # noqa: B904

    kept: list[BaseException] = []

    def asked() -> None:
        try:
            cleaning()
        except MemoryError as error:
            kept.append(error)
            raise

    assert guarded(asked).shortage is not None
    assert failing.alive == 0


def test_work_outside_of_a_step_is_tried_again_after_relief() -> None:
    done: list[str] = []

    def call() -> int:
        done.append("call")
        if len(done) < 5:
            raise MemoryError(f"{len(done)}")
        return 7

    outcome = insist(call, lambda: done.append("relief"), stage="prepare")
    assert (outcome.value, outcome.shortage) == (7, None)
    assert done == ["call", "relief", "call", "relief", "call"]
    assert outcome.attempts == (
        Attempt("memory: prepare", False, "MemoryError: 1"),
        Attempt("memory: prepare", False, "MemoryError: 3"),
    )


def test_work_that_never_fits_is_given_up_after_a_few_tries() -> None:
    failing = [Failing(MemoryError("no")) for _ in range(3)]
    ahead = list(failing)
    alive: list[int] = []
    outcome = insist(
        lambda: ahead.pop()(),  # noqa: PLW0108
        lambda: alive.append(sum(one.alive for one in failing)),
        stage="prepare",
        tries=3,
    )
    assert outcome.shortage == Shortage("MemoryError", "no")
    assert len(outcome.attempts) == 2
    assert alive == [0, 0]


# The doubles themselves.


def test_allocations_are_counted_and_views_are_not() -> None:
    ones = torch.ones(4, 6)
    weight = torch.ones(5, 6)
    with FailingAllocations() as faults:
        counted: list[tuple[str, int]] = []
        calls = {
            "view": lambda: ones.view(6, 4),
            "slice": lambda: ones[1:, :3],
            "transpose": ones.t,
            "in place": lambda: ones.add_(1),
            "out": lambda: torch.add(ones, 1, out=ones),
            "item": ones[0, 0].item,
            "empty": lambda: torch.empty(3),
            "add": lambda: ones + 1,
            "clone": ones.clone,
            "cast": lambda: ones.to(torch.bfloat16),
            "reshape": lambda: ones.t().reshape(-1),
            "matmul": lambda: ones @ weight.t(),
            "cat": lambda: torch.cat([ones, ones]),
            "max": lambda: ones.max(dim=0),
        }
        for name, call in calls.items():
            before = faults.count
            call()
            counted.append((name, faults.count - before))
    none = ("view", "slice", "transpose", "in place", "out", "item")
    assert counted == [(name, 0 if name in none else 1) for name in calls]


def test_what_a_batched_product_makes_is_counted_once() -> None:
    a, b = torch.ones(2, 3, 4), torch.ones(4, 5)
    with FailingAllocations() as faults:
        a @ b
    assert faults.count == 1


def test_the_named_allocation_fails_before_it_does_anything() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    with FailingAllocations(2) as faults:
        torch.ones(3)
        with pytest.raises(torch.OutOfMemoryError):
            torch.rand(3, generator=generator)
        assert torch.equal(generator.get_state(), before)
        torch.rand(3, generator=generator)
        faults.fail_next(after=1)
        torch.ones(3)
        with pytest.raises(torch.OutOfMemoryError):
            torch.ones(3)
        torch.ones(3)
    assert faults.failed == [2, 5]
    assert faults.count == 6


def test_faults_reach_into_inference_mode_and_transformers_like_code() -> None:
    linear = torch.nn.Linear(4, 4)
    with FailingAllocations(error=cpu_error) as faults, torch.inference_mode():
        faults.fail_next(after=1)
        shortage = guarded(lambda: linear(linear(torch.zeros(2, 4)))).shortage
    assert shortage is not None
    assert "DefaultCPUAllocator" in shortage.text


def test_faults_reach_into_threads_that_are_started_meanwhile() -> None:
    outcomes: list[Any] = []
    with FailingAllocations(2) as faults:
        threads = [
            threading.Thread(target=lambda: outcomes.append(guarded(lambda: torch.ones(3))))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
            thread.join()
    torch.ones(3)
    assert [outcome.shortage is None for outcome in outcomes] == [True, False, True]
    assert faults.count == 3


def test_reservations_are_refused_by_number() -> None:
    from octavo.memory.ledger import Ledger

    ledger = Ledger({"device": 100})
    with failing_reservations(2, 3) as faults:
        held = ledger.reserve("device", "kv", 10, "a")
        with pytest.raises(BudgetExceeded):
            ledger.reserve("device", "kv", 10, "a")
        with pytest.raises(BudgetExceeded):
            held.grow(5)
        held.grow(5)
        faults.fail_next()
        with pytest.raises(BudgetExceeded):
            held.grow(1)
    held.grow(1)
    assert ledger.used("device") == 16
    assert faults.failed == [2, 3, 5]
