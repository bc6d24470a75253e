"""What every policy must do, whoever it thinks should go first.

A test module of a policy makes a class of it::

    class TestContract(PolicyContract):
        make = staticmethod(LRU)
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import ClassVar
from weakref import WeakSet

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from octavo.memory.policies.base import Key, Policy

PolicyFactory = Callable[[int], Policy]

CAPACITY = 20

keys = st.integers(0, 11)
sizes = st.integers(0, 12)
costs = st.sampled_from([0.0, 0.001, 1.0, 1.0, 50.0])


class PolicyContract:
    make: ClassVar[PolicyFactory]

    def test_it_knows_exactly_who_is_in_the_tier(self) -> None:
        run_state_machine_as_test(
            partial(Owner, self.make),
            settings=settings(max_examples=40, stateful_step_count=40, deadline=None),
        )

    def test_it_has_a_name(self) -> None:
        assert type(self.make(CAPACITY)).name

    def test_an_empty_one_has_no_victims(self) -> None:
        policy = self.make(CAPACITY)
        assert list(policy.victims()) == []
        assert len(policy) == 0

    def test_a_key_never_seen_may_be_removed(self) -> None:
        policy = self.make(CAPACITY)
        policy.remove("never seen")
        policy.insert("a", 1)
        policy.remove("never seen")
        assert list(policy.victims()) == ["a"]

    def test_any_key_will_do(self) -> None:
        """``None`` and tuples too; keys are never compared by order."""
        policy = self.make(CAPACITY)
        mixed: list[Key] = [None, ("kv", 1), "kv", 3, frozenset()]
        for key in mixed:
            policy.insert(key, 1)
        assert set(policy.victims()) == set(mixed)

    def test_what_it_remembers_of_those_gone_is_bounded(self) -> None:
        """A long stream of keys that come once: the policy holds on to a few of them only."""
        policy = self.make(CAPACITY)
        alive: WeakSet[Name] = WeakSet()
        for _ in range(3000):
            key = Name()
            alive.add(key)
            pass_through(policy, key, 1)
        del key
        gc.collect()
        assert len(alive) <= 40 * CAPACITY

    def test_empty_values_do_not_make_it_grow(self) -> None:
        policy = self.make(CAPACITY)
        alive: WeakSet[Name] = WeakSet()
        for _ in range(3000):
            key = Name()
            alive.add(key)
            policy.admits(key, 0)
            policy.insert(key, 0)
            policy.evict(key)
        del key
        gc.collect()
        assert len(alive) <= 40 * CAPACITY

    def test_a_removed_key_is_forgotten(self) -> None:
        policy = self.make(CAPACITY)
        alive: WeakSet[Name] = WeakSet()
        for turn in range(3000):
            key = Name()
            alive.add(key)
            pass_through(policy, key, 1)
            if turn % 2 and key in policy:
                policy.evict(key)
            policy.remove(key)
            assert key not in policy
        del key
        gc.collect()
        assert len(policy) == 0
        assert len(alive) <= 40 * CAPACITY


class Name:
    """A key that can be watched going."""


def pass_through(policy: Policy, key: Key, nbytes: int) -> None:
    """A miss: ``key`` comes in if it is admitted, after those who have to go for it."""
    if not policy.admits(key, nbytes):
        return
    for victim in list(islice(policy.victims(), max(0, len(policy) + nbytes - CAPACITY))):
        policy.evict(victim)
    policy.insert(key, nbytes)


class Owner(RuleBasedStateMachine):
    """Does to a policy whatever an owner may do, beside a plain set."""

    def __init__(self, make: PolicyFactory) -> None:
        super().__init__()
        self.policy = make(CAPACITY)
        self.inside: set[Key] = set()

    @rule(key=keys, nbytes=sizes, cost=costs, asked=st.booleans())
    def insert(self, key: int, nbytes: int, cost: float, asked: bool) -> None:
        if asked:
            assert self.policy.admits(key, nbytes, cost) in (True, False)
        self.policy.insert(key, nbytes, cost)
        self.inside.add(key)

    @rule(key=keys, nbytes=sizes, cost=costs)
    def ask(self, key: int, nbytes: int, cost: float) -> None:
        self.policy.admits(key, nbytes, cost)

    @rule(key=keys)
    def touch(self, key: int) -> None:
        if key in self.inside:
            self.policy.touch(key)

    @rule(count=st.integers(1, 3))
    def evict_the_first(self, count: int) -> None:
        for key in list(islice(self.policy.victims(), count)):
            self.policy.evict(key)
            self.inside.remove(key)

    @rule(key=keys)
    def evict_another(self, key: int) -> None:
        if key in self.inside:
            self.policy.evict(key)
            self.inside.remove(key)

    @rule(key=keys)
    def remove(self, key: int) -> None:
        self.policy.remove(key)
        self.inside.discard(key)

    @rule(key=keys, nbytes=sizes)
    def evict_and_take_back(self, key: int, nbytes: int) -> None:
        if key in self.inside:
            self.policy.evict(key)
            assert key not in self.policy
            self.policy.insert(key, nbytes)

    @invariant()
    def lists_each_once_and_changes_nothing(self) -> None:
        listed = list(self.policy.victims())
        assert len(listed) == len(set(listed)) == len(self.inside)
        assert set(listed) == self.inside
        assert list(self.policy.victims()) == listed
        assert len(self.policy) == len(self.inside)

    @invariant()
    def a_look_at_the_first_changes_nothing(self) -> None:
        first = next(self.policy.victims(), None)
        assert first == next(iter(list(self.policy.victims())), None)

    @invariant()
    def contains_them(self) -> None:
        for key in range(12):
            assert (key in self.policy) == (key in self.inside)
