"""Tensors over the size limit: parts, whole, and nothing in between."""

from __future__ import annotations

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
