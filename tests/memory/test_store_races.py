"""Interleavings of threads, each made certain by events, and what must come out of them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from octavo.errors import BudgetExceeded, OctavoError
from octavo.memory.entry import Terms
from octavo.memory.prediction import Schedule
from octavo.memory.store import TieredStore
from octavo.memory.store_settings import StoreSettings
from tests.memory.gates import LONG, MIB, Doing, Gate, sent_to_disk
from tests.memory.stores import KIB, PACKED, RAW, at_rest, ledger_of, make_store, same, value

# One key, two threads.


def test_a_delete_during_a_read_gives_the_value_and_frees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_store(tmp_path) as store:
        sent_to_disk(store, "it")
        gate = Gate(monkeypatch, store, "read")
        reader = Doing(lambda: same(store["it"], value(0)))
        assert gate.reached.wait(LONG)
        deleter = Doing(lambda: store.discard("it"))
        while "it" in store:
            pass
        gate.go_on.set()
        assert reader.outcome() is True
        assert deleter.outcome() is True
        at_rest(store)
        assert ledger_of(store).used("device") == 0
        assert ledger_of(store).used("disk") == 0


def test_an_overwrite_during_a_prefetch_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_store(tmp_path) as store:
        sent_to_disk(store, "it")
        gate = Gate(monkeypatch, store, "read")
        store.prefetch(["it"])
        assert gate.reached.wait(LONG)
        putter = Doing(lambda: store.put("it", value(5)))
        while "device" not in store.places("it"):
            pass
        assert same(store["it"], value(5))
        gate.go_on.set()
        assert putter.outcome() is None
        store._fetchers.shutdown(wait=True)
        assert same(store["it"], value(5))
        at_rest(store)
        assert ledger_of(store).used("device") == 16 * KIB


def test_pinning_a_value_on_its_way_down_brings_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_store(tmp_path, host=0) as store:
        store["it"] = value(1)
        gate = Gate(monkeypatch, store, "write")
        relief = Doing(lambda: store.relieve("device", 1))
        assert gate.reached.wait(LONG)

        def pin() -> bool:
            with store.pinned("it") as tensor:
                assert store.relieve("device", 1) == 0
                return same(tensor, value(1)) and "device" in store.places("it")

        pinner = Doing(pin)
        gate.go_on.set()
        assert relief.outcome() == 16 * KIB
        assert pinner.outcome() is True
        at_rest(store)


def test_a_value_overwritten_on_its_way_down_does_not_come_back_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older value is written last; killed right then, the newer one must be found."""
    with make_store(tmp_path, device=16 * KIB, host=0, keep=True) as store:
        disk = store._shelves.disk
        assert disk is not None
        committed: list[int] = []
        commit = disk.commit

        def noted(key, header, extent):  # type: ignore[no-untyped-def]
            commit(key, header, extent)
            committed.append(extent.nbytes)

        monkeypatch.setattr(disk, "commit", noted)
        store["it"] = value(1, 8 * KIB)
        gate = Gate(monkeypatch, store, "write")
        relief = Doing(lambda: store.relieve("device", 1))
        assert gate.reached.wait(LONG)
        putter = Doing(lambda: store.put("it", value(2, 8 * KIB)[::2]))
        while store._shelves.entries["it"].nbytes != 4 * KIB:
            pass
        store.relieve("device", 4 * KIB)
        gate.go_on.set()
        relief.outcome()
        assert putter.outcome() is None
        assert committed == [4 * KIB]


def test_readers_that_end_following_at_any_moment(tmp_path: Path) -> None:
    """Another thread may end the following between a reader's look at it and its use."""

    class Fickle(TieredStore):
        looks = 0

        @property
        def _foresight(self):  # type: ignore[no-untyped-def]
            self.looks += 1
            return self.__dict__["foresight"] if self.looks % 2 else None

        @_foresight.setter
        def _foresight(self, foresight: object) -> None:
            self.__dict__["foresight"] = foresight

    from octavo.memory.ledger import Ledger

    with Fickle(Ledger({"device": 64 * KIB}), settings=RAW) as store:
        store["it"] = value(1)
        store.follow(Schedule(["it"], cyclic=True))
        for _ in range(4):
            assert same(store["it"], value(1))


# Room.


def test_an_empty_tensor_fits_an_overdrawn_budget_or_is_refused() -> None:
    with make_store(None, host=0) as store:
        store["it"] = value(1)
        held = store["it"]
        ledger_of(store).set_budget("device", 8 * KIB)
        putter = Doing(lambda: store.put("none", torch.empty(0)))
        assert isinstance(putter.outcome(), BudgetExceeded)
        assert same(held, value(1))


def test_threads_that_all_find_no_room_all_give_up(tmp_path: Path) -> None:
    with make_store(None, host=0) as store:
        held = []
        for seed in range(4):
            store[seed] = value(seed)
            held.append(store[seed])
        together = threading.Barrier(8)

        def put(index: int) -> object:
            together.wait(LONG)
            store["more", index] = value(index)

        putters = [Doing(lambda index=index: put(index)) for index in range(8)]
        assert all(isinstance(putter.outcome(), BudgetExceeded) for putter in putters)
        assert len(held) == 4


