"""Reading pages so that a fault costs one page: batches, suspects, time limits, restarts.

``Isolated`` reads in a worker process, ``Inline`` with the caller's reader in this one. Both give
every page asked for exactly one ``PageRead``, in the order in which pages are finished.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from octavo.errors import OctavoError, PageTimeout, WorkerCrashed
from octavo.media.page import Page
from octavo.pipeline.config import PipelineConfig
from octavo.pipeline.frames import (
    BatchDone,
    Open,
    Opened,
    PageRead,
    Raised,
    Read,
    Refused,
    Reply,
    Started,
)
from octavo.pipeline.process import WorkerGone, WorkerProcess
from octavo.pipeline.session import BatchLost, Given, Session, failure_of
from octavo.types import Failure, PageResult, Reader

#: Seconds beyond a page's limit that a worker gets to load its engines, and to tidy up.
GRACE_S = 60.0

Attempt = Callable[[tuple[int, ...]], Iterator[Started | PageRead]]


class Reading(Protocol):
    """Reads the pages of one document after the other."""

    def open(self, path: Path, config: PipelineConfig) -> int:
        """The number of pages. Raises ``OctavoError`` where the file cannot be read at all."""
        ...

    def read(self, numbers: tuple[int, ...], folder: Path) -> Iterator[PageRead]:
        """One ``PageRead`` for each number, pictures written into ``folder``."""
        ...

    def close(self) -> None: ...


def read_batches(numbers: tuple[int, ...], batch_size: int, attempt: Attempt) -> Iterator[PageRead]:
    """Reads all of ``numbers`` through ``attempt``, which may raise ``BatchLost``.

    Pages that had been taken and not given back when a batch was lost are suspects. Each is tried
    alone, so that only the culprit fails; where it is the only one and another try would end the
    same way, it fails at once.
    """
    todo = deque(numbers[at : at + batch_size] for at in range(0, len(numbers), batch_size))
    tried_alone: set[int] = set()
    while todo:
        batch = todo.popleft()
        left, taken = dict.fromkeys(batch), dict[int, None]()
        lost = BatchLost(Failure("PageError", "the reader gave no result for this page"))
        try:
            for reply in attempt(batch):
                if isinstance(reply, Started):
                    taken[reply.number] = None
                elif reply.result.number in left:
                    del left[reply.result.number]
                    yield reply
        except BatchLost as error:
            lost = error
        suspects = [number for number in taken if number in left] or list(left)[:1]
        rest = tuple(number for number in left if number not in suspects)
        if rest:
            todo.appendleft(rest)
        certain = len(suspects) == 1 and not lost.fleeting
        for number in reversed(suspects):
            if certain or number in tried_alone:
                yield PageRead(failed_page(number, lost.failure))
            else:
                tried_alone.add(number)
                todo.appendleft((number,))


def failed_page(number: int, failure: Failure) -> PageResult:
    """The result of a page of which nothing is known."""
    return PageResult(number=number, width=0.0, height=0.0, failure=failure)


class Inline:
    """The caller's reader, in this process: nothing stands between it and the run."""

    def __init__(self, reader: Reader[Page]) -> None:
        self._shelf = Given(reader)
        self._session: Session | None = None
        self._batch_size = 1

    def open(self, path: Path, config: PipelineConfig) -> int:
        self.close()
        self._session = Session(path, config, self._shelf)
        self._batch_size = config.batch_size
        return len(self._session)

    def read(self, numbers: tuple[int, ...], folder: Path) -> Iterator[PageRead]:
        session = self._session
        if session is None:
            raise RuntimeError("read before open")

        def attempt(batch: tuple[int, ...]) -> Iterator[Started | PageRead]:
            # Started pages are known one step late, which does for finding suspects.
            started: list[int] = []
            try:
                yield from session.read(batch, folder, started.append)
            except BatchLost:
                yield from map(Started, started)
                raise

        yield from read_batches(numbers, self._batch_size, attempt)

    def close(self) -> None:
        """Closes the document; the reader is the caller's."""
        if self._session is not None:
            self._session.close()
            self._session = None


