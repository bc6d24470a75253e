"""The parent's end of the worker: start, send, receive with a time limit, stop."""

from __future__ import annotations

import logging
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from typing import IO

import psutil

from octavo.errors import MissingDependency
from octavo.pipeline.frames import TIED, Ready, Reply, Request, read_frame, write_frame

_log = logging.getLogger("octavo.worker")

#: -P keeps the working folder, where documents of others lie, off the import path.
COMMAND = (sys.executable, "-P", "-m", "octavo.pipeline.worker")

#: Seconds for Python and the imports of the worker; a slow network disk is allowed for.
START_S = 120.0
STOP_S = 5.0
#: Seconds between two looks at the worker's memory. Fresh pages cost the kernel time, so in this
#: time a process can gain some hundred megabytes.
LOOK_S = 0.2


class WorkerGone(Exception):
    """The worker has ended. ``how`` is the signal or exit code, in words; ``next_step`` is there
    where that alone tells what to do."""

    def __init__(self, how: str, next_step: str | None = None) -> None:
        super().__init__(how)
        self.how = how
        self.next_step = next_step


class WorkerProcess:
    """A running worker.

    Attributes:
        memory_bytes: resident memory over which ``receive`` ends it; None for no limit.

    Raises:
        MissingDependency: it does not start, which is a fault of the installation.
    """

    def __init__(self) -> None:
        self.memory_bytes: int | None = None
        command = [*COMMAND]
        if threading.current_thread() is threading.main_thread():
            command.append(TIED)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        if stdin is None or stdout is None or stderr is None:
            raise RuntimeError("pipes were asked for")
        self._stdin, self._stdout, self._stderr = stdin, stdout, stderr
        self._inbox: queue.SimpleQueue[Reply | None] = queue.SimpleQueue()
        self._looked = time.monotonic()
        self._last_words: deque[str] = deque(maxlen=30)
        self._threads = [
            threading.Thread(target=self._take_replies, args=(stdout,), daemon=True),
            threading.Thread(target=self._take_log, args=(stderr,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        self._greet()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, request: Request) -> None:
        try:
            write_frame(self._stdin, request)
        except OSError as error:
            raise WorkerGone(self._how()) from error

    def receive(self, timeout_s: float) -> Reply:
        """The next reply.

        Raises:
            TimeoutError: none within ``timeout_s``.
            WorkerGone: none will come, or it was ended for the memory that it held.
        """
        until = time.monotonic() + timeout_s
        while True:
            self._look_at_memory()
            left = until - time.monotonic()
            try:
                reply = self._inbox.get(timeout=max(min(left, LOOK_S), 0.0))
            except queue.Empty as error:
                if left <= LOOK_S:
                    raise TimeoutError from error
            else:
                if reply is None:
                    raise WorkerGone(self._how())
                return reply

    def close(self) -> None:
        """Ends the process, in the middle of a page too, and waits until it is gone."""
        with suppress(OSError):
            self._stdin.close()
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join()
        self._stdout.close()
        self._stderr.close()

    def _look_at_memory(self) -> None:
        now = time.monotonic()
        if self.memory_bytes is None or now - self._looked < LOOK_S:
            return
        self._looked = now
        try:
            held = psutil.Process(self.pid).memory_info().rss
        except psutil.Error:
            return  # It is ending; the pipe will say so.
        if held > self.memory_bytes:
            self._process.kill()
            raise WorkerGone(
                f"it held {held >> 20} MiB of memory, over the limit of "
                f"{self.memory_bytes >> 20} MiB",
                "raise worker_memory_mb, or lower pdf_dpi or max_long_edge_px",
            )

    def _greet(self) -> None:
        try:
            if isinstance(self.receive(START_S), Ready):
                return
            how = "it said something else first"
        except TimeoutError:
            how = f"no answer in {START_S:g} s"
        except WorkerGone as gone:
            how = gone.how
        except BaseException:
            self.close()
            raise
        self.close()
        raise MissingDependency(
            f"the process that reads pages did not start ({how}): {self._last_word()}",
            next_step="octavo doctor",
        )

    def _take_replies(self, stream: IO[bytes]) -> None:
        # A pipe that breaks in the middle of a frame reads as its end.
        while (message := read_frame(stream)) is not None:
            if isinstance(message, Reply):
                self._inbox.put(message)
        self._inbox.put(None)

    def _take_log(self, stream: IO[bytes]) -> None:
        for line in stream:
            text = line.decode("utf-8", "replace").rstrip()
            self._last_words.append(text)
            _log.debug("%s", text)

    def _last_word(self) -> str:
        return next((line for line in reversed(self._last_words) if line.strip()), "no message")

    def _how(self) -> str:
        """How it ended. The pipe closes a moment before the process is gone."""
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            return "it closed its pipe"
        if code >= 0:
            return f"exit code {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
