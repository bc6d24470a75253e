"""A load in a thread of its own."""

from __future__ import annotations

import threading

import pytest

from octavo.errors import ReleasedError
from octavo.models.background import Background, Tell


def test_it_tells_of_bytes_and_ends() -> None:
    told: list[int] = []

    def run(tell: Tell) -> None:
        for _ in range(3):
            tell(5)

    work = Background(run, "language", told.append)
    work.wait(5)
    assert work.done
    assert told == [5, 10, 15]


def test_what_stops_it_is_raised_to_everyone_who_waits() -> None:
    def run(_tell: Tell) -> None:
        raise MemoryError("none left")

    work = Background(run, "language", lambda _bytes: None)
    for _ in range(2):
        with pytest.raises(MemoryError, match="none left"):
            work.wait(5)


def test_cancelling_returns_when_nothing_more_is_written() -> None:
    begun, written = threading.Event(), []

    def run(tell: Tell) -> None:
        while True:
            begun.set()
            tell(1)
            written.append(1)

    work = Background(run, "language", lambda _bytes: None)
    assert begun.wait(5)
    work.cancel()
    before = len(written)
    with pytest.raises(ReleasedError, match="stopped"):
        work.wait(5)
    assert len(written) == before
    assert all(thread.name != "octavo-load" for thread in threading.enumerate())
