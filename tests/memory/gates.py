"""Threads and disks that wait where a test wants them to."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from octavo.memory.ledger import PLACES
from octavo.memory.store import TieredStore
from tests.memory.stores import KIB, ledger_of, value

MIB = 1024 * KIB
LONG = 30  # seconds; reached only where something hangs


class Gate:
    """Stands in for a method of a disk: the first call waits until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: TieredStore, name: str) -> None:
        disk = store._shelves.disk
        assert disk is not None
        self._real = getattr(disk, name)
        self._first = threading.Lock()
        self.reached, self.go_on = threading.Event(), threading.Event()
        monkeypatch.setattr(disk, name, self)

    def __call__(self, *args: object, **names: object) -> object:
        if self._first.acquire(blocking=False):
            self.reached.set()
            assert self.go_on.wait(LONG)
        return self._real(*args, **names)


class Doing(threading.Thread):
    """Runs ``act`` beside the test; :meth:`outcome` is what it gave back or raised."""

    def __init__(self, act: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._act = act
        self._outcome: object = None
        self.start()

    def run(self) -> None:
        try:
            self._outcome = self._act()
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            self._outcome = error.with_traceback(None)

    def outcome(self) -> object:
        self.join(LONG)
        assert not self.is_alive(), "it hangs"
        return self._outcome


def empty_ledger(store: TieredStore) -> bool:
    store._shelves.reap()
    return all(ledger_of(store).used(place) == 0 for place in PLACES)


def sent_to_disk(store: TieredStore, *keys: object) -> None:
    for seed, key in enumerate(keys):
        store[key] = value(seed)
    store.relieve("device", 1 << 30)
    store.relieve("host", 1 << 30)
    assert all(store.places(key) == ("disk",) for key in keys)
