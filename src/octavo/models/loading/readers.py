"""One pool of threads that read files into memory: for all shards and all components.

A disk is as fast as it can be when several large reads are always under way. So all components
share the threads and one queue: what was asked for first is read first, by the order that
callers give.
"""

from __future__ import annotations

import heapq
import itertools
import mmap
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import torch

from octavo.errors import ReleasedError
from octavo.memory.buffers import PAGE, memory_of
from octavo.models.loading.opened import OpenedFile

#: Found on a disk that gives 1 to 3 GB/s; the exact values matter little from here on.
THREADS: Final = 8
CHUNK_BYTES: Final = 2 << 20
#: Through which go bytes that direct I/O cannot put where they belong; for each thread.
_BOUNCE_BYTES: Final = 1 << 20


class Stop:
    """Told to stop, reads that carry it are skipped; those under way end by themselves."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    @property
    def told(self) -> bool:
        return self._event.is_set()


@dataclass(slots=True)
class _Asked:
    """One call of ``read``."""

    file: _Shared
    stop: Stop | None
    left: int
    future: Future[None] = field(default_factory=Future)
    error: BaseException | None = None


@dataclass(slots=True)
class _Shared:
    """A file that is open while reads of it are asked for; opened by the first that begins."""

    path: Path
    users: int = 0
    opened: OpenedFile | None = None
    opening: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True, order=True)
class _Block:
    """A part of a read, in the order of the queue."""

    order: int
    number: int
    asked: _Asked = field(compare=False)
    offset: int = field(compare=False)
    view: memoryview = field(compare=False)


class ReaderPool:
    """Reads byte ranges of files into tensors, in blocks, on a few threads.

    Args:
        threads: reads under way at once.
        chunk_bytes: of one read; a multiple of the page.
        direct: whether to read past the page cache; None does where the file system allows it.
            True is the same: a file system that refuses is read through the cache in any case.
    """

    def __init__(
        self,
        *,
        threads: int | None = None,
        chunk_bytes: int = CHUNK_BYTES,
        direct: bool | None = None,
    ) -> None:
        self.threads = threads or THREADS
        self._block_bytes = max(chunk_bytes // PAGE * PAGE, PAGE)
        self._direct = direct is not False
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="octavo-read")
        self._lock = threading.Lock()
        self._queue: list[_Block] = []
        self._numbers = itertools.count()
        self._files: dict[Path, _Shared] = {}
        self._own = threading.local()
        self._closed = False

    def read(
        self,
        path: Path,
        offset: int,
        into: torch.Tensor,
        *,
        order: int = 0,
        stop: Stop | None = None,
    ) -> Future[None]:
        """Begins to fill ``into`` with the bytes of ``path`` from ``offset`` on.

        Bytes go straight to their place when ``offset`` and the address of ``into`` differ by
        whole pages; otherwise they are copied once.

        Args:
            into: 1-D ``uint8`` on the CPU, contiguous; untouched by others until the end.
            order: lower ones are read first; equal ones as they were asked for.
            stop: skips what is not yet under way.

        Returns:
            Done when nothing more is written to ``into``. Its ``result`` raises BrokenFile (the
            file ends before), SourceNotFound, InputError (the disk refused) or ReleasedError
            (stopped, or the pool was closed).
        """
        data = memory_of(into)
        low_high = list(self._blocks(offset, len(data)))
        with self._lock:
            if self._closed:
                raise ReleasedError("the reader pool is closed", where=str(path))
            file = self._files.setdefault(path, _Shared(path))
            asked = _Asked(file, stop, len(low_high))
            if not low_high:
                asked.future.set_result(None)
                self._forget_unused(file)
                return asked.future
            file.users += 1
            asked.future.set_running_or_notify_cancel()
            for low, high in low_high:
                block = _Block(order, next(self._numbers), asked, offset + low, data[low:high])
                heapq.heappush(self._queue, block)
                # With the lock, so that closing never comes between a block and its turn.
                self._pool.submit(self._one)
        return asked.future

    def close(self) -> None:
        """Skips what has not begun, waits for the rest and ends the threads."""
        with self._lock:
            self._closed = True
        self._pool.shutdown()

    def __enter__(self) -> ReaderPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _blocks(self, offset: int, nbytes: int) -> Iterator[tuple[int, int]]:
        """Ranges within a read; all but the first start on a page of the file."""
        low = 0
        while low < nbytes:
            high = min(low + self._block_bytes - (offset + low) % PAGE, nbytes)
            yield low, high
            low = high

    def _one(self) -> None:
        """Takes the next block of the queue: not always the one that this call was made for."""
        with self._lock:
            block = heapq.heappop(self._queue)
        asked = block.asked
        error: BaseException | None = None
        try:
            self._move(block)
        except BaseException as failure:
            error = failure
            # An error keeps its frames, which must not keep the memory that was read into.
            traceback.clear_frames(failure.__traceback__)
            raise
        finally:
            del block
            self._ended(asked, error)
            del asked, error

    def _move(self, block: _Block) -> None:
        asked = block.asked
        if asked.error is not None:
            return
        if self._closed or (asked.stop is not None and asked.stop.told):
            raise ReleasedError("reading was stopped", where=str(asked.file.path))
        file = self._opened(asked.file)
        if file.direct:
            self._read_direct(file, block.view, block.offset)
        else:
            file.read(block.view, block.offset, len(block.view))

    def _opened(self, shared: _Shared) -> OpenedFile:
        with shared.opening:
            if shared.opened is None:
                shared.opened = OpenedFile(shared.path, direct=self._direct)
            return shared.opened

    def _read_direct(self, file: OpenedFile, view: memoryview, offset: int) -> None:
        """Whole pages in place, where address and offset agree; the rest through a bounce."""
        if (_address(view) - offset) % PAGE:
            self._read_copied(file, view, offset)
            return
        head = min(-offset % PAGE, len(view))
        body = (len(view) - head) // PAGE * PAGE
        if head:
            self._read_copied(file, view[:head], offset)
        if body:
            file.read(view[head : head + body], offset + head, body)
        if head + body < len(view):
            self._read_copied(file, view[head + body :], offset + head + body)

    def _read_copied(self, file: OpenedFile, view: memoryview, offset: int) -> None:
        with self._bounce() as bounce:
            done = 0
            while done < len(view):
                skipped = (offset + done) % PAGE
                wanted = min(len(view) - done, len(bounce) - skipped)
                pages = -(-(skipped + wanted) // PAGE) * PAGE
                file.read(bounce[:pages], offset + done - skipped, skipped + wanted)
                view[done : done + wanted] = bounce[skipped : skipped + wanted]
                done += wanted

    @contextmanager
    def _bounce(self) -> Iterator[memoryview]:
        """This thread's own pages; only those that are used take memory."""
        if not hasattr(self._own, "bounce"):
            self._own.bounce = mmap.mmap(-1, _BOUNCE_BYTES)
        with memoryview(self._own.bounce) as view:
            yield view

    def _ended(self, asked: _Asked, error: BaseException | None) -> None:
        with self._lock:
            asked.error = asked.error or error
            asked.left -= 1
            if asked.left:
                return
            asked.file.users -= 1
            self._forget_unused(asked.file)
        if asked.error is not None:
            asked.future.set_exception(asked.error)
        else:
            asked.future.set_result(None)

    def _forget_unused(self, file: _Shared) -> None:
        """Closes a file that nobody reads any more. Called with the lock."""
        if not file.users:
            self._files.pop(file.path, None)
            if file.opened is not None:
                file.opened.close()


def _address(view: memoryview) -> int:
    return torch.frombuffer(view, dtype=torch.uint8).data_ptr()
