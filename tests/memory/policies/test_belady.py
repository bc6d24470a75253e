"""Belady beside an exhaustive search over everything that could have been kept."""

from __future__ import annotations

from functools import cache

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from octavo.memory.policies import ARC, LRU, Belady, Clock, CostAware, PinnedSet
from octavo.memory.policies.belady import NEVER, next_reads
from octavo.memory.replay import _play, optimum, replay
from octavo.memory.trace import Access, Op

from .contract import PolicyContract


class TestContract(PolicyContract):
    @staticmethod
    def make(capacity: int) -> Belady:
        """At the first of accesses that no one follows."""
        policy = Belady(capacity, [Access("get", "a", 1), Access("get", "a", 1)])
        next(policy.follow())
        return policy


def reads(keys: str) -> list[Access]:
    return [Access("get", key, 1) for key in keys]


def least_misses(accesses: list[Access], capacity: int, *, bypass: bool) -> int:
    """By trying, at each access, every value that could go."""

    @cache
    def search(place: int, tier: frozenset[str]) -> int:
        if place == len(accesses):
            return 0
        access = accesses[place]
        if access.op == "delete":
            return search(place + 1, tier - {access.key})
        if access.key in tier:
            return search(place + 1, tier)
        miss = int(access.op == "get")
        with_it = tier | {access.key}
        after = [with_it] if len(with_it) <= capacity else [with_it - {gone} for gone in tier]
        if bypass and miss:
            after.append(tier)
        return miss + min(search(place + 1, kept) for kept in after)

    return search(0, frozenset())


def misses(accesses: list[Access], capacity: int, *, bypass: bool) -> int:
    policy = Belady(capacity, accesses, bypass=bypass)
    outcome = _play(policy.follow(), policy, capacity)
    return outcome.accesses - outcome.hits


ACCESSES = st.lists(
    st.builds(
        Access,
        st.sampled_from(["get", "get", "get", "get", "put", "delete"]),
        st.sampled_from("abcdef"),
        st.just(1),
    ),
    max_size=24,
)


@pytest.mark.parametrize("bypass", [True, False])
@given(accesses=ACCESSES, capacity=st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_no_choice_misses_less(accesses: list[Access], capacity: int, bypass: bool) -> None:
    expected = least_misses(accesses, capacity, bypass=bypass)
    assert misses(accesses, capacity, bypass=bypass) == expected


@given(accesses=ACCESSES, capacity=st.integers(0, 5))
@settings(deadline=None)
def test_no_online_policy_misses_less(accesses: list[Access], capacity: int) -> None:
    for factory in (LRU, Clock, ARC, CostAware, PinnedSet):
        assert replay(accesses, factory, capacity).hits <= optimum(accesses, capacity).hits


def test_bypass_is_worth_something_on_a_cyclic_scan() -> None:
    """C of N each round with bypass; without, one place is lost to what passes through."""
    scan = reads("abcdefgh" * 7)
    assert len(scan) - misses(scan, 4, bypass=True) == 4 * 6
    assert len(scan) - misses(scan, 4, bypass=False) < 4 * 6
    assert len(scan) - misses(scan, 1, bypass=False) == 0


def test_a_large_value_must_be_read_before_all_that_would_go() -> None:
    accesses = [Access("get", key, 3 if key == "L" else 1) for key in "abcLabLc"]
    policy = Belady(3, accesses)
    outcome = _play(policy.follow(), policy, 3)
    assert outcome.hits == 3  # a, b, c; the large one passed through twice


@pytest.mark.parametrize(
    ("ops", "expected"),
    [
        ("gg", [1, NEVER]),
        ("gpg", [NEVER, 2, NEVER]),
        ("gdg", [NEVER, 2, NEVER]),
    ],
)
def test_a_value_that_is_replaced_before_it_is_read_is_not_needed(
    ops: str, expected: list[float]
) -> None:
    names: dict[str, Op] = {"g": "get", "p": "put", "d": "delete"}
    assert next_reads([Access(names[op], "a", 1) for op in ops]) == expected
