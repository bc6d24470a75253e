"""One component being loaded: reads ahead, casts what has come, hashes, and puts all in place."""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from octavo.errors import ReleasedError
from octavo.memory.buffers import memory_of
from octavo.models.loading.checksum import Digest, Sums
from octavo.models.loading.fill import Convert, Filler
from octavo.models.loading.layout import Layout, Piece, Step, whole_file
from octavo.models.loading.memory import Memory
from octavo.models.loading.progress import LoadProgress
from octavo.models.loading.readers import ReaderPool, Stop

#: Bytes that one thread casts at a time.
_PART: Final = 2 << 20
#: Of a chunk for hashing a file of which nothing else is read.
_HASH_BYTES: Final = 16 << 20


@dataclass(slots=True, eq=False)
class _Reading:
    """A step whose bytes are on their way."""

    step: Step
    into: torch.Tensor
    chunk: torch.Tensor | None
    read: Future[None]


class Loading:
    """A load under way, made by ``Loader.start``; afterwards the holder of the component's memory.

    Attributes:
        component: its name.
        nbytes: what its parameters take when it is loaded.
    """

    def __init__(
        self,
        component: str,
        folder: Path,
        layout: Layout,
        memory: Memory,
        *,
        convert: Convert | None,
        readers: ReaderPool,
        workers: ThreadPoolExecutor,
        sums: Sums,
        hashed: Sequence[str],
        order: int,
        on_progress: Callable[[LoadProgress], None] | None,
    ) -> None:
        self.component = component
        self.nbytes = memory.nbytes
        self._folder = folder
        self._layout = layout
        self._memory = memory
        self._filler = Filler(memory.copies, memory.quantized, convert, memory.device)
        self._readers = readers
        self._workers = workers
        self._sums = sums
        self._hashed = list(hashed)
        self._digests = {file: Digest() for file in hashed}
        self._order = order
        self._on_progress = on_progress
        self._done_bytes = 0
        self._stop = Stop()
        self._lock = threading.Lock()
        self._loaded = False
        own = ThreadPoolExecutor(2, thread_name_prefix=f"octavo-load-{component}")
        self._thread: threading.Thread | None = None
        self._beside = own
        self._work = own.submit(self._run)

    @property
    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._work.done()

    def wait(self, timeout: float | None = None) -> None:
        """Waits until the component can be used.

        Raises:
            OctavoError: what stopped it; its memory is given back.
            TimeoutError: it is still loading.
        """
        self._work.result(timeout)

    def cancel(self) -> None:
        """Ends it and waits for the end; nothing happens when it is done."""
        with self._lock:
            self._stop.set()
        self._sums.wake()
        if threading.current_thread() is not self._thread:
            wait([self._work])

    def unload(self) -> None:
        """Takes the component out of the module, which must not be in use, and frees its memory."""
        self.cancel()
        if self._loaded:
            self._loaded = False
            self._memory.give_back()

    def _run(self) -> None:
        self._thread = threading.current_thread()
        try:
            self._read(self._layout.steps)
            self._verify()
            self._memory.release_staging()
            with self._lock:
                self._check_stopped()
                self._memory.place()
                self._loaded = True
            self._tell(finished=True)
        except BaseException as error:
            self._stop.set()
            self._loaded = False
            self._memory.give_back()
            _forget_frames(error)
            raise
        finally:
            for file in self._hashed:
                self._sums.give_up(file)
            self._thread = None
            self._beside.shutdown(wait=False)

    def _read(self, steps: Sequence[Step]) -> None:
        """Takes steps in order, with as many under way as memory allows."""
        left = deque(steps)
        under_way: deque[_Reading] = deque()
        try:
            while left or under_way:
                while left and (reading := self._begin(left[0])) is not None:
                    left.popleft()
                    under_way.append(reading)
                reading = under_way.popleft()
                try:
                    self._take(reading)
                except BaseException:
                    under_way.append(reading)
                    raise
        except BaseException:
            # Their memory is not given back before the last thread has left it.
            self._stop.set()
            wait([reading.read for reading in under_way])
            raise

    def _begin(self, step: Step) -> _Reading | None:
        """Asks for a step's bytes; None when no chunk is free for them."""
        chunk = None
        if step.buffer is None:
            if not self._memory.free_chunks:
                return None
            chunk = self._memory.free_chunks.pop()
            into = chunk[: step.nbytes]
        else:
            base = self._layout.buffers[step.buffer].low
            into = self._memory.buffers[step.buffer][step.low - base : step.high - base]
        path = self._folder / step.file
        read = self._readers.read(path, step.low, into, order=self._order, stop=self._stop)
        return _Reading(step, into, chunk, read)

    def _take(self, reading: _Reading) -> None:
        """Waits for a step's bytes, and does with them what is to be done."""
        wait([reading.read])
        self._check_stopped()  # first: a cancelled load says so, not that its reads were stopped
        reading.read.result()
        step = reading.step
        digest = self._digests.get(step.file)
        hashing = None
        if digest is not None:
            hashing = self._beside.submit(digest.feed, step.low, memory_of(reading.into))
        try:
            self._fill(reading)
        finally:
            if hashing is not None:
                hashing.result()
        if reading.chunk is not None:
            self._memory.free_chunks.append(reading.chunk)
        self._done_bytes += step.nbytes
        self._tell()

    def _fill(self, reading: _Reading) -> None:
        step = reading.step
        source, base = reading.into, step.low
        if step.buffer is not None:
            source, base = (
                self._memory.buffers[step.buffer],
                self._layout.buffers[step.buffer].low,
            )
        parts = [
            self._workers.submit(self._filler.fill, part, source, base)
            for piece in step.pieces
            for part in _parted(piece)
        ]
        wait(parts)
        for part in parts:
            part.result()
        if self._memory.device.type == "cuda":
            # Copies to the device may still read the chunk.
            torch.cuda.current_stream(self._memory.device).synchronize()

    def _verify(self) -> None:
        """Returns when every file that was read from is found right."""
        for file, digest in self._digests.items():
            self._sums.settle(file, digest.hex())
        for file in sorted({step.file for step in self._layout.steps}):
            while self._sums.covers(file) and not self._sums.wait(file, self._stop):
                self._check_stopped()
                if self._sums.claim(file):
                    self._hash_alone(file)

    def _hash_alone(self, file: str) -> None:
        """Another component was to hash the file, and was cancelled."""
        self._hashed.append(file)
        self._digests = {file: Digest()}
        chunk_bytes = self._memory.need_staging(_HASH_BYTES)
        size = (self._folder / file).stat().st_size
        self._read(whole_file(file, size, chunk_bytes))
        self._sums.settle(file, self._digests[file].hex())

    def _check_stopped(self) -> None:
        if self._stop.told:
            raise ReleasedError("loading was cancelled", where=self.component)

    def _tell(self, *, finished: bool = False) -> None:
        if self._on_progress is not None:
            total = max(self._layout.read_bytes, self._done_bytes)
            self._on_progress(LoadProgress(self.component, self._done_bytes, total, finished))


def _parted(piece: Piece) -> Iterator[Piece]:
    """Parts for several threads."""
    step = max(_PART // piece.wanted.unit, 1)
    for low in range(piece.low, piece.high, step):
        yield Piece(piece.wanted, low, min(low + step, piece.high))


def _forget_frames(error: BaseException) -> None:
    """Lets go of what the frames of a failure hold: the error outlives the memory."""
    seen: BaseException | None = error
    while seen is not None:
        with suppress(RuntimeError):
            traceback.clear_frames(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__
