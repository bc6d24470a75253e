"""How many reads and writes the disk has to do at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

MOST: Final = 32


class Flight:
    """Lets ``most`` in at a time, and remembers how many there were."""

    def __init__(self, most: int = MOST) -> None:
        self._places = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._now = 0
        self.peak = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        with self._places:
            with self._lock:
                self._now += 1
                self.peak = max(self.peak, self._now)
            try:
                yield
            finally:
                with self._lock:
                    self._now -= 1
