"""Folders that belong to one living process, and what dead ones left behind.

A folder is locked by ``flock`` on itself: the lock goes with the process, however it ends, and
leaves no file. A forked child shares the lock, so a tier is not to be used across ``fork``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from octavo.errors import TierError

KEPT: Final = "octavo-kept"
_SCRATCH: Final = re.compile(r"octavo-[0-9]+-[0-9a-f]{12}")

if sys.platform == "win32":
    import msvcrt

    def _lock(folder: Path, *, wait: bool) -> int:
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
        try:
            msvcrt.locking(handle, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        except OSError as error:
            os.close(handle)
            raise BlockingIOError(*error.args) from error
        return handle

else:
    import fcntl

    def _lock(folder: Path, *, wait: bool) -> int:
        """Raises BlockingIOError when another holds it and ``wait`` is false."""
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BaseException:
            os.close(handle)
            raise
        return handle


@dataclass(slots=True)
class OwnFolder:
    """A folder that this process alone uses until :meth:`close`."""

    path: Path
    handle: int

    def close(self, *, remove: bool) -> None:
        handle, self.handle = self.handle, -1
        if handle < 0:
            return
        if remove and sys.platform != "win32":
            # Before the lock goes, or another process would remove the folder at the same time.
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(handle)
        if remove and sys.platform == "win32":
            shutil.rmtree(self.path, ignore_errors=True)


def scratch_folder(parent: Path) -> OwnFolder:
    """A new folder in ``parent``, locked; those of dead processes there are removed first."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        remove_dead(parent)
        while True:
            path = parent / f"octavo-{os.getpid()}-{uuid.uuid4().hex[:12]}"
            path.mkdir(mode=0o700)
            # Another process may take it for a dead one's before it is locked: then once more.
            with contextlib.suppress(FileNotFoundError):
                handle = _lock(path, wait=True)
                if path.exists():
                    return OwnFolder(path, handle)
                os.close(handle)
    except OSError as error:
        raise unusable(parent, error) from error


def kept_folder(parent: Path) -> OwnFolder:
    """The folder of values that outlive the process, locked.

    Raises:
        TierError: another process has it open, or it cannot be made.
    """
    path = parent / KEPT
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_dead(parent)
        return OwnFolder(path, _lock(path, wait=False))
    except BlockingIOError as error:
        raise TierError(
            "another process keeps its values here",
            where=str(path),
            next_step="give every process a folder of its own, or wait until the other one is done",
        ) from error
    except OSError as error:
        raise unusable(parent, error) from error


def remove_dead(parent: Path) -> None:
    """Removes scratch folders whose process is gone; never one of a living process."""
    for path in parent.iterdir():
        if not _SCRATCH.fullmatch(path.name):
            continue
        try:
            handle = _lock(path, wait=False)
        except OSError:  # alive, or gone meanwhile, or not ours to open
            continue
        OwnFolder(path, handle).close(remove=True)


def unusable(folder: Path, error: OSError) -> TierError:
    return TierError(
        f"the folder of the disk tier cannot be used: {error.strerror or error}",
        where=str(folder),
        next_step="give a folder on a local disk that this user may write to",
    )
