"""The store as a mapping, tier by tier."""

from __future__ import annotations

import gc
from concurrent.futures import wait
from pathlib import Path

import pytest
import torch

from octavo.errors import BudgetExceeded, ReleasedError
from octavo.memory.entry import Terms
from octavo.memory.ledger import PLACES
from octavo.memory.policies import LRU, PinnedSet
from octavo.memory.prediction import LearnedOrder, Schedule
from octavo.memory.store_settings import StoreSettings
from tests.memory.stores import KIB, PACKED, RAW, at_rest, ledger_of, make_store, same, value


def test_values_go_down_tier_by_tier_and_come_back_exact(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        for seed in range(32):  # 512 KiB through 64 KiB of device and 128 KiB of host
            store[seed] = value(seed)
        copies = store.stats().copies
        assert copies["device"] <= 4
        assert copies["host"] <= 8
        assert copies["disk"] >= 20
        for seed in range(32):
            assert same(store[seed], value(seed))
        at_rest(store)


@pytest.mark.parametrize("settings", [RAW, PACKED], ids=["raw", "packed"])
@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(33, 65),
        torch.randn(64, 32).t(),
        torch.randn(64, 64)[::2, 1:],
        torch.randn(17, dtype=torch.bfloat16),
        torch.randint(0, 2, (100,), dtype=torch.bool),
        torch.randn(9, dtype=torch.complex64),
        torch.randn(9, dtype=torch.complex64).conj(),
        torch.tensor(float("nan")),
        torch.tensor([float("inf"), -0.0, 0.0, float("-inf")]),
        torch.empty(0, 3),
        torch.tensor(7),
        torch.randn(5, 5, requires_grad=True),
        torch.zeros(40, 40, dtype=torch.float64),
        torch.randn(300_000),
        torch.ones(300_000, dtype=torch.float16),
    ],
    ids=lambda tensor: f"{tensor.dtype}-{tuple(tensor.shape)}".replace("torch.", ""),
)
def test_any_tensor_survives_the_way_down_and_up(
    tmp_path: Path, tensor: torch.Tensor, settings: StoreSettings
) -> None:
    with make_store(tmp_path, device=8 << 20, host=8 << 20, settings=settings) as store:
        store["it"] = tensor
        before = tensor.detach().clone()
        del tensor
        gc.collect()
        for place in ("device", "host"):
            store.relieve(place, 1 << 30)
        back = store["it"]
        assert same(back, before.resolve_conj())
        assert not back.requires_grad


def test_a_small_view_does_not_keep_its_large_storage(tmp_path: Path) -> None:
    with make_store(tmp_path, device=16 << 20) as store:
        store["row"] = torch.zeros(1000, 1000)[3]
        assert ledger_of(store).used("device") <= 4000


def test_a_tensor_in_use_is_not_evicted_and_stays_counted(tmp_path: Path) -> None:
    with make_store(tmp_path, device=64 * KIB) as store:
        for seed in range(4):
            store[seed] = value(seed)
        held = [store[seed] for seed in range(4)]
        assert store.relieve("device", 1 << 30) == 0
        store["next"] = value(9)  # goes below: the device is in use
        assert store.places("next") == ("host",)
        store.relieve("host", 1)
        with pytest.raises(BudgetExceeded, match=r"16\.4 kB"):
            _ = store["next"]
        assert all(same(held[seed], value(seed)) for seed in range(4))
        del held
        assert same(store["next"], value(9))
        at_rest(store)


