"""Doubles that let memory run out at a chosen moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, Final, Self
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from octavo.errors import BudgetExceeded
from octavo.memory.ledger import Ledger, Reservation

#: Their schemas promise a tensor of its own, yet they return a view.
_VIEWS: Final = frozenset({"aten::_unsafe_view", "aten::_reshape_alias", "aten::lift_fresh"})


def cuda_error(number: int) -> BaseException:
    return torch.OutOfMemoryError(
        f"CUDA out of memory. Tried to allocate 20.00 MiB (allocation {number} was made to fail)."
    )


def cpu_error(number: int) -> BaseException:
    return RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
        f"you tried to allocate 20971520 bytes (allocation {number} was made to fail)."
    )


class FailingAllocations:
    """Counts operations that take memory for a new tensor, and fails some of them before they do
    anything: in the thread that enters it, and in threads that are started until it is left.

    Args:
        numbers: of the allocations that fail, from 1.
        error: makes what they raise, from the number.
        counts: says whether this thread's allocations are counted now.

    Attributes:
        count: allocations so far.
        failed: numbers of those that failed.
        largest: bytes of the largest tensor that can be made, like a machine that has no more;
            None is without limit.
    """

    def __init__(
        self,
        *numbers: int,
        error: Callable[[int], BaseException] = cuda_error,
        counts: Callable[[], bool] = lambda: True,
    ) -> None:
        self.count = 0
        self.failed: list[int] = []
        self.largest: int | None = None
        self._numbers = set(numbers)
        self._error = error
        self._counts = counts
        self._lock = threading.Lock()
        self._entered = ExitStack()

    def fail_next(self, after: int = 0) -> None:
        """The next allocation fails, or the one ``after`` so many."""
        self._numbers.add(self.count + 1 + after)

    def disarm(self) -> None:
        self._numbers.clear()
        self.largest = None

    def meet(self) -> None:
        """An allocation is asked for."""
        if not self._counts():
            return
        with self._lock:
            self.count += 1
            number = self.count
        if number in self._numbers:
            self._fail(number)

    def measure(self, made: Any) -> None:
        """An operation made this. What is too large was not: it is forgotten by raising."""
        largest = self.largest
        if largest is None or not self._counts():
            return
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().nbytes() > largest:
                self._fail(self.count)

    def _fail(self, number: int) -> None:
        self.failed.append(number)
        raise self._error(number)

    def __enter__(self) -> Self:
        run = threading.Thread.run

        def watched(thread: threading.Thread) -> None:
            with _Watched(self):
                run(thread)

        self._entered.enter_context(mock.patch.object(threading.Thread, "run", watched))
        self._entered.enter_context(_Watched(self))
        return self

    def __exit__(self, *_: object) -> None:
        self._entered.close()
        # Threads that are still there go on as if nothing were watched.
        self._counts = lambda: False


class _Watched(TorchDispatchMode):
    """One thread's operations, told to what counts them."""

    def __init__(self, faults: FailingAllocations) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._faults = faults

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Iterable[Any] = (), kwargs: Any = None
    ) -> Any:
        if not allocates(func):
            return func(*args, **(kwargs or {}))
        self._faults.meet()
        made = func(*args, **(kwargs or {}))
        self._faults.measure(made)
        return made


@cache
def allocates(operation: Any) -> bool:
    """Whether an operator returns a tensor that shares no memory with its arguments."""
    schema = operation._schema
    if schema.name in _VIEWS:
        return False
    return schema.name == "aten::resize_" or any(
        "Tensor" in str(result.type) and result.alias_info is None for result in schema.returns
    )


class FailingReservations:
    """What :func:`failing_reservations` counts and fails, in all threads."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self.count = 0
        self.failed: list[int] = []
        self._numbers = set(numbers)

    def fail_next(self, after: int = 0) -> None:
        self._numbers.add(self.count + 1 + after)

    def disarm(self) -> None:
        self._numbers.clear()

    def meet(self) -> None:
        self.count += 1
        if self.count in self._numbers:
            self.failed.append(self.count)
            raise BudgetExceeded(f"reservation {self.count} was made to fail", where="a test")


@contextmanager
def failing_reservations(*numbers: int) -> Iterator[FailingReservations]:
    """The n-th bytes that any ledger is asked for are refused."""
    faults = FailingReservations(numbers)
    reserve, grow = Ledger.reserve, Reservation.grow

    def reserving(self: Ledger, *args: Any, **named: Any) -> Reservation:
        faults.meet()
        return reserve(self, *args, **named)

    def growing(self: Reservation, nbytes: int) -> None:
        faults.meet()
        grow(self, nbytes)

    with (
        mock.patch.object(Ledger, "reserve", reserving),
        mock.patch.object(Reservation, "grow", growing),
    ):
        yield faults
