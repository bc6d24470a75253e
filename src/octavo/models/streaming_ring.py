"""One piece of memory for the streams of a model whose layers are never in use at the same time.

A tower runs before the decoder does, not beside it: while one of them works, the slots of the other
hold nothing but layers that were read ahead. So they lie over each other.
"""

from __future__ import annotations

from typing import Protocol

import torch

from octavo.memory.buffers import PAGE, host_buffer
from octavo.memory.ledger import Ledger, Reservation


class Resting(Protocol):
    """A stream, as far as its ring cares."""

    def rest(self) -> None:
        """Lets go of what was read ahead; returns when nothing is written any more."""


class Ring:
    """Streams of one group lie side by side, groups lie over each other.

    Args:
        ledger: the memory is reserved here when it is first used, as weights in ``host``.
        name: for the ledger.
        pinned: page-locked, for copies to a CUDA device.
    """

    def __init__(self, ledger: Ledger, name: str, *, pinned: bool = False) -> None:
        self._ledger = ledger
        self._name = name
        self._pinned = pinned
        self._groups: dict[str, int] = {}
        self._streams: list[tuple[str, Resting]] = []
        self._group: str | None = None
        self._memory: torch.Tensor | None = None
        self._reservation: Reservation | None = None

    @property
    def nbytes(self) -> int:
        """What it takes: as much as the group that takes most."""
        return max(self._groups.values(), default=0)

    def join(self, stream: Resting, group: str, nbytes: int) -> int:
        """A place for one more stream: where its bytes begin."""
        assert self._memory is None, "a stream that came after the ring was opened"
        start = self._groups.get(group, 0)
        self._groups[group] = start + -(-nbytes // PAGE) * PAGE
        self._streams.append((group, stream))
        return start

    def open(self) -> None:
        """Takes the memory, once all streams have joined.

        Raises:
            BudgetExceeded: there is no room for it.
        """
        if self._memory is None:
            reserved = self._ledger.reserve("host", "weights", self.nbytes, self._name)
            self._memory = host_buffer(self.nbytes, pinned=self._pinned)
            self._reservation = reserved

    def take(self, group: str, start: int, nbytes: int) -> torch.Tensor:
        """The bytes of a stream, which may write there until a stream of another group comes."""
        if group != self._group:
            for other, stream in self._streams:
                if other != group:
                    stream.rest()
            self._group = group
        assert self._memory is not None, "the ring is not open"
        return self._memory[start : start + nbytes]

    def leave(self, stream: Resting) -> None:
        """The last one to leave gives the memory back."""
        self._streams = [entry for entry in self._streams if entry[1] is not stream]
        if not self._streams:
            self._memory = None
            if self._reservation is not None:
                self._reservation.release()