def test_a_view_counts_as_use(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        store["it"] = value(1)
        part = store["it"][10:20]
        assert store.relieve("device", 1) == 0
        del part
        assert store.relieve("device", 1) == 16 * KIB


def test_a_deleted_value_stays_counted_while_somebody_holds_it(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        store["it"] = value(1)
        held = store["it"]
        del store["it"]
        assert store.stats().lent_bytes == 16 * KIB
        assert ledger_of(store).used("device") == 16 * KIB
        del held
        assert store.stats().lent_bytes == 0
        assert ledger_of(store).used("device") == 0


def test_a_put_that_fits_nowhere_leaves_the_value_before(tmp_path: Path) -> None:
    with make_store(None, host=0) as store:
        store["it"] = value(1)
        with pytest.raises(BudgetExceeded, match="device"):
            store["it"] = value(2, 65 * KIB)
        assert same(store["it"], value(1))
        store["it"] = value(3, 8 * KIB)
        assert same(store["it"], value(3, 8 * KIB))
        at_rest(store)


def test_a_value_over_the_device_budget_is_kept_below_and_says_so_when_read(
    tmp_path: Path,
) -> None:
    with make_store(tmp_path, device=8 * KIB) as store:
        store["it"] = value(1)
        assert store.places("it") == ("host",)
        assert same(store["it"], value(1))  # the host copy itself: a CPU needs no other
        store.relieve("host", 1)
        with pytest.raises(BudgetExceeded) as caught:
            _ = store["it"]
        assert "device" in str(caught.value)
        assert store.places("it") == ("disk",)


def test_mapping_manners(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        assert len(store) == 0
        with pytest.raises(KeyError):
            _ = store["no"]
        with pytest.raises(KeyError):
            del store["no"]
        store["a"], store["b"] = value(1), value(2)
        assert set(store) == {"a", "b"}
        assert "a" in store
        store["a"] = value(3, 100)
        assert same(store["a"], value(3, 100))
        assert same(store.pop("a"), value(3, 100))
        assert store.pop("a", None) is None
        assert store.stats().misses >= 2
    assert all(ledger_of(store).used(place) == 0 for place in PLACES)
    with pytest.raises(ReleasedError):
        store["c"] = value(1)


def test_closing_frees_every_tier_and_leaves_no_file(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    for seed in range(32):
        store[seed] = value(seed)
    store.close()
    store.close()
    assert all(ledger_of(store).used(place) == 0 for place in PLACES)
    assert list(tmp_path.iterdir()) == []


def test_a_pinned_value_stays(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        store["it"] = value(0)
        with store.pinned("it") as tensor:
            address = tensor.data_ptr()
            del tensor
            for seed in range(1, 20):
                store[seed] = value(seed)
                store[seed]
            assert store.places("it") == ("device",)
            assert store["it"].data_ptr() == address
        for seed in range(1, 20):
            store[seed]
        assert "device" not in store.places("it")


def test_prefetch_brings_values_up_and_counts_what_was_used(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        for seed in range(12):
            store[seed] = value(seed)
        store.prefetch([0, 1, "unknown"])
        store._fetchers.shutdown(wait=True)
        assert "device" in store.places(0)
        before = store.stats()
        assert same(store[0], value(0))
        assert before.prefetches == 2
        assert store.stats().prefetch_hits == 1
        assert store.stats().hits["device"] == before.hits["device"] + 1


def test_a_known_order_is_fetched_ahead_and_the_farthest_goes_first(tmp_path: Path) -> None:
    keys = list(range(16))
    with make_store(tmp_path, device=128 * KIB, host=0) as store:
        for seed in keys:
            store[seed] = value(seed)
        store.follow(Schedule(keys, cyclic=True))
        for _ in range(4):
            for seed in keys:
                assert same(store[seed], value(seed))
                wait(list(store._fetching.values()))
        store.follow(None)
        stats = store.stats()
        # LRU alone never hits on a scan of twice the tier; here all but the first are there.
        assert stats.hits["device"] >= 62
        assert stats.prefetch_failures == 0
        at_rest(store)


def test_a_policy_that_does_not_admit_lends(tmp_path: Path) -> None:
    settings = StoreSettings(device_policy=PinnedSet, encoding=RAW.encoding)
    with make_store(tmp_path, device=64 * KIB, host=0, settings=settings) as store:
        for seed in range(16):
            store[seed] = value(seed)
        for _ in range(3):
            for seed in range(16):
                assert same(store[seed], value(seed))
        hits = store.stats().hits["device"]
        for seed in range(16):
            assert same(store[seed], value(seed))
        assert store.stats().hits["device"] - hits >= 3  # LRU: none
        at_rest(store)


def test_droppable_values_go_when_the_lowest_tier_is_full() -> None:
    with make_store(None, host=0) as store:
        for seed in range(8):
            store.put(seed, value(seed), Terms(droppable=True))
        assert len(store) == 4
        assert store.stats().dropped == 4
        store["dear"] = value(99)
        for seed in range(20, 30):
            store.put(seed, value(seed), Terms(droppable=True))
        assert same(store["dear"], value(99))
        at_rest(store)


def test_disk_copies_of_values_that_are_also_above_make_room(tmp_path: Path) -> None:
    with make_store(tmp_path, device=256 * KIB, host=0, disk=128 * KIB) as store:
        for seed in range(16):
            store[seed] = value(seed)
        store.relieve("device", 128 * KIB)
        for seed in range(8):
            store[seed]  # back up; the disk copies stay as long as nobody wants their room
        assert ledger_of(store).used("disk") == 128 * KIB
        for seed in range(100, 104):
            store[seed] = value(seed)
        for seed in (*range(16), *range(100, 104)):
            assert same(store[seed], value(seed))
        at_rest(store)


def test_a_lossy_value_keeps_its_first_bytes_and_its_bound(tmp_path: Path) -> None:
    tensor = torch.randn(64, 256, generator=torch.Generator().manual_seed(5))
    with make_store(tmp_path, device=80 * KIB, host=8 << 20, settings=PACKED) as store:
        store.put("it", tensor.clone(), Terms(max_error=0.05))
        first = None
        for turn in range(6):
            store.relieve("device", 1 << 20)
            store.relieve("host", 1 << 20)
            back = store["it"].clone()
            assert (back.double() - tensor.double()).abs().max() <= 0.05
            first = back if first is None else first
            assert same(back, first), turn  # no error on top of error
            del back
        assert store.stats().encoded_ratio > 1.5


def test_an_in_place_change_in_the_device_tier_is_kept(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        store["it"] = torch.zeros(4096)
        store.flush()
        store["it"].add_(1)
        store.relieve("device", 1 << 20)
        store.relieve("host", 1 << 20)
        assert store.places("it") == ("disk",)
        assert same(store["it"], torch.ones(4096))


def test_pools_can_take_what_the_store_holds(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        for seed in range(4):
            store[seed] = value(seed)
        with ledger_of(store).reserve("device", "kv", 64 * KIB, "pool"):
            assert store.stats().copies["device"] == 0
            assert all(same(value(seed), value(seed)) for seed in range(4))
        assert all(same(store[seed], value(seed)) for seed in range(4))


def test_a_kept_disk_gives_everything_back(tmp_path: Path) -> None:
    with make_store(tmp_path, keep=True) as store:
        for seed in range(20):
            store["vision", seed] = value(seed)
        store.put("lossy", torch.ones(64, 64), Terms(max_error=0.5, cost=3.0))
        del store["vision", 7]
    with make_store(tmp_path, keep=True) as store:
        assert len(store) == 20
        assert ("vision", 7) not in store
        for seed in range(20):
            if seed != 7:
                assert same(store["vision", seed], value(seed))
        assert torch.allclose(store["lossy"], torch.ones(64, 64), atol=0.5)
        at_rest(store)


def test_prefetching_in_the_middle_of_reads_counts_a_use_once(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        for seed in range(12):
            store[seed] = value(seed)
        for seed in range(12):
            store.prefetch([seed])
            store[seed]
        stats = store.stats()
        assert sum(stats.hits.values()) >= 12
        assert stats.prefetch_hits <= stats.prefetches


def test_observers_hear_of_everything_in_order(tmp_path: Path) -> None:
    heard: list[tuple[str, object]] = []
    with make_store(tmp_path) as store:
        store.observe(lambda event, entry: heard.append((event, entry.key)))
        store["a"] = value(1)
        store["a"]
        store["b"] = value(2)
        store["a"]
        del store["a"]
        store.stats()
    assert heard[:5] == [("put", "a"), ("get", "a"), ("put", "b"), ("get", "a"), ("delete", "a")]


def test_what_is_fetched_ahead_stays_whatever_the_policy_admits(tmp_path: Path) -> None:
    class Refusing(LRU):
        def admits(self, key: object, nbytes: int, cost: float = 1.0) -> bool:
            return False

    settings = StoreSettings(device_policy=Refusing, encoding=RAW.encoding)
    with make_store(tmp_path, host=0, settings=settings) as store:
        for seed in range(12):
            store[seed] = value(seed)
        below = next(seed for seed in range(12) if "device" not in store.places(seed))
        store.prefetch([below])
        wait(list(store._fetching.values()))
        assert "device" in store.places(below)
        assert same(store[below], value(below))


def test_a_learned_order_is_not_asked_while_everything_is_at_hand(tmp_path: Path) -> None:
    class Asked(LearnedOrder):
        seen = 0

        def observe(self, key: object) -> None:
            type(self).seen += 1
            super().observe(key)

    with make_store(tmp_path) as store:
        store.follow(Asked(), every=2)
        for seed in range(4):
            store[seed] = value(seed)
        for seed in [*range(4), *range(4)]:
            assert same(store[seed], value(seed))
        assert Asked.seen == 0
        store.relieve("device", 1)
        for seed in range(4):
            assert same(store[seed], value(seed))
        assert Asked.seen > 0
        store["small"] = value(9, 100)
        store.relieve("device", 1 << 20)
        store["up"] = value(10)
        before = Asked.seen
        for _ in range(4):  # hits, while other values lie below
            assert same(store["up"], value(10))
        assert Asked.seen > before


def test_an_encoded_value_counts_at_least_its_bytes(tmp_path: Path) -> None:
    flat = torch.arange(40_000).repeat(4)
    with make_store(tmp_path, device=4 << 20, host=32 << 20, settings=PACKED) as store:
        store["it"] = flat.clone()
        store.relieve("device", 1)
        payload = store._shelves.entries["it"].payload
        assert payload is not None
        assert payload.codec != "raw"
        assert ledger_of(store).state("host").by_kind["features"] >= payload.nbytes