def test_a_demotion_waits_for_no_thread_of_its_own_place(tmp_path: Path) -> None:
    """A lossy value that was changed in place is encoded anew in a host thread, the only one."""
    settings = StoreSettings(encoding=PACKED.encoding, movers=1)
    with make_store(tmp_path, device=16 * MIB, host=1200 * KIB, settings=settings) as store:
        store.put("it", torch.randn(200, 256), Terms(max_error=0.5))
        store.relieve("device", 1 << 30)
        assert store.places("it") == ("host",)
        store["it"].add_(1)
        assert store.places("it") == ("device", "host")
        changed = store["it"].clone()
        store._shelves.entries["it"].pins += 1  # stays up while others go down
        seed = 0
        while ledger_of(store).free("host") > 130 * KIB:
            store["other", seed] = value(seed, 100 * KIB)
            seed += 1
            store._rooms.relieve("device", 100 * KIB)
        store._shelves.entries["it"].pins -= 1
        victims = [entry.key for entry in _victims(store, "host")]
        assert victims[0] == "it", victims
        relief = Doing(lambda: store.relieve("host", 1))
        assert isinstance(relief.outcome(), int)
        assert "disk" not in store.places("it")  # older bytes are not worth writing
        assert (store["it"] - changed).abs().max() <= 0.5
        for other in range(seed):
            assert same(store["other", other], value(other, 100 * KIB))
        at_rest(store)


def _victims(store: TieredStore, place: str):  # type: ignore[no-untyped-def]
    with store._shelves.lock:
        return list(store._shelves.victims(place))  # type: ignore[arg-type]


def test_an_interrupted_wait_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while a victim is written: the write goes on, and nothing leaks."""
    from concurrent.futures import Future

    with make_store(tmp_path, device=256 * KIB, host=0) as store:
        for seed in range(2):
            store[seed] = value(seed, 128 * KIB)
        gate = Gate(monkeypatch, store, "write")

        def interrupted(self: object, timeout: float | None = None) -> object:
            assert gate.reached.wait(LONG)
            raise KeyboardInterrupt

        with monkeypatch.context() as pressed:
            pressed.setattr(Future, "result", interrupted)
            with pytest.raises(KeyboardInterrupt):
                store["new"] = value(9, 128 * KIB)
        gate.go_on.set()
        assert "new" not in store
        for seed in range(2):
            assert same(store[seed], value(seed, 128 * KIB))
        store["new"] = value(9, 128 * KIB)
        assert same(store["new"], value(9, 128 * KIB))
        at_rest(store)


@pytest.mark.parametrize("kind", [RuntimeError, MemoryError, OSError])
def test_any_error_in_a_mover_reaches_the_caller_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    with make_store(tmp_path, device=512 * KIB, host=0) as store:
        for seed in range(4):
            store[seed] = value(seed, 128 * KIB)
        disk = store._shelves.disk
        assert disk is not None

        def broken(*_: object, **__: object) -> None:
            raise kind("injected")

        with monkeypatch.context() as failing:
            failing.setattr(disk, "write", broken)
            with pytest.raises((kind, OctavoError)):
                store["new"] = value(9, 256 * KIB)
        assert "new" not in store
        for seed in range(4):
            assert same(store[seed], value(seed, 128 * KIB))
        store["new"] = value(9, 256 * KIB)
        assert same(store["new"], value(9, 256 * KIB))
        at_rest(store)


def test_a_prefetch_that_fails_in_any_way_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_store(tmp_path) as store:
        sent_to_disk(store, "it")
        disk = store._shelves.disk
        assert disk is not None

        def broken(*_: object) -> None:
            raise MemoryError("injected")

        with monkeypatch.context() as failing:
            failing.setattr(disk, "read", broken)
            store.prefetch(["it"])
            store._fetchers.shutdown(wait=True)
        assert store.stats().prefetch_failures == 1
        assert same(store["it"], value(0))


def test_taking_out_spares_what_came_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_store(tmp_path) as store:
        sent_to_disk(store, "it")
        gate = Gate(monkeypatch, store, "read")
        taken: list[torch.Tensor] = []
        forget = store._shelves.forget

        def slow_forget(*args: object) -> object:
            if not taken:
                taken.append(value(5))
                store["it"] = value(5)
            return forget(*args)  # type: ignore[arg-type]

        gate.go_on.set()
        monkeypatch.setattr(store._shelves, "forget", slow_forget)
        assert same(store.pop("it"), value(5))
        assert "it" not in store
        with pytest.raises(KeyError):
            store.pop("it")


def test_who_finds_no_victim_waits_for_the_moves_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_store(tmp_path, device=16 * KIB, host=0) as store:
        store[0] = value(0)
        gate = Gate(monkeypatch, store, "write")
        relief = Doing(lambda: store.relieve("device", 1))
        assert gate.reached.wait(LONG)
        wait = store._shelves.freed.wait

        def waited(timeout: float | None = None) -> bool:
            gate.go_on.set()
            return wait(timeout)

        monkeypatch.setattr(store._shelves.freed, "wait", waited)
        reservation = store._rooms.room("device", "kv", 16 * KIB, "test")
        assert relief.outcome() == 16 * KIB
        reservation.release()


def test_a_value_that_is_pinned_while_it_is_chosen_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_store(tmp_path, host=0) as store:
        store["it"] = value(1)
        send_down = store._rooms._send_down
        entry = store._shelves.entries["it"]

        def after_pin(*args: object) -> int:
            entry.pins += 1
            return send_down(*args)  # type: ignore[arg-type]

        monkeypatch.setattr(store._rooms, "_send_down", after_pin)
        assert store.relieve("device", 1) == 0
        assert store.places("it") == ("device",)
        entry.pins -= 1
