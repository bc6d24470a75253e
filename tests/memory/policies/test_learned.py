"""The learned policy: what it keeps on sequences whose best choice is known."""

from __future__ import annotations

import random
from collections.abc import Sequence

from octavo.memory.policies import LRU, CostAware
from octavo.memory.policies.learned import Learned
from octavo.memory.prediction.reuse import Reuse
from octavo.memory.replay import optimum, replay
from octavo.memory.trace import Access
from tests.memory.policies.contract import PolicyContract


class TestContract(PolicyContract):
    make = staticmethod(Learned)


def reads(keys: Sequence[object], nbytes: int = 1, cost: float = 1.0) -> list[Access]:
    return [Access("get", str(key), nbytes, cost) for key in keys]


def test_a_cyclic_scan_is_kept_like_a_pinned_set() -> None:
    trace = reads([i for _ in range(100) for i in range(60)])
    learned = replay(trace, Learned, 30)
    best = optimum(trace, 30)
    assert replay(trace, LRU, 30).hits == 0
    assert learned.missed_cost <= 1.03 * best.missed_cost


def test_values_used_once_do_not_push_out_those_used_again() -> None:
    keys: list[object] = []
    for turn in range(400):
        keys += range(10)
        keys += [f"once {turn}.{i}" for i in range(10)]
    trace = reads(keys)
    # The ten fit; LRU at twelve keys hits nothing, because ten strangers come between.
    assert replay(trace, LRU, 12).hits == 0
    assert replay(trace, Learned, 12).hits >= 0.9 * 10 * 399


def test_what_costs_more_by_the_byte_is_kept() -> None:
    draw = random.Random(5)
    dear = [Access("get", f"dear {i}", 1, 50.0) for i in range(10)]
    cheap = [Access("get", f"cheap {i}", 1, 1.0) for i in range(10)]
    trace = [draw.choice(dear + cheap) for _ in range(4000)]
    missed = [replay(trace[:end], Learned, 10).missed_cost for end in (2000, 4000)]
    # Once it knows, it keeps all the dear ones: half of the uses miss, those of cheap ones.
    assert missed[1] - missed[0] < 0.52 * 2000 + 5 * 50
    assert missed[1] < 0.5 * replay(trace, LRU, 10).missed_cost


def test_the_larger_of_two_alike_goes_first() -> None:
    draw = random.Random(6)
    small = [Access("get", f"small {i}", 1, 1.0) for i in range(16)]
    large = [Access("get", f"large {i}", 16, 1.0) for i in range(16)]
    trace = [draw.choice(small + large) for _ in range(4000)]
    learned = replay(trace, Learned, 32)
    assert learned.hit_ratio > 0.48
    assert learned.hit_ratio > replay(trace, LRU, 32).hit_ratio + 0.2


def test_it_follows_a_change_of_popularity() -> None:
    draw = random.Random(7)
    keys: list[int] = []
    for phase in range(4):
        popular = range(20 * phase, 20 * phase + 20)
        keys += [draw.choice(popular) for _ in range(3000)]
    outcome = replay(reads(keys), Learned, 20)
    assert outcome.hit_ratio > 0.9


def test_recency_is_learned_where_it_rules() -> None:
    keys = [i for first in range(0, 4000, 4) for i in range(first, first + 20)]
    trace = reads(keys)
    assert replay(trace, Learned, 25).missed_cost <= 1.1 * replay(trace, LRU, 25).missed_cost
    assert replay(trace, Learned, 25).missed_cost < replay(trace, CostAware, 25).missed_cost * 1.1


def test_a_newcomer_worth_less_is_not_admitted() -> None:
    policy = Learned(10)
    for turn in range(220):
        inside = {key for key in range(20) if key in policy}
        for key in range(20):
            if key in policy:
                policy.touch(key)
            elif policy.admits(key, 1):
                assert turn < 200
                while len(policy) >= 10:
                    policy.evict(next(policy.victims()))
                policy.insert(key, 1)
        assert turn < 200 or inside == {key for key in range(20) if key in policy}
    assert len(policy) == 10


def test_a_tier_with_room_admits_anything() -> None:
    policy = Learned(10)
    for key in range(10):
        assert policy.admits(key, 1)
        policy.insert(key, 1)


def test_a_read_is_one_use_though_several_are_under_way() -> None:
    policy = Learned(10)
    for key in "abc":
        assert policy.admits(key, 1)
    for key in "bac":
        policy.insert(key, 1)
    assert policy._reuse.now == 3
    policy.insert("b", 1)  # a new value
    assert policy._reuse.now == 4


def test_an_estimate_of_another_is_read_and_not_told() -> None:
    reuse = Reuse()
    policy = Learned(10, reuse)
    policy.admits("a", 1)
    policy.insert("a", 1)
    policy.touch("a")
    assert reuse.now == 0
    reuse.observe("a", 1, 1.0)
    policy.remove("a")
    assert reuse.last_use("a") == 1


class Constant(Reuse):
    """Every key is as likely to be used as the other."""

    def rate(self, key: object) -> float:
        return 0.5


def test_between_keys_as_likely_cost_by_the_byte_decides() -> None:
    policy = Learned(100, Constant())
    for number, (nbytes, cost) in enumerate([(4, 8.0), (4, 2.0), (1, 8.0), (8, 8.0)]):
        policy.insert(number, nbytes, cost)
    for _ in range(8):  # so many changes that the order is made anew
        policy.insert("other", 1, 100.0)
    assert list(policy.victims()) == [1, 3, 0, 2, "other"]
    assert policy.admits("as dear as two", 88, 10.0)
    assert not policy.admits("cheaper than 1 and 3", 90, 9.0)
    assert policy.admits("dearer than 1 and 3", 92, 10.5)


def test_victims_follow_the_worth_of_now() -> None:
    """The kept order is repaired for keys that came, went or were used since it was made."""
    draw = random.Random(8)
    policy = Learned(40)
    keys = range(120)
    for _ in range(6000):
        key = draw.choice(keys) if draw.random() < 0.5 else draw.choice(keys[:30])
        if key in policy:
            policy.touch(key)
        elif policy.admits(key, 1):
            while len(policy) >= 40:
                policy.evict(next(policy.victims()))
            policy.insert(key, 1)
        listed = list(policy.victims())
        assert len(listed) == len(set(listed)) == len(policy)
    rare = [key for key in listed[:10] if key >= 30]
    assert len(rare) >= 5
