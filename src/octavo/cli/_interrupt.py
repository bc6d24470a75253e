"""Ctrl-C that ends the process in time even while native code holds the main thread.

Python runs signal handlers between two bytecodes of the main thread, so ``KeyboardInterrupt``
waits for a page that is being drawn or recognized. The interpreter's wakeup descriptor is
written at once; a thread that reads it gives the run its time to end, then ends the process.
The journal is committed page by page, so nothing that was finished is lost.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_NO_SIGNAL = b"\0"


@contextmanager
def ends_within(
    seconds: float, *, exit_code: int, last_words: Callable[[], None]
) -> Iterator[None]:
    """Inside, SIGINT raises ``KeyboardInterrupt``; ``seconds`` later the process is gone.

    ``last_words`` runs in the watching thread just before a forced end. The deadline outlives the
    context, because threads and child processes are joined after it. Only the main thread can
    hold this context; elsewhere it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    never = threading.Event()

    def watch() -> None:
        if signal.SIGINT in _until_signal_or_end(reading):
            never.wait(seconds)
            last_words()
            for child in multiprocessing.active_children():
                child.kill()
            os._exit(exit_code)

    previous = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch, name="octavo-interrupt", daemon=True)
    watcher.start()
    interrupted = False
    try:
        yield
    except KeyboardInterrupt:
        interrupted = True
        raise
    finally:
        signal.set_wakeup_fd(previous)
        if not interrupted:
            os.write(writing, _NO_SIGNAL)
            watcher.join()
            os.close(reading)
            os.close(writing)


def _until_signal_or_end(reading: int) -> bytes:
    """Signal numbers as they come, until one is SIGINT or the context has ended."""
    while True:
        numbers = os.read(reading, 64)
        if signal.SIGINT in numbers or _NO_SIGNAL in numbers:
            return numbers
