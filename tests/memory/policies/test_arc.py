"""ARC beside the pseudocode of the paper, for pages of one size; then for bytes."""

from __future__ import annotations

import random
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.memory.policies import ARC

from .contract import PolicyContract


class TestContract(PolicyContract):
    make = staticmethod(ARC)


class Paper:
    """Megiddo and Modha 2003, figure 4, line by line. Lists start with the least recent."""

    def __init__(self, c: int) -> None:
        self.c, self.p = c, 0.0
        self.t1: list[int] = []
        self.t2: list[int] = []
        self.b1: list[int] = []
        self.b2: list[int] = []

    def request(self, x: int) -> None:
        c, t1, t2, b1, b2 = self.c, self.t1, self.t2, self.b1, self.b2
        if x in t1 or x in t2:  # case I
            (t1 if x in t1 else t2).remove(x)
            t2.append(x)
        elif x in b1:  # case II
            self.p = min(self.p + (1 if len(b1) >= len(b2) else len(b2) / len(b1)), c)
            self.replace(x)
            b1.remove(x)
            t2.append(x)
        elif x in b2:  # case III
            self.p = max(self.p - (1 if len(b2) >= len(b1) else len(b1) / len(b2)), 0)
            self.replace(x)
            b2.remove(x)
            t2.append(x)
        else:  # case IV
            if len(t1) + len(b1) == c:
                if len(t1) < c:
                    b1.pop(0)
                    self.replace(x)
                else:
                    t1.pop(0)
            elif len(t1) + len(t2) + len(b1) + len(b2) >= c:
                if len(t1) + len(t2) + len(b1) + len(b2) == 2 * c:
                    b2.pop(0)
                self.replace(x)
            t1.append(x)

    def replace(self, x: int) -> None:
        if self.t1 and ((x in self.b2 and len(self.t1) == self.p) or len(self.t1) > self.p):
            self.b1.append(self.t1.pop(0))
        else:
            self.b2.append(self.t2.pop(0))


def use(policy: ARC, key: int, nbytes: int = 1) -> None:
    if key in policy:
        policy.touch(key)
        return
    assert policy.admits(key, nbytes)
    if len(policy) == policy.capacity:
        policy.evict(next(policy.victims()))
    policy.insert(key, nbytes)


@given(st.integers(1, 8), st.lists(st.integers(0, 15), max_size=200))
@settings(deadline=None)
def test_does_what_the_paper_says(c: int, requests: list[int]) -> None:
    beside_the_paper(c, requests)


@pytest.mark.parametrize("c", [2, 3, 5, 8])
def test_does_what_the_paper_says_for_long(c: int) -> None:
    """Long enough for every branch, the tie of target and queue included."""
    chance = random.Random(c)
    beside_the_paper(c, [int(chance.paretovariate(0.7)) % (3 * c) for _ in range(3000)])


def beside_the_paper(c: int, requests: list[int]) -> None:
    policy, paper = ARC(c), Paper(c)
    for x in requests:
        use(policy, x)
        paper.request(x)
        assert set(policy.victims()) == {*paper.t1, *paper.t2}
        queues = (policy._once, policy._again, policy._once_ghosts, policy._again_ghosts)
        assert [[key for key, _ in queue.items()] for queue in queues] == [
            paper.t1,
            paper.t2,
            paper.b1,
            paper.b2,
        ]


def test_a_scan_does_not_push_out_what_is_used_again() -> None:
    policy = ARC(4)
    for key in (1, 2, 1, 2, *range(10, 30)):
        use(policy, key)
    assert 1 in policy
    assert 2 in policy


def test_a_ghost_moves_the_target_by_its_bytes() -> None:
    """Of two keys once used, the small one's return makes little room, the large one's much."""
    targets = {}
    for returns in ("small", "large"):
        policy = ARC(100)
        policy.insert("again", 20)
        policy.touch("again")
        policy.insert("small", 10)
        policy.insert("large", 50)
        policy.evict("small")
        policy.evict("large")
        policy.insert(returns, {"small": 10, "large": 50}[returns])
        for key, nbytes in (("new", 15), ("newer", 15)):
            policy.insert(key, nbytes)
        targets[returns] = next(policy.victims())
    assert targets == {"small": "new", "large": "again"}


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 40)), max_size=200))
@settings(deadline=None)
def test_ghosts_and_tier_hold_twice_the_capacity_at_most(uses: list[tuple[int, int]]) -> None:
    policy, held = ARC(100), dict[int, int]()
    for key, nbytes in uses:
        if key in held:
            policy.touch(key)
            continue
        policy.admits(key, nbytes)
        short = sum(held.values()) + nbytes - 100
        for victim in list(policy.victims()):
            if short <= 0:
                break
            short -= held.pop(victim)
            policy.evict(victim)
        policy.insert(key, nbytes)
        held[key] = nbytes
        queues = (policy._once, policy._again, policy._once_ghosts, policy._again_ghosts)
        assert all(queue.nbytes == sum(n for _, n in queue.items()) for queue in queues)
        assert sum(queue.nbytes for queue in queues) <= 200
        assert policy._once.nbytes + policy._once_ghosts.nbytes <= 100


def test_a_key_that_was_asked_about_counts_once() -> None:
    policy = ARC(2)
    policy.insert("a", 1)
    policy.insert("b", 1)
    policy.evict("a")
    policy.admits("a", 1)
    policy.insert("a", 1)  # back from those used once: their queue gets more room
    assert policy._target == 1
    policy.evict("a")
    policy.insert("a", 1)  # back from those used again, and nobody asked
    assert policy._target == 0


def test_several_victims_at_once_are_those_of_several_evictions() -> None:
    def filled() -> ARC:
        policy = ARC(12)
        for key in (*range(12), 1, 3, 5, 7, *range(12, 16), 0, 2):
            use(policy, key)
        return policy

    together = list(islice(filled().victims(), 8))
    policy, apart = filled(), []
    for _ in range(8):
        apart.append(next(policy.victims()))
        policy.evict(apart[-1])
    assert together == apart
