"""What running out of memory looks like, and how a call is ended by it without keeping tensors.

An exception holds its traceback, the traceback the frames, and the frames every tensor that was
being computed with. Whoever gives memory up inside the ``except`` frees nothing, so here the error
is reduced to words before anything is done about it.
"""

from __future__ import annotations

import errno
import gc
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from octavo.errors import BudgetExceeded, TierFull
from octavo.types import Attempt, Failure

T = TypeVar("T")

#: What libraries say in a plain ``RuntimeError`` when memory is short, in small letters.
_SAID: Final = (
    "out of memory",  # CUDA, HIP, MPS and XPU, by their allocators and drivers
    "can't allocate memory",  # torch's allocator on Linux and macOS
    "not enough memory",  # the same on Windows
    "cannot allocate memory",
    "out_of_device_memory",
    "out_of_host_memory",
    "out_of_resources",  # Level Zero
    "status_alloc_failed",  # cuBLAS, cuDNN, cuSOLVER, cuSPARSE
    "insufficient_resources",  # cuSPARSE
    "cublascreate",  # on a full card it fails as "not initialized"
    "std::bad_alloc",
)
#: Characters of an error that are kept; torch's own go on with advice and statistics.
_LONGEST: Final = 160


def out_of_memory(error: BaseException) -> bool:
    """Whether this error, or the one that it was raised from, says that memory is short.

    It may be memory of a device, of the machine, of Octavo's own budget or of a tier.
    """
    return any(map(_says_so, _chain(error)))


@dataclass(frozen=True, slots=True)
class Shortage:
    """An out-of-memory error in words.

    Attributes:
        kind: name of the error's class.
        text: what it said, cut after the first sentence or so.
    """

    kind: str
    text: str

    @classmethod
    def of(cls, error: BaseException) -> Shortage:
        """That of the first in the chain that is one, else of the error itself."""
        first = next(filter(_says_so, _chain(error)), error)
        return cls(type(first).__name__, _shortened(str(first)))

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}" if self.text else self.kind

    def failure(self) -> Failure:
        """For a request that is failed because nothing was left to give up."""
        return Failure(
            BudgetExceeded.__name__,
            f"no memory was left, with nothing more to give up: {self}",
            "give less at once (smaller pictures, a shorter prompt or answer), or more memory",
        )


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """How a call ended: with a value, or for want of memory.

    Attributes:
        value: what it returned; None where ``shortage`` is set.
        shortage: why there is no value.
        attempts: that were not kept, where it was tried more than once.
    """

    value: T | None = None
    shortage: Shortage | None = None
    attempts: tuple[Attempt, ...] = ()


def guarded(call: Callable[[], T]) -> Outcome[T]:
    """Calls, and turns an out-of-memory error into words; other errors pass.

    When it returns, nothing that the failed call computed with is kept by the error: the frames
    that it went through are cleared. What ``call`` changed, the caller must put back.
    """
    try:
        return Outcome(call())
    except Exception as error:
        if not out_of_memory(error):
            raise
        shortage = Shortage.of(error)
        _let_go(error)
    return Outcome(shortage=shortage)


def insist(
    call: Callable[[], T], relieve: Callable[[], object], *, stage: str, tries: int = 4
) -> Outcome[T]:
    """For what is no step and has no ladder: calls again where memory ran out.

    Args:
        call: leaves everything as it was when it fails.
        relieve: gives up what can be given up; called between two tries, with garbage collected.
        stage: what is being done, for the record.
        tries: calls at most.
    """
    attempts: list[Attempt] = []
    while True:
        outcome = guarded(call)
        if outcome.shortage is None or len(attempts) == tries - 1:
            return Outcome(outcome.value, outcome.shortage, tuple(attempts))
        attempts.append(Attempt(f"memory: {stage}", kept=False, reason=str(outcome.shortage)))
        gc.collect()
        relieve()


def _let_go(error: BaseException) -> None:
    """Frees what the frames of an error, and of those before it, hold."""
    for one in _all_before(error):
        # A library may keep the error itself (a future does), so it must not keep the frames.
        traceback.clear_frames(one.__traceback__)
        one.__traceback__ = None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, then those that it was raised from."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__


def _all_before(error: BaseException) -> list[BaseException]:
    """The error and all that it was raised from, or while handling which."""
    found: dict[int, BaseException] = {}
    ahead: list[BaseException | None] = [error]
    while ahead:
        one = ahead.pop()
        if one is not None and id(one) not in found:
            found[id(one)] = one
            ahead += [one.__cause__, one.__context__]
    return list(found.values())


def _says_so(error: BaseException) -> bool:
    if isinstance(error, MemoryError | BudgetExceeded | TierFull):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # A torch that was not imported has raised nothing.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    said = str(error).lower()
    return any(words in said for words in _SAID)


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1].rstrip()}…"
