"""The pinned set beside Belady, and its spread over a round."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.memory.policies import LRU, PinnedSet
from octavo.memory.policies.pinned import evenly_spread
from octavo.memory.replay import optimum, replay
from octavo.memory.trace import Access

from .contract import PolicyContract


class TestContract(PolicyContract):
    make = staticmethod(PinnedSet)


class TestContractWithAScan(PolicyContract):
    @staticmethod
    def make(capacity: int) -> PinnedSet:
        return PinnedSet(capacity, [(key, 3) for key in range(9)])


def rounds(layers: int, count: int, nbytes: int = 10) -> list[Access]:
    return [Access("get", f"layer.{i}", nbytes) for _ in range(count) for i in range(layers)]


@given(st.integers(1, 12), st.integers(0, 130), st.integers(1, 6), st.booleans())
@settings(deadline=None)
def test_equals_belady_on_a_cyclic_scan(
    layers: int, capacity: int, count: int, known: bool
) -> None:
    scan = [(f"layer.{i}", 10) for i in range(layers)] if known else []
    accesses = rounds(layers, count)
    outcome = replay(accesses, lambda capacity: PinnedSet(capacity, scan), capacity)
    assert outcome.hits == optimum(accesses, capacity).hits
    assert outcome.hits == min(capacity // 10, layers) * (count - 1)
    assert outcome.evictions == 0


def test_where_lru_never_hits() -> None:
    accesses = rounds(64, 10)
    assert replay(accesses, LRU, 480).hits == 0
    assert replay(accesses, PinnedSet, 480).hits == 48 * 9


@given(st.integers(1, 80), st.integers(0, 90))
@settings(deadline=None)
def test_the_set_lies_evenly_over_the_round(layers: int, fit: int) -> None:
    chosen = list(evenly_spread([(i, 10) for i in range(layers)], fit * 10 + 5))
    assert len(chosen) == min(fit, layers)
    if chosen:
        following = [*chosen[1:], chosen[0] + layers]
        gaps = [after - before for before, after in zip(chosen, following, strict=True)]
        assert max(gaps) - min(gaps) <= 1


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(0, 400))
@settings(deadline=None)
def test_the_set_fits_and_nothing_more_does(sizes: list[int], capacity: int) -> None:
    chosen = evenly_spread(list(enumerate(sizes)), capacity)
    assert sum(chosen.values()) <= capacity
    left_out = [nbytes for key, nbytes in enumerate(sizes) if key not in chosen]
    assert all(sum(chosen.values()) + nbytes > capacity for nbytes in left_out)


def test_newcomers_stay_out_until_one_is_removed() -> None:
    policy = PinnedSet(20)
    for key in "ab":
        assert policy.admits(key, 10)
        policy.insert(key, 10)
    assert not policy.admits("c", 10)
    policy.remove("a")
    assert policy.admits("c", 10)
    policy.insert("c", 10)
    assert not policy.admits("a", 10)


def test_one_that_was_evicted_may_come_back() -> None:
    policy = PinnedSet(20)
    for key in "ab":
        policy.insert(key, 10)
    policy.evict("a")
    assert policy.admits("a", 10)


def test_a_new_size_counts() -> None:
    policy = PinnedSet(20)
    policy.insert("a", 20)
    assert not policy.admits("b", 10)
    policy.insert("a", 5)
    assert policy.admits("b", 10)


def test_the_last_comer_goes_first_and_the_chosen_last() -> None:
    policy = PinnedSet(30, [("a", 10), ("b", 10), ("c", 10)])
    for key in ("a", "x", "b", "y"):
        policy.insert(key, 10)
    assert list(policy.victims()) == ["y", "x", "b", "a"]


def test_room_is_kept_for_the_chosen_until_they_are_gone() -> None:
    policy = PinnedSet(30, [("a", 10), ("b", 10)])
    assert policy.admits("x", 10)
    policy.insert("x", 10)
    assert not policy.admits("y", 10)
    assert policy.admits("b", 10)
    policy.remove("a")
    assert policy.admits("y", 10)


def test_a_use_of_one_not_there_is_a_fault_of_the_owner() -> None:
    with pytest.raises(KeyError):
        PinnedSet(10).touch("a")
