"""Files read and written at an offset, past the page cache where the system allows it."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from octavo.memory.buffers import PAGE

#: Errors of a disk that has no room: the disk's, the quota's, the limit of a file's size.
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_KEEP_SIZE_AND_PUNCH_HOLE: Final = 3
_PROBE: Final = "probe"

if sys.platform == "win32":
    # No positioned reads and writes there: seek and move, one at a time.
    _seeking = threading.Lock()

    def read_at(fd: int, view: memoryview, offset: int) -> int:
        """Reads up to ``len(view)`` bytes; 0 at the end of the file."""
        with _seeking:
            os.lseek(fd, offset, os.SEEK_SET)
            got = os.read(fd, len(view))
        view[: len(got)] = got
        return len(got)

    def write_at(fd: int, view: memoryview, offset: int) -> int:
        """Writes up to ``len(view)`` bytes; how many it did."""
        with _seeking:
            os.lseek(fd, offset, os.SEEK_SET)
            return os.write(fd, view)

else:

    def read_at(fd: int, view: memoryview, offset: int) -> int:
        """Reads up to ``len(view)`` bytes; 0 at the end of the file."""
        return os.preadv(fd, [view], offset)

    def write_at(fd: int, view: memoryview, offset: int) -> int:
        """Writes up to ``len(view)`` bytes; how many it did."""
        return os.pwritev(fd, [view], offset)


def open_file(path: Path, *, direct: bool) -> int:
    """A descriptor to read and write ``path``, made if it is not there."""
    flags = os.O_RDWR | os.O_CREAT
    if sys.platform == "win32":
        return os.open(path, flags | os.O_BINARY)
    fd = os.open(path, flags | (os.O_DIRECT if direct and sys.platform == "linux" else 0), 0o600)
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(fd, fcntl.F_NOCACHE, 1)
    return fd


def why_not_direct(folder: Path) -> str | None:
    """None when files in ``folder`` take direct I/O; else the reason, in words.

    Some filesystems refuse at opening, some at the first write, so both are tried.
    """
    if sys.platform != "linux":
        return f"{sys.platform} has no O_DIRECT: values pass through the page cache"
    path = folder / _PROBE
    try:
        fd = open_file(path, direct=True)
        try:
            with mmap.mmap(-1, PAGE) as page:
                os.pwritev(fd, [page], 0)
                os.preadv(fd, [page], 0)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        return "this filesystem takes no direct I/O: values pass through the page cache"
    finally:
        path.unlink(missing_ok=True)
    return None


def forget_cached(fd: int, offset: int, nbytes: int) -> None:
    """Asks the system to keep these bytes in the page cache no longer; what it cannot, it keeps."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, offset, nbytes, os.POSIX_FADV_DONTNEED)


def _fallocate() -> Callable[[int, int, int, int], int] | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    for name in ("fallocate64", "fallocate"):
        if hasattr(libc, name):
            found = getattr(libc, name)
            found.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
            found.restype = ctypes.c_int
            return found  # type: ignore[no-any-return]
    return None


_FALLOCATE: Final = _fallocate()


def punch_hole(fd: int, offset: int, nbytes: int) -> bool:
    """Gives the blocks of a range back to the disk; False where that is not possible.

    On ext4 this takes 0.2 ms a MiB and waits for what moves in the same file.
    """
    return _FALLOCATE is not None and _FALLOCATE(fd, _KEEP_SIZE_AND_PUNCH_HOLE, offset, nbytes) == 0


def can_punch(folder: Path) -> bool:
    """Whether files in ``folder`` can give back blocks before their end."""
    path = folder / _PROBE
    fd = open_file(path, direct=False)
    try:
        os.write(fd, bytes(2 * PAGE))
        return punch_hole(fd, 0, PAGE)
    finally:
        os.close(fd)
        path.unlink(missing_ok=True)
