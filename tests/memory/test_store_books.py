"""Every byte of a store has exactly one reservation, taken before it is there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from octavo.errors import BudgetExceeded, CodecError, ConfigError
from octavo.memory import mover
from octavo.memory.disk import DiskTier
from octavo.memory.entry import Terms
from octavo.memory.ledger import PLACES, Ledger
from octavo.memory.mover import without_frames
from octavo.memory.policies import PinnedSet
from octavo.memory.store import TieredStore
from octavo.memory.store_settings import StoreSettings
from tests.memory.stores import KIB, PACKED, RAW, at_rest, ledger_of, make_store, same, value


def test_a_key_that_cannot_be_one_leaks_nothing(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        with pytest.raises(TypeError, match="unhashable"):
            store[["a", "list"]] = value(1)  # type: ignore[index]
        assert ledger_of(store).used("device") == 0
        at_rest(store)


def test_a_policy_that_fails_leaks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with make_store(tmp_path) as store:
        store["it"] = value(1)
        store.relieve("device", 1)
        store.relieve("host", 1)

        def broken(*_: object) -> bool:
            raise ValueError("injected")

        with monkeypatch.context() as failing:
            failing.setattr(store._shelves.policies["device"], "admits", broken)
            with pytest.raises(ValueError, match="injected"):
                _ = store["it"]
        assert ledger_of(store).used("device") == 0
        assert same(store["it"], value(1))
        at_rest(store)


@pytest.mark.parametrize("worst", [-1.0, float("nan")])
def test_an_error_bound_that_is_none_is_refused_at_once(worst: float) -> None:
    """Met on the way down, it would be in the way of all others."""
    with pytest.raises(ConfigError, match="max_error"):
        Terms(max_error=worst)


def test_one_tensor_under_two_keys_can_leave_the_device(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        tensor = value(1)
        store["a"] = tensor
        store["b"] = tensor
        store["c"] = store["a"]
        del tensor
        assert ledger_of(store).used("device") == 48 * KIB
        assert store.relieve("device", 1 << 20) == 48 * KIB
        assert all(same(store[key], value(1)) for key in "abc")
        at_rest(store)


def test_a_value_that_is_put_back_is_counted_once(tmp_path: Path) -> None:
    with make_store(tmp_path, device=40 * KIB, host=0) as store:
        store["it"] = value(1)
        for turn in range(5):
            tensor = store["it"]
            tensor.add_(1)
            store["it"] = tensor
            del tensor
            store._shelves.reap()
            assert ledger_of(store).used("device") == 16 * KIB, turn
        assert same(store["it"], value(1) + 5)
        assert store.relieve("device", 1) == 16 * KIB
        at_rest(store)


def test_a_lent_tensor_that_is_put_is_counted_once(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        tensor = store.borrow((16 * KIB,), torch.uint8, owner="test")
        tensor.copy_(value(1))
        store["it"] = tensor
        assert ledger_of(store).used("device") == 16 * KIB
        assert store.stats().lent_bytes == 0
        store["other"] = tensor  # it is the store's by now
        del tensor
        assert ledger_of(store).used("device") == 32 * KIB
        assert store.relieve("device", 1 << 20) == 32 * KIB
        assert same(store["it"], value(1))
        assert same(store["other"], value(1))
        at_rest(store)


def test_a_host_copy_that_was_read_and_put_is_not_shared(tmp_path: Path) -> None:
    """Without room on the device a reader gets the host copy's own memory."""
    with make_store(tmp_path, device=16 * KIB, host=256 * KIB) as store:
        store["low"] = value(1)
        store.relieve("device", 1)
        with ledger_of(store).reserve("device", "kv", 16 * KIB, "pool"):
            alias = store["low"]
        store["copy"] = alias
        alias.zero_()
        del alias
        assert same(store["copy"], value(1))
        at_rest(store)


