"""Closing a store beside work, each interleaving made certain by events."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from octavo.errors import ReleasedError
from octavo.memory.ledger import PLACES
from octavo.memory.prediction import Schedule
from octavo.memory.store import TieredStore
from tests.memory.gates import LONG, MIB, Doing, Gate, empty_ledger, sent_to_disk
from tests.memory.stores import KIB, PACKED, RAW, ledger_of, make_store, same, value


def test_closing_waits_for_a_read_and_leaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path)
    sent_to_disk(store, "it")
    gate = Gate(monkeypatch, store, "read")
    reader = Doing(lambda: same(store["it"], value(0)))
    assert gate.reached.wait(LONG)
    closer = Doing(store.close)
    while not store._closed:
        pass
    gate.go_on.set()
    outcome = reader.outcome()
    assert outcome is True or isinstance(outcome, ReleasedError)
    assert closer.outcome() is None
    assert empty_ledger(store)
    assert list(tmp_path.iterdir()) == []


def test_closing_waits_for_a_put_and_leaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path, device=32 * KIB, host=0)
    store[0], store[1] = value(0), value(1)
    gate = Gate(monkeypatch, store, "write")
    putter = Doing(lambda: store.put("new", value(9)))
    assert gate.reached.wait(LONG)
    closer = Doing(store.close)
    while not store._closed:
        pass
    gate.go_on.set()
    assert isinstance(putter.outcome(), ReleasedError | None)
    assert closer.outcome() is None
    assert empty_ledger(store)
    assert list(tmp_path.iterdir()) == []


def test_a_put_that_comes_after_the_close_needs_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It passed the check just before: its victims are large enough for the closed threads."""
    store = make_store(tmp_path, device=MIB, host=0)
    for seed in range(4):
        store[seed] = value(seed, 256 * KIB)
    checked, closed = threading.Event(), threading.Event()
    check = store._check_open

    def slow_check() -> None:
        check()
        checked.set()
        assert closed.wait(LONG)

    monkeypatch.setattr(store, "_check_open", slow_check)
    putter = Doing(lambda: store.put("new", value(9, 256 * KIB)))
    assert checked.wait(LONG)
    store._rooms.close()
    closed.set()
    assert putter.outcome() is None
    store.close()
    assert empty_ledger(store)


def test_a_put_that_ends_after_the_close_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path)
    adopted, closed = threading.Event(), threading.Event()
    adopt = store._mover.adopt

    def slow(*args: object) -> None:
        adopt(*args)  # type: ignore[arg-type]
        adopted.set()
        assert closed.wait(LONG)

    monkeypatch.setattr(store._mover, "adopt", slow)
    putter = Doing(lambda: store.put("new", value(9)))
    assert adopted.wait(LONG)
    store.close()
    closed.set()
    assert isinstance(putter.outcome(), ReleasedError)
    assert empty_ledger(store)
    assert len(store) == 0


def test_a_closed_store_says_so_to_every_reader(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store["it"] = value(1)
    store.close()
    with pytest.raises(ReleasedError):
        _ = store["it"]
    with pytest.raises(ReleasedError), store.pinned("it"):
        pass
    assert store.relieve("device", 1) == 0
    store.prefetch(["it"])


def test_a_hit_while_the_store_closes_may_look_ahead(tmp_path: Path) -> None:
    """The threads that fetch ahead end first; a hit in between must not trip over them."""
    store = make_store(tmp_path, host=0)
    sent_to_disk(store, 1, 2)
    store[0] = value(7)
    store.follow(Schedule([0, 1, 2], cyclic=True))
    flushing, go_on = threading.Event(), threading.Event()
    shutdown = store._fetchers.shutdown

    def slow(**names: bool) -> None:
        shutdown(**names)
        flushing.set()
        assert go_on.wait(LONG)

    store._fetchers.shutdown = slow  # type: ignore[method-assign,assignment]
    closer = Doing(store.close)
    assert flushing.wait(LONG)
    assert same(store[0], value(7))
    go_on.set()
    assert closer.outcome() is None


def test_threads_that_work_on_while_the_store_closes(tmp_path: Path) -> None:
    """Every operation ends with a good value or says that the store is closed."""
    for turn in range(12):
        store = make_store(
            tmp_path / str(turn), device=MIB, host=MIB, settings=PACKED if turn % 2 else RAW
        )
        for seed in range(24):
            store[seed] = value(seed, 120 * KIB)
        started = threading.Barrier(5)

        def work(start: int, store: TieredStore = store, started=started) -> str:  # type: ignore[no-untyped-def]
            started.wait(LONG)
            for step in range(10_000):
                seed = (start + step) % 24
                try:
                    if step % 3:
                        assert same(store[seed], value(seed, 120 * KIB))
                    else:
                        store[seed] = value(seed, 120 * KIB)
                except ReleasedError:
                    return "closed"
            return "never closed"

        workers = [Doing(lambda start=start: work(start)) for start in range(4)]
        started.wait(LONG)
        store.close()
        assert [worker.outcome() for worker in workers] == ["closed"] * 4
        assert empty_ledger(store), [ledger_of(store).holdings(place) for place in PLACES]
        assert list((tmp_path / str(turn)).iterdir()) == []
