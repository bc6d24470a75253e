"""Tensors over the size limit: parts, whole, and nothing in between."""

from __future__ import annotations

import threading
from concurrent.futures import wait
from pathlib import Path

import pytest
import torch

from octavo.errors import BudgetExceeded
from octavo.memory.entry import Terms
from octavo.memory.split import SplitStore
from tests.memory.stores import KIB, at_rest, ledger_of, make_store, same


@pytest.mark.parametrize(
    "shape", [(64, 64), (3, 2500), (30_000,), (1, 9000), (7, 3, 11, 13), (2048, 1)]
)
def test_large_values_come_back_whole_and_in_parts(tmp_path: Path, shape: tuple[int, ...]) -> None:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with make_store(tmp_path, device=512 * KIB) as store:
        values = SplitStore(store, 4096)
        values["it"] = tensor
        assert same(values["it"], tensor)
        parts = list(values.parts("it"))
        assert len(parts) > 1
        assert all(part.nbytes <= 4096 for part in parts)
        assert same(torch.cat([part.reshape(-1) for part in parts]), tensor.reshape(-1))
        assert list(values) == ["it"]
        assert len(values) == 1
        del parts
        at_rest(store)


def test_small_values_are_not_cut(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        values = SplitStore(store, 4096)
        values["it"] = torch.ones(1024)
        assert len(list(values.parts("it"))) == 1
        assert "it" in store


def test_a_value_is_replaced_whole_in_every_direction(tmp_path: Path) -> None:
    small, large, other = torch.ones(10), torch.randn(5000), torch.randn(70, 70)
    with make_store(tmp_path, device=256 * KIB) as store:
        values = SplitStore(store, 4096)
        for tensor in (small, large, other, small, other, large):
            values["it"] = tensor
            assert same(values["it"], tensor)
        del values["it"]
        assert "it" not in values
        assert len(store) == 0  # no part of any of them is left
        with pytest.raises(KeyError):
            del values["it"]
        with pytest.raises(KeyError):
            _ = values["it"]


def test_a_failed_put_leaves_the_value_before_and_no_parts() -> None:
    with make_store(None, device=48 * KIB, host=0) as store:
        values = SplitStore(store, 8 * KIB)
        before = torch.randn(4000)
        values["it"] = before
        keys = set(store)
        with pytest.raises(BudgetExceeded):
            values.put("it", torch.randn(16_000), Terms())
        assert set(store) == keys
        assert same(values["it"], before)


def test_parts_survive_in_a_kept_disk(tmp_path: Path) -> None:
    tensor = torch.randn(200, 100)
    with make_store(tmp_path, keep=True) as store:
        SplitStore(store, 8 * KIB)["a", 1] = tensor
    with make_store(tmp_path, keep=True, device=256 * KIB) as store:
        values = SplitStore(store, 8 * KIB)
        assert list(values) == [("a", 1)]
        assert same(values["a", 1], tensor)


def test_the_joined_value_is_in_the_budget_while_it_is_held(tmp_path: Path) -> None:
    with make_store(tmp_path, device=128 * KIB) as store:
        values = SplitStore(store, 8 * KIB)
        values["it"] = torch.randn(16_000)
        whole = values["it"]
        assert store.stats().lent_bytes >= whole.nbytes
        assert ledger_of(store).state("device").peak <= 128 * KIB
        del whole
        assert store.stats().lent_bytes == 0


def test_a_part_that_was_dropped_takes_the_whole_value_with_it() -> None:
    with make_store(None, device=48 * KIB, host=0) as store:
        values = SplitStore(store, 8 * KIB)
        values.put("it", torch.randn(6000), Terms(droppable=True))
        for seed in range(4):
            store["other", seed] = torch.full((8 * KIB,), seed, dtype=torch.uint8)
        assert store.stats().dropped
        with pytest.raises(KeyError, match="it"):
            list(values.parts("it"))
        assert "it" not in values
        assert len(store) == 4  # nor is any part or manifest left
        at_rest(store)


def test_a_value_replaced_while_it_is_read_is_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From large to large, to small, and back to large, each between two parts of a read."""
    values_in_turn = [torch.randn(3000), torch.randn(20, 200), torch.ones(10), torch.randn(5000)]
    with make_store(tmp_path, device=512 * KIB) as store:
        values = SplitStore(store, 4096)
        values["it"] = values_in_turn.pop(0)
        get = type(store).__getitem__
        expected: list[torch.Tensor] = []

        def replacing(self: object, key: object) -> torch.Tensor:
            if values_in_turn and (key == "it" or key[0] == "octavo:part"):  # type: ignore[index]
                expected[:] = [values_in_turn.pop(0)]
                values["it"] = expected[0]
            return get(store, key)

        monkeypatch.setattr(type(store), "__getitem__", replacing)
        assert same(values["it"], expected[0])
        assert not values_in_turn


def test_writers_of_one_key_leave_one_value_and_no_parts_of_others(tmp_path: Path) -> None:
    with make_store(tmp_path, device=4096 * KIB) as store:
        values = SplitStore(store, 4096)
        together = threading.Barrier(4)
        failures: list[BaseException] = []

        def write(index: int) -> None:
            together.wait(30)
            try:
                for step in range(30):
                    size = 10 if (index + step) % 3 == 0 else 3000 + index
                    values["it"] = torch.full((size,), float(index))
                    found = values.get("it")
                    assert found is None or (found == found[0]).all()
                    if step % 10 == 9:
                        values.pop("it", None)
            except BaseException as error:  # noqa: BLE001 - raised again below
                failures.append(error)

        writers = [threading.Thread(target=write, args=(index,)) for index in range(4)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(60)
        assert not failures, failures[0]
        values["it"] = torch.randn(3000)
        assert len(store) == 4  # three parts and the manifest
        values.clear()
        assert len(store) == 0


def test_parts_of_an_unfinished_put_are_gone_at_the_next_start(tmp_path: Path) -> None:
    with make_store(tmp_path, keep=True) as store:
        values = SplitStore(store, 4096)
        values["whole"] = torch.randn(3000)
        store["octavo:part", "cut short", "0123", 0] = torch.randn(100)
    with make_store(tmp_path, keep=True) as store:
        values = SplitStore(store, 4096)
        assert list(values) == ["whole"]
        assert len(store) == 4


def test_split_values_are_fetched_ahead_and_pinned(tmp_path: Path) -> None:
    tensor, small = torch.randn(6000), torch.ones(10)
    with make_store(tmp_path, device=128 * KIB) as store:
        values = SplitStore(store, 8 * KIB)
        values["it"], values["small"] = tensor, small.clone()
        store.relieve("device", 1 << 20)
        store.relieve("host", 1 << 20)
        values.prefetch(["it", "small", "unknown"])
        wait(list(store._fetching.values()))
        assert store.stats().prefetches == 4
        for key, expected in (("it", tensor), ("small", small)):
            with values.pinned(key) as found:
                store.relieve("device", 1 << 20)
                assert same(found, expected)
        assert same(values.pop("it"), tensor)
        assert values.pop("it", None) is None
        with pytest.raises(KeyError):
            values.pop("it")
