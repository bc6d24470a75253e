"""A few aligned buffers through which values go that direct I/O cannot take as they lie."""

from __future__ import annotations

import mmap
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from octavo.memory.ledger import Ledger, Reservation

_COUNT: Final = 4
_LARGEST: Final = 1024 * 1024
_SMALLEST: Final = 16 * 1024
#: The share of the host budget that they may take.
_SHARE: Final = 8


class Bounces:
    """Four buffers of 16 KiB to 1 MiB each, by the host budget that is free.

    They are counted as staging. Where the host budget has not even room for one of 16 KiB, that
    one is taken uncounted: without it no small value could be written.

    Attributes:
        piece: bytes of one buffer.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.piece, self._held = _reserve(ledger)
        count = _COUNT if self._held is not None else 1
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        for _ in range(count):
            self._free.put(memoryview(mmap.mmap(-1, self.piece)))

    @contextmanager
    def one(self) -> Iterator[memoryview]:
        """A buffer; waits for one."""
        view = self._free.get()
        try:
            yield view
        finally:
            self._free.put(view)

    def close(self) -> None:
        """Gives the memory back. Nothing may be under way."""
        # The mappings end with their last view, which an error's traceback may still hold.
        while not self._free.empty():
            self._free.get()
        if self._held is not None:
            self._held.release()


def _reserve(ledger: Ledger) -> tuple[int, Reservation | None]:
    piece = _LARGEST
    while piece > _SMALLEST and piece * _COUNT * _SHARE > ledger.free("host"):
        piece //= 2
    held = ledger.try_reserve("host", "staging", piece * _COUNT, "disk")
    return (piece, held) if held is not None else (_SMALLEST, None)
