"""The simulator beside a tier written out by hand, and regret by arithmetic."""

from __future__ import annotations

from collections import OrderedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.memory.policies import LRU, ONLINE, PinnedSet
from octavo.memory.policies.base import Key
from octavo.memory.replay import Outcome, best, compare, distinct_bytes, optimum, replay
from octavo.memory.trace import Access

accesses = st.lists(
    st.builds(
        Access,
        st.sampled_from(["get", "get", "get", "put", "delete"]),
        st.sampled_from("abcdefgh"),
        st.integers(0, 12),
        st.sampled_from([0.5, 1.0, 4.0]),
    ),
    max_size=120,
)


def gets(keys: str, nbytes: int = 1) -> list[Access]:
    return [Access("get", key, nbytes) for key in keys]


def lru_by_hand(accesses: list[Access], capacity: int) -> Outcome:
    tier: OrderedDict[str, int] = OrderedDict()
    hits = missed_bytes = evictions = 0
    missed_cost = 0.0
    for access in accesses:
        if access.op == "delete":
            tier.pop(access.key, None)
            continue
        there = access.key in tier
        if access.op == "get":
            hits += there
            missed_bytes += 0 if there else access.nbytes
            missed_cost += 0 if there else access.cost
        if access.nbytes > capacity:
            evictions += tier.pop(access.key, None) is not None
            continue
        tier.pop(access.key, None)
        while sum(tier.values()) + access.nbytes > capacity:
            tier.popitem(last=False)
            evictions += 1
        tier[access.key] = access.nbytes
    reads = sum(access.op == "get" for access in accesses)
    return Outcome("lru", capacity, reads, hits, missed_bytes, missed_cost, evictions)


@given(accesses, st.integers(0, 40))
@settings(deadline=None)
def test_counts_what_a_tier_by_hand_counts(accesses: list[Access], capacity: int) -> None:
    assert replay(accesses, LRU, capacity) == lru_by_hand(accesses, capacity)


class Watched(LRU):
    """LRU that checks its owner: what it is told fits together, and the tier never overflows."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        self.sizes: dict[Key, int] = {}

    def insert(self, key: Key, nbytes: int, cost: float = 1.0) -> None:
        self.sizes[key] = nbytes
        assert sum(self.sizes.values()) <= self.capacity
        super().insert(key, nbytes, cost)

    def touch(self, key: Key) -> None:
        assert key in self.sizes
        super().touch(key)

    def evict(self, key: Key) -> None:
        del self.sizes[key]
        super().evict(key)

    def remove(self, key: Key) -> None:
        self.sizes.pop(key, None)
        super().remove(key)

    def admits(self, key: Key, nbytes: int, cost: float = 1.0) -> bool:
        assert key not in self.sizes
        return nbytes != 7


@given(accesses, st.integers(0, 40))
@settings(deadline=None)
def test_the_tier_never_overflows(accesses: list[Access], capacity: int) -> None:
    policies: list[Watched] = []

    def factory(capacity: int) -> Watched:
        policies.append(Watched(capacity))
        return policies[-1]

    replay(accesses, factory, capacity)
    assert len(policies) == 1


@given(accesses, st.integers(0, 60))
@settings(deadline=None)
def test_every_policy_accounts_for_every_read(accesses: list[Access], capacity: int) -> None:
    cost_of_all = sum(access.cost for access in accesses if access.op == "get")
    for outcome in compare(accesses, capacity):
        assert 0 <= outcome.hits <= outcome.accesses
        assert 0 <= outcome.missed_cost <= cost_of_all
        if capacity == 0 and all(access.nbytes for access in accesses):
            assert outcome.missed_bytes == sum(a.nbytes for a in accesses if a.op == "get")


def test_everything_fits() -> None:
    accesses = gets("abcabcabc", 10)
    assert distinct_bytes(accesses) == 30
    for outcome in compare(accesses, distinct_bytes(accesses)):
        assert (outcome.hits, outcome.missed_bytes, outcome.evictions) == (6, 30, 0)


def test_put_is_no_miss_and_delete_forgets() -> None:
    accesses = [
        Access("put", "a", 4, 2.0),
        Access("get", "a", 4, 2.0),
        Access("delete", "a", 0),
        Access("get", "a", 4, 2.0),
    ]
    assert replay(accesses, LRU, 10) == Outcome("lru", 10, 2, 1, 4, 2.0, 0)


def test_what_is_not_admitted_stays_out() -> None:
    assert replay(gets("abab"), PinnedSet, 1).hits == 1


def test_compare_plays_them_in_order_and_belady_last() -> None:
    outcomes = compare(gets("abcabc"), 2)
    assert [outcome.name for outcome in outcomes] == [*ONLINE, "belady"]
    chosen = compare(gets("abcabc"), 2, {"lru": LRU})
    assert [outcome.name for outcome in chosen] == ["lru", "belady"]
    told: list[str] = []
    compare(gets("abcabc"), 2, {"lru": LRU}, on_policy=told.append)
    assert told == ["lru", "belady"]
    assert chosen[-1] == optimum(gets("abcabc"), 2)
    assert {outcome.capacity for outcome in outcomes} == {2}


def test_regret_is_what_was_missed_beyond_the_optimum() -> None:
    belady = Outcome("belady", 10, 100, 60, 400, 20.0, 0)
    worse = Outcome("lru", 10, 100, 50, 500, 25.0, 0)
    regret = worse.regret(belady)
    assert (regret.cost, regret.nbytes) == (5.0, 100)
    assert (regret.cost_ratio, regret.bytes_ratio) == (pytest.approx(0.25), pytest.approx(0.25))
    assert belady.regret(belady).cost_ratio == 0.0


def test_regret_against_an_optimum_that_missed_nothing() -> None:
    nothing = Outcome("belady", 10, 5, 5, 0, 0.0, 0)
    something = Outcome("lru", 10, 5, 4, 10, 1.0, 0)
    assert nothing.regret(nothing).cost_ratio == 0.0
    assert something.regret(nothing).cost_ratio is None
    assert something.regret(nothing).bytes_ratio is None


def test_the_best_misses_the_least_cost_then_the_least_bytes() -> None:
    few_bytes = Outcome("a", 10, 5, 4, 10, 2.0, 0)
    cheap = Outcome("b", 10, 5, 4, 90, 1.0, 0)
    cheap_and_small = Outcome("c", 10, 5, 4, 80, 1.0, 0)
    assert best([few_bytes, cheap, cheap_and_small]) is cheap_and_small


def test_hit_ratio_of_nothing_is_nothing() -> None:
    assert replay([Access("put", "a", 1)], LRU, 10).hit_ratio == 0.0
    assert replay(gets("aaab"), LRU, 10).hit_ratio == 0.5


def test_the_largest_size_of_a_key_counts_once() -> None:
    accesses = [Access("get", "a", 3), Access("put", "a", 9), Access("get", "b", 5)]
    assert distinct_bytes([*accesses, Access("delete", "c", 100)]) == 14
