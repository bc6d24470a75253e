"""The sequences that a backend holds, as the scheduler sees them, and how they find room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from octavo.engine.kv import KvSequence, PagedKV
from octavo.engine.sequence import Status
from octavo.errors import BudgetExceeded, TierFull

if TYPE_CHECKING:
    from octavo.engine.sequence import Sequence
    from octavo.engine.step import Fork, Slice

_Taken = TypeVar("_Taken")


@dataclass(slots=True, eq=False)
class Held:
    """A sequence of the scheduler, and its keys and values."""

    sequence: Sequence
    kv: KvSequence

    @property
    def stale(self) -> bool:
        """Whether the scheduler has let go of it, or has it start over."""
        return not self.sequence.computed and not self.sequence.parked


class Holdings:
    """Args:
        kv: the pools.

    Attributes:
        on_lost: told the id of a sequence whose keys and values had to go.
    """

    def __init__(self, kv: PagedKV) -> None:
        self._kv = kv
        self._held: dict[str, Held] = {}
        self.on_lost: Callable[[str], object] | None = None

    def __contains__(self, held: Held) -> bool:
        return self._held.get(held.sequence.id) is held

    def known(self, sequence_id: str) -> Held:
        """
        Raises:
            RuntimeError: nothing is held of it.
        """
        held = self._held.get(sequence_id)
        if held is None:
            raise RuntimeError(f"nothing is held of {sequence_id}")
        return held

    def of(self, part: Slice) -> Held:
        """What a slice goes on from; empty where it is the first.

        Raises:
            RuntimeError: something else is held than it goes on from.
        """
        if not part.start:
            self.release(part.id)
            self._held[part.id] = Held(part.sequence, self._kv.sequence(part.id))
        held = self.known(part.id)
        if held.kv.length != part.start:
            raise RuntimeError(
                f"{part.id} goes on from {part.start}, {held.kv.length} tokens are held"
            )
        return held

    def sweep(self, but: set[str]) -> None:
        """Lets go of all that the scheduler has let go of."""
        for name, held in list(self._held.items()):
            if held.stale and name not in but:
                self.release(name)

    def release(self, sequence_id: str) -> None:
        held = self._held.pop(sequence_id, None)
        if held is not None:
            held.kv.release()

    def lose(self, sequence_id: str) -> None:
        """Lets go of one that the scheduler counts on."""
        self.release(sequence_id)
        if self.on_lost is not None:
            self.on_lost(sequence_id)

    def close(self) -> None:
        for name in list(self._held):
            self.release(name)

    def fork(self, fork: Fork) -> None:
        """
        Raises:
            BudgetExceeded: there is no room for a copy of the tail.
            RuntimeError: the parent is not what the scheduler thinks.
        """
        parent = self.known(fork.parent).kv
        if parent.length != fork.tokens:
            raise RuntimeError(f"{fork.parent} has {parent.length} tokens, not {fork.tokens}")
        name = fork.sequence.id
        self.release(name)
        made = self._finding_room(lambda: parent.fork(owner=name), {name, fork.parent})
        self._held[name] = Held(fork.sequence, made)

    def resume(self, sequence_id: str, busy: set[str]) -> None:
        """Brings back what was parked, as far as the pools have room.

        Raises:
            BudgetExceeded: not even the tail finds room; it stays parked.
        """
        kv = self.known(sequence_id).kv
        self._finding_room(kv.resume, busy)
        kv.restore(keep=False)

    def reserve(self, held: Held, tokens: int, busy: set[str]) -> None:
        """
        Args:
            busy: ids of those that are computed in this step.

        Raises:
            BudgetExceeded, TierFull: there is no room; the sequence is as before.
        """
        self._kv.check_length(held.kv.length + tokens, held.kv.owner)
        self._finding_room(lambda: held.kv.reserve(tokens), busy)

    def _finding_room(self, take: Callable[[], _Taken], busy: set[str]) -> _Taken:
        """Does what takes blocks; others' are written back, and idle ones let go of, for it."""
        while True:
            try:
                return take()
            except (BudgetExceeded, TierFull):
                pass
            # Out here, so that the error holds no memory any more.
            if not (self._write_back() or self._lose_idle(busy)):
                return take()

    def _write_back(self) -> bool:
        """A run of blocks of the sequence that holds most, if there is a store with room."""
        largest_first = sorted(self._held.values(), key=lambda held: -held.kv.nbytes)
        try:
            return any(held.kv.spill_one() for held in largest_first)
        except (BudgetExceeded, TierFull):
            return False

    def _lose_idle(self, busy: set[str]) -> bool:
        """Lets go of one that does not run, the oldest first, if the scheduler can hear of it."""
        if self.on_lost is None:
            return False
        for name, held in self._held.items():
            idle = held.sequence.status is not Status.RUNNING and not held.kv.parked
            if idle and name not in busy:
                self.lose(name)
                return True
        return False
