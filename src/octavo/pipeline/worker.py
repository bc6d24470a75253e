"""The process that reads pages: ``python -m octavo.pipeline.worker``, spoken to over its pipes.

It lives for many documents, so that engines are loaded once. A fault in native code or a page
without end costs this process, not the run; ``supervise`` starts another.
"""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import IO

from octavo.errors import OctavoError
from octavo.pipeline.frames import (
    TIED,
    BatchDone,
    Open,
    Opened,
    Raised,
    Read,
    Ready,
    Refused,
    Reply,
    Request,
    Started,
    read_frame,
    write_frame,
)
from octavo.pipeline.session import BatchLost, ReaderShelf, Session

_PR_SET_PDEATHSIG = 1


def serve(next_request: Callable[[], Request | None], reply: Callable[[Reply], None]) -> None:
    """Answers requests until there are no more."""
    with ReaderShelf() as shelf:
        session: Session | None = None
        reply(Ready())
        while (request := next_request()) is not None:
            try:
                if isinstance(request, Open):
                    if session is not None:
                        session.close()
                        session = None
                    session = Session(request.path, request.config, shelf)
                    reply(Opened(len(session)))
                elif session is not None:
                    _read(session, request, reply)
            except OctavoError as error:
                reply(Refused(error))
        if session is not None:
            session.close()


def _read(session: Session, request: Read, reply: Callable[[Reply], None]) -> None:
    try:
        for page in session.read(
            request.numbers, request.folder, lambda number: reply(Started(number))
        ):
            reply(page)
    except BatchLost as lost:
        reply(Raised(lost.failure))
    else:
        reply(BatchDone())


def main() -> None:
    # Ctrl-C reaches the whole process group; the parent decides what becomes of the page.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # ONNX Runtime's wheels report their use to the maker from its import on; reading a document
    # is nobody's business.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    if TIED in sys.argv:
        _die_with_parent()
    # Libraries that print must not write between the frames.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests = os.fdopen(os.dup(0), "rb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    faulthandler.enable()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)

    inbox: queue.SimpleQueue[Request] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, inbox), daemon=True).start()
    # Readers take pages from threads of their own, and each taking is announced.
    talking = threading.Lock()

    def reply(message: Reply) -> None:
        with talking:
            write_frame(replies, message)

    with suppress(BrokenPipeError):
        serve(inbox.get, reply)


def _listen(requests: IO[bytes], inbox: queue.SimpleQueue[Request]) -> None:
    """Hands requests on, and ends the process when the parent is gone, in the middle of a page
    too: nobody is left to take the result."""
    while (message := read_frame(requests)) is not None:
        if isinstance(message, Open | Read):
            inbox.put(message)
    os._exit(0)


def _die_with_parent() -> None:
    """Asks Linux to kill this process with its parent, for when native code holds the lock that
    the listening thread needs. Elsewhere the closed pipe has to do."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    main()