def test_what_callers_hold_does_not_pile_up_in_the_books(tmp_path: Path) -> None:
    with make_store(tmp_path, device=1 << 30) as store:
        for _ in range(5000):
            store["it"] = torch.zeros(4)
            held = store["it"]
            del store["it"]
            del held
        assert len(store._shelves._lent) < 500


def test_tensors_held_beyond_the_close_are_given_back_when_they_go(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    ledger = ledger_of(store)
    store["it"] = value(1, 64 * KIB)
    held = store["it"]
    store.close()
    with pytest.raises(BudgetExceeded):
        ledger.reserve("device", "kv", 64 * KIB, "pool")
    del held
    with ledger.reserve("device", "kv", 64 * KIB, "pool"):
        pass
    assert ledger._reclaimers("device") == []


def test_encoded_bytes_from_the_disk_are_reserved_before_they_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_store(tmp_path, host=8 << 20, settings=PACKED) as store:
        store["it"] = torch.zeros(16 * KIB, dtype=torch.uint8)
        store.relieve("device", 1)
        store.relieve("host", 1)
        extent = store._shelves.entries["it"].extent
        assert extent is not None
        before = ledger_of(store).used("host")
        seen: list[int] = []
        make = mover.host_buffer

        def watched(nbytes: int, *, pinned: bool = False) -> torch.Tensor:
            if nbytes == extent.nbytes:
                seen.append(ledger_of(store).used("host") - before)
            return make(nbytes, pinned=pinned)

        monkeypatch.setattr(mover, "host_buffer", watched)
        assert same(store["it"], torch.zeros(16 * KIB, dtype=torch.uint8))
        assert seen == [extent.nbytes]


def test_conjugate_and_negative_views_take_only_reserved_memory(
    tmp_path: Path,
) -> None:
    with make_store(tmp_path) as store:
        numbers = torch.randn(100, dtype=torch.complex64)
        for key, tensor in (("conj", numbers.conj()), ("neg", numbers.conj().imag)):
            store[key] = tensor
            expected = tensor.resolve_conj().resolve_neg().contiguous()
            assert same(store[key], expected)
            store.relieve("device", 1 << 20)
            store.relieve("host", 1 << 20)
            assert same(store[key], expected)
        with torch.inference_mode():
            store["inference"] = torch.ones(10)
        store.relieve("device", 1 << 20)
        assert same(store["inference"], torch.ones(10))


def test_keys_that_are_equal_are_one_and_a_nan_is_itself(tmp_path: Path) -> None:
    nan = float("nan")
    with make_store(tmp_path) as store:
        store[1], store[nan] = value(1), value(2)
        store[True] = value(3)
        store[1.0] = value(4)
        assert len(store) == 2
        for place in ("device", "host"):
            store.relieve(place, 1 << 20)
        assert same(store[True], value(4))
        assert same(store[nan], value(2))
        assert store.get(float("nan")) is None
        del store[1]
        del store[nan]
        assert len(store) == 0
        at_rest(store)


def test_emptying_reads_nothing(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        for seed in range(20):
            store[seed] = value(seed)
        before = store.stats().hits
        store.clear()
        assert len(store) == 0
        assert store.stats().hits == before
        at_rest(store)
        assert ledger_of(store).used("device") == 0
        assert ledger_of(store).used("disk") == 0


def test_of_two_kept_values_of_one_key_the_later_counts_and_the_other_is_freed(
    tmp_path: Path,
) -> None:
    """As after a kill between the commit of a value and the end of the one before."""
    ledger = Ledger({"device": 64 * KIB, "host": 64 * KIB, "disk": 1 << 20})
    header = {
        "codec": "raw",
        "dtype": "uint8",
        "shape": [16 * KIB],
        "error": 0.0,
        "meta": {},
        "terms": {},
    }
    with DiskTier(tmp_path, ledger, keep=True) as disk:
        for seed in range(2):
            extent = disk.write(value(seed), kind="features", owner="test")
            disk.commit("it", header, extent)
        broken = disk.write(value(2), kind="features", owner="test")
        disk.commit("strange", {"codec": "raw"}, broken)
        odd = disk.write(value(2), kind="features", owner="test")
        disk.commit("odd", {**header, "terms": {"colour": "red"}}, odd)
    with make_store(tmp_path, keep=True) as store:
        assert list(store) == ["it"]
        assert same(store["it"], value(1))
        assert ledger_of(store).used("disk") == 16 * KIB
        assert store.stats().lost == 2
        at_rest(store)
    assert all(ledger.used(place) == 0 for place in PLACES)


def test_errors_that_are_kept_hold_no_frames() -> None:
    def failing(depth: int) -> None:
        try:
            if depth:
                failing(depth - 1)
            raise ValueError("inner")
        except (ValueError, CodecError) as error:
            raise CodecError(f"depth {depth}") from error

    with pytest.raises(CodecError) as caught:
        failing(3)
    bare = without_frames(caught.value)
    seen: BaseException | None = bare
    count = 0
    while seen is not None:
        assert seen.__traceback__ is None
        seen, count = seen.__cause__, count + 1
    assert count == 5


def test_a_failed_start_leaves_no_reclaimer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger({"device": 64 * KIB})

    def broken(_: TieredStore) -> None:
        raise OSError("injected")

    monkeypatch.setattr(TieredStore, "_recover", broken)
    with pytest.raises(OSError, match="injected"):
        TieredStore(ledger, settings=RAW)
    assert ledger._reclaimers("device") == []


def test_the_bytes_of_a_lossy_value_outlive_its_copies_above_and_below(tmp_path: Path) -> None:
    """While its tensor is up, a lossy payload is still the value: encoded anew it would drift."""
    with make_store(tmp_path, device=1 << 20, host=16 << 20, settings=PACKED) as store:
        tensor = torch.randn(200, 256, generator=torch.Generator().manual_seed(3))
        store.put("it", tensor.clone(), Terms(max_error=0.05))
        store.relieve("device", 1 << 20)
        store["it"]
        assert store.places("it") == ("device", "host")
        store.relieve("host", 1)
        assert store.places("it") == ("device", "disk")
        assert store.relieve("disk", 1) == 0
        assert store.places("it") == ("device", "disk")
        store["it"].add_(1)
        store.relieve("device", 1 << 20)
        store.relieve("host", 1 << 20)
        assert (store["it"] - tensor - 1).abs().max() <= 0.1
        at_rest(store)


def test_a_clean_exact_host_copy_goes_without_a_write(tmp_path: Path) -> None:
    with make_store(tmp_path, device=1 << 20, host=16 << 20, settings=PACKED) as store:
        store["it"] = torch.zeros(50_000)
        store.relieve("device", 1 << 20)
        store["it"]
        assert store.places("it") == ("device", "host")
        store.relieve("host", 1)
        assert store.places("it") == ("device",)


@pytest.mark.parametrize("host", [0, 1 << 20], ids=["from disk", "from host"])
def test_a_value_that_is_not_admitted_is_counted_while_it_is_held(
    tmp_path: Path, host: int
) -> None:
    settings = StoreSettings(device_policy=PinnedSet, encoding=RAW.encoding)
    with make_store(tmp_path, device=40 * KIB, host=host, settings=settings) as store:
        for seed in range(3):
            store[seed] = value(seed)
        for _ in range(3):
            for seed in range(3):
                held = store[seed]
                at_rest(store)
                store._shelves.reap()
                lent = 0 if host or "device" in store.places(seed) else held.nbytes
                assert store.stats().lent_bytes == lent
                del held


def test_a_key_that_a_kept_disk_cannot_write_takes_no_room_there(tmp_path: Path) -> None:
    store = make_store(tmp_path, keep=True)
    store[frozenset()] = value(1)
    with pytest.raises(CodecError):
        store.flush()
    assert ledger_of(store).used("disk") == 0
    assert same(store[frozenset()], value(1))
    del store[frozenset()]
    store.close()
