"""Calls under way: what they did, and waiting for them at the end."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from octavo.errors import ReleasedError


class Calls:
    """Counts calls by name, with the bytes and seconds of those that worked."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._now = 0
        self._closed = False
        self.done: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.seconds: dict[str, float] = {}
        self.errors = 0

    @contextmanager
    def one(self, name: str, nbytes: int = 0) -> Iterator[None]:
        """A call of ``name`` that moves ``nbytes``.

        Raises:
            ReleasedError: closed; nothing was begun.
        """
        with self._changed:
            if self._closed:
                raise ReleasedError("the disk tier is closed", next_step="open a new one")
            self._now += 1
        start = time.perf_counter()
        try:
            yield
        except BaseException:
            self.failed()
            raise
        else:
            self._worked(name, nbytes, time.perf_counter() - start)
        finally:
            with self._changed:
                self._now -= 1
                self._changed.notify_all()

    def failed(self) -> None:
        with self._changed:
            self.errors += 1

    def close(self) -> bool:
        """Lets no call begin and waits for those under way; False when it was closed before."""
        with self._changed:
            if self._closed:
                return False
            self._closed = True
            self._changed.wait_for(lambda: not self._now)
        return True

    def _worked(self, name: str, nbytes: int, seconds: float) -> None:
        with self._changed:
            self.done[name] += 1
            self.bytes[name] += nbytes
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