class Isolated:
    """The embedded reader in a worker process, started on first use and again after a fault."""

    def __init__(self) -> None:
        self._worker: WorkerProcess | None = None
        self._document: Open | None = None
        self._limit_s = 0.0

    @property
    def pid(self) -> int | None:
        """The worker's process id while there is one."""
        return self._worker.pid if self._worker else None

    def open(self, path: Path, config: PipelineConfig) -> int:
        self._document = Open(path.resolve(), config)
        self._limit_s = config.page_timeout_s
        return self._send_open(self._document)[1]

    def read(self, numbers: tuple[int, ...], folder: Path) -> Iterator[PageRead]:
        document = self._document
        if document is None:
            raise RuntimeError("read before open")
        where = folder.resolve()

        def attempt(batch: tuple[int, ...]) -> Iterator[Started | PageRead]:
            return self._attempt(document, Read(batch, where))

        yield from read_batches(numbers, document.config.batch_size, attempt)

    def close(self) -> None:
        """Ends the worker and frees what it held."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def _send_open(self, document: Open) -> tuple[WorkerProcess, int]:
        if self._worker is None:
            self._worker = WorkerProcess()
        worker, where = self._worker, str(document.path)
        worker.memory_bytes = document.config.worker_memory_mb << 20
        try:
            worker.send(document)
            reply = worker.receive(self._limit_s + GRACE_S)
        except WorkerGone as gone:
            self.close()
            raise WorkerCrashed(
                f"opening it ended the process that reads pages: {gone.how}",
                where=where,
                next_step=gone.next_step
                or "the file may be damaged; `octavo doctor` checks the installation",
            ) from gone
        except TimeoutError as error:
            self.close()
            raise PageTimeout(
                "opening it took too long", where=where, next_step="raise page_timeout_s"
            ) from error
        except BaseException:
            # Interrupted between question and answer: the answer must not meet the next one.
            self.close()
            raise
        if isinstance(reply, Opened):
            return worker, reply.pages
        raise _refusal(reply)

    def _attempt(self, document: Open, request: Read) -> Iterator[Started | PageRead]:
        if self._worker is None:
            self._send_open(document)
        worker = self._worker
        if worker is None:
            raise RuntimeError("a worker that opened a file is there")
        in_step = False
        try:
            worker.send(request)
            for reply in self._replies(worker):
                if isinstance(reply, BatchDone | Raised | Refused):
                    in_step = True
                    if isinstance(reply, Raised):
                        raise BatchLost(reply.failure)
                    if isinstance(reply, Refused):
                        raise reply.error
                    return
                if isinstance(reply, Started | PageRead):
                    yield reply
        except WorkerGone as gone:
            crash = WorkerCrashed(
                f"the process that read the page died: {gone.how}",
                next_step=gone.next_step or "run again, with mode=small-memory if memory is short",
            )
            raise BatchLost(failure_of(crash), fleeting=True) from gone
        except TimeoutError as error:
            limit = PageTimeout(
                f"the page took longer than {self._limit_s:g} s", next_step="raise page_timeout_s"
            )
            raise BatchLost(failure_of(limit)) from error
        finally:
            # A worker in the middle of a batch would answer the next question with the last.
            if not in_step:
                self.close()

    def _replies(self, worker: WorkerProcess) -> Iterator[Reply]:
        """What the worker says. Raises ``TimeoutError`` when a page is over its limit.

        A reader takes pages ahead and gives them back in order, so the clock of a page runs from
        the moment at which nothing before it was in the way.
        """
        open_pages: set[int] = set()
        since = time.monotonic()
        while True:
            limit = self._limit_s if open_pages else self._limit_s + GRACE_S
            reply = worker.receive(since + limit - time.monotonic())
            if isinstance(reply, Started):
                if not open_pages:
                    since = time.monotonic()
                open_pages.add(reply.number)
            elif isinstance(reply, PageRead):
                open_pages.discard(reply.result.number)
                since = time.monotonic()
            yield reply


def _refusal(reply: Reply) -> OctavoError:
    if isinstance(reply, Refused):
        return reply.error
    raise RuntimeError(f"the worker answered Open with {type(reply).__name__}")
