"""SHA-256 of files, computed from the bytes that are read anyway.

Each file is hashed once, in order, by the first component that reads from it; that one reads the
rest of the file too. Other components of the same file wait for the result, and if the first is
cancelled, the next takes over.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Final

from octavo.errors import BrokenFile
from octavo.models.loading.opened import DOWNLOAD_AGAIN
from octavo.models.loading.readers import Stop


class _State(Enum):
    HASHING = "hashing"
    RIGHT = "right"
    WRONG = "wrong"


class Sums:
    """What is known of the files of one folder. Safe to use from many threads.

    Args:
        folder: for messages.
        expected: file → SHA-256 in hexadecimal digits; other files are not verified.
    """

    def __init__(self, folder: Path, expected: Mapping[str, str]) -> None:
        self._folder = folder
        self._expected: Final = {file: digest.lower() for file, digest in expected.items()}
        self._states: dict[str, _State] = {}
        self._changed = threading.Condition()

    def covers(self, file: str) -> bool:
        return file in self._expected

    def claim(self, file: str) -> bool:
        """Whether the caller is to hash ``file``: nobody else does or has done it."""
        with self._changed:
            if file in self._states:
                return False
            self._states[file] = _State.HASHING
            return True

    def give_up(self, file: str) -> None:
        """The caller does not finish what it claimed."""
        with self._changed:
            if self._states.get(file) is _State.HASHING:
                del self._states[file]
            self._changed.notify_all()

    def settle(self, file: str, digest: str) -> None:
        """Compares the digest of a claimed file with the expected one."""
        with self._changed:
            right = digest == self._expected[file]
            self._states[file] = _State.RIGHT if right else _State.WRONG
            self._changed.notify_all()

    def wait(self, file: str, stop: Stop) -> bool:
        """Waits until ``file`` is found right; False when whoever hashed it gave up, or when told
        to stop.

        Raises:
            BrokenFile: its bytes are others than expected.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: stop.told or self._states.get(file) is not _State.HASHING
            )
            state = self._states.get(file)
        if state is _State.WRONG:
            raise BrokenFile(
                "its bytes are not those that were published (SHA-256 differs)",
                where=str(self._folder / file),
                next_step=DOWNLOAD_AGAIN,
            )
        return state is _State.RIGHT

    def wake(self) -> None:
        """Has those who wait look whether they are told to stop."""
        with self._changed:
            self._changed.notify_all()


class Digest:
    """The hash of one file that is fed in order, with overlaps."""

    def __init__(self) -> None:
        self._sum = hashlib.sha256()
        self._done = 0

    def feed(self, low: int, data: memoryview) -> None:
        """Takes the bytes that stand from ``low`` on in the file."""
        # Ranges are of whole pages, so that neighbours may share one.
        self._sum.update(data[self._done - low :])
        self._done = low + len(data)

    def hex(self) -> str:
        return self._sum.hexdigest()
