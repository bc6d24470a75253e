"""Bytes between memory and a slab: in blocks, on threads, each with its checksum."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import torch

from octavo.errors import CorruptValue, LostValue
from octavo.memory.buffers import PAGE, memory_of, whole_pages
from octavo.memory.disk.access import forget_cached, read_at, write_at
from octavo.memory.disk.bounce import Bounces
from octavo.memory.disk.flight import Flight
from octavo.memory.disk.sums import checksum
from octavo.memory.disk.sums import digest as new_digest

#: Reads in a row that may bring nothing, with the bytes there, before it counts as an error.
_STALLS: Final = 8


def in_pages(nbytes: int) -> int:
    """``nbytes`` up to whole pages."""
    return -(-nbytes // PAGE) * PAGE


class Transfer:
    """Moves values. Keeps no lock while bytes move.

    The calling thread does its share, so that a value of one block never changes threads.
    Checksums are computed by the thread that moves the block, while others wait for the disk.

    Args:
        depth: reads and writes at once for one value.
        direct: whether descriptors were opened for direct I/O.
    """

    def __init__(self, *, depth: int, direct: bool, bounces: Bounces) -> None:
        self.direct = direct
        self.flight = Flight()
        self._depth = depth
        self._bounces = bounces
        self._pool = ThreadPoolExecutor(depth, thread_name_prefix="octavo-disk")

    def write(self, fd: int, start: int, data_b: torch.Tensor, block: int) -> tuple[int, ...]:
        """Writes ``data_b`` at ``start``; the checksum of each block.

        Raises:
            OSError: the disk refused. Nothing is under way any more.
        """
        sums = [0] * -(-data_b.numel() // block)
        data = memory_of(data_b)
        pages = self._movable(data_b)

        def move(number: int) -> None:
            low = number * block
            high = min(low + block, len(data))
            if pages is None:
                sums[number] = self._write_copied(fd, start + low, data[low:high])
                return
            self._write_out(fd, start + low, pages[low : min(low + block, len(pages))])
            sums[number] = checksum(data[low:high])

        self._each(len(sums), move)
        return tuple(sums)

    def read(
        self, fd: int, start: int, out_b: torch.Tensor, block: int, sums: tuple[int, ...]
    ) -> None:
        """Fills ``out_b`` from ``start`` and verifies every block.

        Raises:
            CorruptValue, LostValue: what is there is not what was written, or is not there.
            OSError: the disk refused. Nothing is under way any more.
        """
        data = memory_of(out_b)
        pages = self._movable(out_b)

        def move(number: int) -> None:
            low = number * block
            high = min(low + block, len(data))
            if pages is None:
                found = self._read_copied(fd, start + low, data[low:high])
            else:
                self._read_in(fd, start + low, pages[low : low + block], high - low)
                found = checksum(data[low:high])
            if found != sums[number]:
                raise CorruptValue(
                    f"block {number} of {len(sums)} is not what was written",
                    next_step="make the value again; if this returns, the disk is failing",
                )

        self._each(len(sums), move)

    def close(self) -> None:
        self._pool.shutdown()

    def submit(self, work: Callable[[], object]) -> Future[object]:
        """Has a thread of the pool do something beside."""
        return self._pool.submit(work)

    def _movable(self, data_b: torch.Tensor) -> memoryview | None:
        """The memory as the disk can take it, None if it must be copied."""
        if not self.direct:
            return memory_of(data_b)
        pages_b = whole_pages(data_b)
        return None if pages_b is None else memory_of(pages_b)

    def _each(self, count: int, move: Callable[[int], None]) -> None:
        """Calls ``move`` for every number, on up to ``depth`` threads; raises the first error."""
        left = deque(range(count))

        def work() -> None:
            try:
                while left:
                    try:
                        number = left.popleft()
                    except IndexError:  # another thread took the last one
                        return
                    move(number)
            except BaseException:
                left.clear()
                raise

        helpers = [self._pool.submit(work) for _ in range(min(self._depth, count) - 1)]
        try:
            work()
        finally:
            # Also after an error: they may still be moving bytes of this value.
            failures = [helper.exception() for helper in helpers if not helper.cancel()]
        for failure in failures:
            if failure is not None:
                raise failure

    def _write_copied(self, fd: int, offset: int, data: memoryview) -> int:
        digest = new_digest()
        with self._bounces.one() as bounce:
            for low in range(0, len(data), len(bounce)):
                piece = data[low : low + len(bounce)]
                bounce[: len(piece)] = piece
                digest.update(piece)
                self._write_out(fd, offset + low, bounce[: in_pages(len(piece))])
        return digest.intdigest()

    def _read_copied(self, fd: int, offset: int, data: memoryview) -> int:
        digest = new_digest()
        with self._bounces.one() as bounce:
            for low in range(0, len(data), len(bounce)):
                piece = data[low : low + len(bounce)]
                self._read_in(fd, offset + low, bounce[: in_pages(len(piece))], len(piece))
                piece[:] = bounce[: len(piece)]
                digest.update(piece)
        return digest.intdigest()

    def _write_out(self, fd: int, offset: int, view: memoryview) -> None:
        done = 0
        while done < len(view):
            with self.flight.one():
                got = write_at(fd, view[done:], offset + done)
            if got <= 0:
                raise OSError(errno.EIO, "the disk took nothing")
            done = self._onward(done + got)
        if not self.direct:
            forget_cached(fd, offset, len(view))

    def _read_in(self, fd: int, offset: int, view: memoryview, needed: int) -> None:
        """Fills at least ``needed`` bytes of ``view``, which is whole pages for direct I/O."""
        done, stalls = 0, 0
        while True:
            with self.flight.one():
                got = read_at(fd, view[done:], offset + done)
            if done + got >= needed:
                break
            onward = self._onward(done + got)
            stalls = 0 if onward > done else stalls + 1
            if got == 0 or os.fstat(fd).st_size < offset + needed:
                raise LostValue(
                    f"the file ends at {offset + done + got}, before the value does",
                    next_step="make the value again; something else wrote to this folder",
                )
            if stalls > _STALLS:
                raise OSError(errno.EIO, "the disk gives less than a page at a time")
            done = onward
        if not self.direct:
            forget_cached(fd, offset, len(view))

    def _onward(self, done: int) -> int:
        """Where to go on after a short read or write: direct I/O starts on a page."""
        return done // PAGE * PAGE if self.direct else done
