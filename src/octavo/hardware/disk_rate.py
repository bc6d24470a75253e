"""How fast files are read from a disk, past the page cache: written first, then read back."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from octavo.errors import SourceNotFound

_MIB: Final = 1 << 20
#: What the readers of weights ask for at a time, and how many of them at once.
_BLOCK: Final = 4 * _MIB
_READERS: Final = 4
#: Bytes of the file: less tells nothing, more takes long.
_LEAST: Final = 16 * _MIB
_MOST: Final = 1 << 30
#: A twentieth of what is free: the disk is there for others too.
_SHARE: Final = 20
_PASSES: Final = 3
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class DiskRate:
    """What was measured of a disk.

    Attributes:
        read_bytes_per_s: None where it could not be measured; ``note`` says why.
        direct: whether the page cache was passed by.
        nbytes: of the file that was read.
        note: what to know about the figure.
    """

    read_bytes_per_s: float | None
    direct: bool = False
    nbytes: int = 0
    note: str | None = None


def disk_rate(folder: Path, *, seconds: float = 3.0, most: int = _MOST) -> DiskRate:
    """Writes a file of random bytes, reads it with several readers at once, removes it.

    Args:
        folder: on the disk.
        seconds: about how long writing, and then reading, may take.
        most: bytes of the file.

    Raises:
        SourceNotFound: there is no such folder.
    """
    if not folder.is_dir():
        raise SourceNotFound("there is no such folder", where=str(folder))
    total = min(most, shutil.disk_usage(folder).free // _SHARE) // _BLOCK * _BLOCK
    if total < _LEAST:
        return DiskRate(None, note=f"under {_LEAST * _SHARE // 10**6} MB free: not measured")
    try:
        with _scratch(folder) as path:
            return _measured(path, total, seconds)
    except OSError as error:
        full = error.errno in NO_ROOM
        reason = "the disk is full" if full else str(error.strerror or error)
        return DiskRate(None, note=f"not measured: {reason}")


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    number, name = tempfile.mkstemp(prefix=".octavo-", suffix=".measure", dir=folder)
    os.close(number)
    path = Path(name)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _measured(path: Path, total: int, seconds: float) -> DiskRate:
    written = _write(path, total, seconds)
    if not hasattr(os, "preadv"):
        return DiskRate(None, note=f"{sys.platform} cannot read past its page cache: not measured")
    fd, note = _open_direct(path)
    try:
        rates: list[float] = []
        end = time.perf_counter() + seconds
        while len(rates) < _PASSES and (not rates or time.perf_counter() < end):
            if note is not None:
                _forget(fd)
            rates.append(_pass(fd, written, end))
    finally:
        os.close(fd)
    return DiskRate(sorted(rates)[len(rates) // 2], note is None, written, note)


def _write(path: Path, total: int, seconds: float) -> int:
    """Bytes written and on the disk: random, for disks that compress would else be measured at
    that."""
    end = time.perf_counter() + seconds
    block = os.urandom(_BLOCK)
    written = 0
    with path.open("wb", buffering=0) as file:
        while written < total and (written < _LEAST or time.perf_counter() < end):
            done = file.write(block)
            if done != _BLOCK:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written += done
            if written % (16 * _BLOCK) == 0:
                os.fsync(file.fileno())  # else the clock sees only the page cache
        os.fsync(file.fileno())
    return written


def _open_direct(path: Path) -> tuple[int, str | None]:
    """A descriptor, and None when it reads past the page cache; else why not."""
    cached = "this file system takes no direct reads; its pages were dropped from the cache"
    if sys.platform == "darwin":
        import fcntl

        fd = os.open(path, os.O_RDONLY)
        fcntl.fcntl(fd, fcntl.F_NOCACHE, 1)
        return fd, None
    direct = getattr(os, "O_DIRECT", 0)
    try:
        fd = os.open(path, os.O_RDONLY | direct)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        return os.open(path, os.O_RDONLY), cached
    try:
        with mmap.mmap(-1, _BLOCK) as page:
            os.preadv(fd, [page], 0)
    except OSError as error:
        os.close(fd)
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        return os.open(path, os.O_RDONLY), cached
    return fd, None if direct else cached


def _forget(fd: int) -> None:
    if sys.platform == "linux":
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def _pass(fd: int, total: int, end: float) -> float:
    """Bytes per second of one reading of the file, or of as much as the time allows."""
    ready = threading.Barrier(_READERS + 1)

    def read(number: int) -> int:
        into = buffers[number]
        ready.wait()
        done = 0
        for offset in range(number * _BLOCK, total, _READERS * _BLOCK):
            if done and time.perf_counter() > end:
                break
            done += os.preadv(fd, [into], offset)
        return done

    with ExitStack() as stack, ThreadPoolExecutor(_READERS) as pool:
        buffers = [stack.enter_context(mmap.mmap(-1, _BLOCK)) for _ in range(_READERS)]
        for into in buffers:
            # Touched before the clock runs: a first touch costs as much as a fast disk.
            into.write(bytes(_BLOCK))
        readers = [pool.submit(read, number) for number in range(_READERS)]
        ready.wait()
        start = time.perf_counter()
        moved = sum(reader.result() for reader in readers)
        return moved / (time.perf_counter() - start)
