"""Slots for weights that stream past: loaders fill them and the model uses them, in one order."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import torch

from octavo.errors import ConfigError, OctavoError, TierError
from octavo.memory.ledger import Kind, Ledger, Place
from octavo.memory.pools.parts import Fence
from octavo.memory.pools.slots import SlotHandle, SlotRow


@dataclass(slots=True, eq=False)
class _Turn:
    """One filling of a slot, in the order of ``acquire``.

    Attributes:
        slot, owner: of the producer; ``slot`` is None once it went back after a failure.
        key: set when it is published.
        error: why it never will be.
        after: what has to end before it can be read.
    """

    slot: int | None
    owner: str
    key: Hashable = None
    published: bool = False
    error: BaseException | None = None
    after: Fence | None = None


class WeightRing(SlotRow):
    """A ring between loaders and a consumer.

    The order of use is the order in which slots were acquired, even where several loaders fill
    at once and a later one is ready first. With ``n`` slots up to ``n - 1`` fillings run ahead of
    the one in use.

    Args:
        ledger: counts all slots under ``kind`` in ``place`` for owner ``name``.
        slots: at least 2, or nothing overlaps.
        slot_nbytes: bytes of the largest layer.
        pinned: page-locked main memory; needs CUDA.

    Raises:
        BudgetExceeded: there is no room for all slots.
        ConfigError: no such ring can be.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        name: str = "weights",
        slots: int,
        slot_nbytes: int,
        kind: Kind = "weights",
        place: Place = "device",
        device: torch.device | str = "cpu",
        pinned: bool = False,
        poison: bool = False,
    ) -> None:
        self._turns: deque[_Turn] = deque()
        self._failure: BaseException | None = None
        super().__init__(
            ledger,
            name=name,
            slots=slots,
            slot_nbytes=slot_nbytes,
            kind=kind,
            place=place,
            device=device,
            pinned=pinned,
            poison=poison,
        )

    def acquire(self, *, timeout: float | None = None, owner: str = "loader") -> Filling:
        """The next slot to fill, as soon as one is free. For loaders.

        Threads that fill at once must acquire in the order of use.

        Raises:
            BudgetExceeded: none became free in ``timeout`` seconds.
            ReleasedError: the ring is closed, or was while waiting.
        """
        slot = self._claim(owner, timeout)
        if slot is None:
            raise self._refusal(owner, timeout)
        turn = _Turn(slot, owner)
        with self._lock:
            self._turns.append(turn)
            self._failure = None
        return Filling(self, slot, owner, turn)

    def take(self, key: Hashable, *, timeout: float | None = None, owner: str = "model") -> Loaded:
        """The weights published under ``key``, as soon as they are there. For the consumer.

        Raises:
            TierError: the loader failed (its error is the cause), or nothing came in time.
            ConfigError: the next weights in order are not these. They stay next.
            ReleasedError: the ring is closed, or was while waiting.
        """
        with self._lock:
            turn = self._wait_for(lambda: self._next(key), timeout)
            if turn is None:
                raise TierError(
                    f"{key!r} was not loaded in {timeout} s",
                    where=self.name,
                    next_step="see what the loader is doing, or wait longer",
                )
            self._turns.popleft()
            slot = turn.slot
            if slot is not None:
                self._out[turn.owner] -= 1
                self._out[owner] += 1
        if slot is None:
            raise _not_loaded(self.name, key, turn.error)
        if turn.after is not None:
            self._wait_on_stream(slot, owner, turn.after)
        return Loaded(self, slot, owner)

    def fail(self, error: BaseException) -> None:
        """The loader stops here: once what is published is used up, ``take`` raises.

        The next ``acquire`` begins anew.
        """
        with self._lock:
            self._failure = error
            self._changed.notify_all()

    # For handles.

    def _publish(self, handle: Filling, key: Hashable, after: Fence | None) -> None:
        with self._lock:
            handle._held()
            handle._slot = None
            turn = handle._turn
            turn.key, turn.after, turn.published = key, after, True
            self._changed.notify_all()

    def _give_up(self, handle: Filling, error: BaseException) -> None:
        with self._lock:
            if handle._slot is not None:
                handle._slot = None
                self._end(handle._turn, error)

    # Under the lock, all but ``_wait_on_stream``.

    def _next(self, key: Hashable) -> _Turn | None:
        if not self._turns:
            if self._failure is not None:
                raise _not_loaded(self.name, key, self._failure)
            return None
        turn = self._turns[0]
        if not turn.published:
            return turn if turn.error is not None else None
        if turn.key != key:
            raise ConfigError(
                f"the next weights are {turn.key!r}, not {key!r}",
                where=self.name,
                next_step="load in the order of use",
            )
        return turn

    def _end(self, turn: _Turn, error: BaseException) -> None:
        slot, turn.slot, turn.error = turn.slot, None, error
        if slot is not None:
            self._put_back(slot, turn.owner, None)
        self._changed.notify_all()

    def _lost(self, slot: int, owner: str) -> None:
        for turn in self._turns:
            if turn.slot == slot:
                dropped = TierError(
                    "the loader dropped a slot without publishing it",
                    where=self.name,
                    next_step="call publish() or fail() for every slot",
                )
                self._end(turn, dropped)
                return
        super()._lost(slot, owner)

    def _wait_on_stream(self, slot: int, owner: str, fence: Fence) -> None:
        try:
            if self.device.type == "cpu":
                fence.synchronize()
            else:
                fence.wait()
        except BaseException:
            with self._lock:
                self._put_back(slot, owner, None)
            raise


class Filling(SlotHandle):
    """A slot that a loader fills. As a context, it fails with the error that leaves it."""

    __slots__ = ("_ring", "_turn")

    def __init__(self, ring: WeightRing, slot: int, owner: str, turn: _Turn) -> None:
        super().__init__(ring, slot, owner)
        self._ring = ring
        self._turn = turn

    def publish(self, key: Hashable, after: Fence | None = None) -> None:
        """Hands the slot to the consumer; this handle cannot be used any more.

        Args:
            after: recorded behind a copy into the slot; the consumer's stream waits for it.
        """
        self._ring._publish(self, key, after)

    def fail(self, error: BaseException) -> None:
        """Passes an error on in the place of the weights. Harmless after ``publish``."""
        self._ring._give_up(self, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            error = TierError(
                "the loader left a slot without publishing it",
                where=self._row.name,
                next_step="call publish() inside of the with block",
            )
        self.fail(error)


class Loaded(SlotHandle):
    """Weights in use, until :meth:`release`."""

    __slots__ = ()

    def release(self, after: Fence | None = None) -> None:
        """Frees the slot for the next filling. Harmless when repeated.

        Args:
            after: recorded behind the computation that reads the slot; who fills it next waits
                for that.
        """
        self._row._release(self, after)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def _not_loaded(name: str, key: Hashable, cause: BaseException | None) -> TierError:
    step = cause.next_step if isinstance(cause, OctavoError) else None
    error = TierError(
        f"{key!r} was not loaded: {cause}",
        where=name,
        next_step=step or "mend the cause and load again",
    )
    error.__cause__ = cause
    return error
