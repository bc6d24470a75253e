"""A file opened for reading at offsets, past the page cache where the system allows it."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Final

from octavo.errors import BrokenFile, InputError, SourceNotFound
from octavo.memory.buffers import PAGE
from octavo.memory.disk.access import forget_cached, read_at

#: What a file system answers that takes no direct I/O, some at opening, some at the first read.
_NOT_DIRECT: Final = frozenset({errno.EINVAL, errno.EOPNOTSUPP})
DOWNLOAD_AGAIN: Final = "download the file again"


class OpenedFile:
    """One descriptor. Safe to read from many threads.

    Args:
        path: a regular file.
        direct: whether to try direct I/O; where it is refused, reads pass through the page cache
            and their pages are given up afterwards.

    Attributes:
        direct: whether reads now must be of whole pages, from whole pages, into whole pages.

    Raises:
        SourceNotFound: there is no such file.
        InputError: it cannot be opened.
    """

    def __init__(self, path: Path, *, direct: bool) -> None:
        self.path = path
        self._fd, self.direct = _open(path, direct=direct and sys.platform == "linux")

    def read(self, view: memoryview, offset: int, needed: int) -> None:
        """Fills at least the first ``needed`` bytes of ``view`` from ``offset``.

        Args:
            view: with direct I/O whole pages in memory that starts on a page.
            needed: less than ``len(view)`` only where the file may end before the view does.

        Raises:
            BrokenFile: the file ends before.
            InputError: the disk refused.
        """
        done = 0
        while done < needed:
            got = self._read_once(view[done:], offset + done)
            # Direct I/O goes on from a page: a short read may end within one.
            onward = done + got if not self.direct else (done + got) // PAGE * PAGE
            if done + got < needed and (got == 0 or onward == done):
                raise BrokenFile(
                    f"the file ends at byte {offset + done + got}, {needed - done - got} bytes "
                    "before its tensors do",
                    where=str(self.path),
                    next_step=DOWNLOAD_AGAIN,
                )
            done = done + got if done + got >= needed else onward
        if not self.direct:
            forget_cached(self._fd, offset, needed)

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def close(self) -> None:
        os.close(self._fd)

    def _read_once(self, view: memoryview, offset: int) -> int:
        try:
            return read_at(self._fd, view, offset)
        except OSError as error:
            if not self.direct or error.errno not in _NOT_DIRECT or not self._go_cached():
                raise unreadable(self.path, error, offset) from error
        return self._read_once(view, offset)

    def _go_cached(self) -> bool:
        """Has reads pass through the page cache from now on; False where that is not possible."""
        if sys.platform != "linux":
            return False
        import fcntl

        # The flag is the descriptor's own, so that other threads' reads just go on without it.
        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        fcntl.fcntl(self._fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        self.direct = False
        return True


def _open(path: Path, *, direct: bool) -> tuple[int, bool]:
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    try:
        if direct:
            try:
                return os.open(path, flags | os.O_DIRECT), True
            except OSError as error:
                if error.errno not in _NOT_DIRECT:
                    raise
        return os.open(path, flags), False
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError, offset: int | None = None) -> InputError:
    """The error for a file that the system does not give."""
    if isinstance(error, FileNotFoundError):
        return SourceNotFound("no such file", where=str(path), next_step=DOWNLOAD_AGAIN)
    place = "" if offset is None else f" at byte {offset}"
    return InputError(
        f"cannot be read{place}: {error.strerror or error}",
        where=str(path),
        next_step="check the file's permissions and its disk",
    )
