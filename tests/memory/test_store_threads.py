"""Many threads on one store."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from octavo.memory.ledger import PLACES
from tests.memory.stores import KIB, at_rest, ledger_of, make_store, same, value
from tests.memory.stress import run, stressed_store


def test_eight_threads_agree_with_plain_dicts(tmp_path: Path) -> None:
    store = stressed_store(tmp_path)
    run(store, threads=8, more=lambda steps: steps < 150)
    store._fetchers.shutdown(wait=True)
    at_rest(store)
    store.close()
    assert all(ledger_of(store).used(place) == 0 for place in PLACES)
    assert list(tmp_path.iterdir()) == []


def test_no_global_lock_is_held_while_bytes_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one value's read hangs in the disk, every other operation goes on."""
    with make_store(tmp_path, device=256 * KIB, host=0) as store:
        store["slow"], store["fast"] = value(1), value(2)
        store.relieve("device", 1 << 20)
        assert store.places("fast") == ("disk",)
        disk = store._shelves.disk
        assert disk is not None
        reading, go_on = threading.Event(), threading.Event()
        read = disk.read
        slow = store._shelves.entries["slow"].extent

        def hanging(extent, out):  # type: ignore[no-untyped-def]
            if extent is slow:
                reading.set()
                assert go_on.wait(30)
            read(extent, out)

        monkeypatch.setattr(disk, "read", hanging)
        got: list[object] = []
        thread = threading.Thread(target=lambda: got.append(store["slow"]))
        thread.start()
        assert reading.wait(30)
        assert same(store["fast"], value(2))
        store["new"] = value(3)
        assert same(store["new"], value(3))
        del store["new"]
        assert store.stats().values == 2
        store.relieve("device", 1 << 20)
        assert not got
        go_on.set()
        thread.join(30)
        assert same(got[0], value(1))  # type: ignore[arg-type]


def test_readers_of_one_value_below_read_it_once(tmp_path: Path) -> None:
    with make_store(tmp_path, device=256 * KIB, host=0) as store:
        store["it"] = value(1)
        store.relieve("device", 1 << 20)
        barrier = threading.Barrier(6)
        good: list[bool] = []

        def get() -> None:
            barrier.wait()
            good.append(same(store["it"], value(1)))

        threads = [threading.Thread(target=get) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert good == [True] * 6
        assert store.stats().hits["disk"] == 1
