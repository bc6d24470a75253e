"""A played tier against the replay of the same accesses, which is the reference for it."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from octavo.memory.policies import ARC, LRU, CostAware, PinnedSet, Policy
from octavo.memory.policies.learned import Learned
from octavo.memory.policies.shadow import Shadow
from octavo.memory.replay import replay
from octavo.memory.trace import Access


def accesses(seed: int) -> list[Access]:
    draw = random.Random(seed)
    values = [
        Access("get", f"value {i}", draw.choice((1, 5, 30, 200)), draw.choice((0.5, 1.0, 8.0)))
        for i in range(60)
    ]
    drawn = draw.choices(values, [1 / (i + 1) for i in range(60)], k=3000)
    return [
        Access(draw.choices(("get", "put", "delete"), (30, 3, 1))[0], one.key, one.nbytes, one.cost)
        for one in drawn
    ]


@pytest.mark.parametrize("make", [LRU, ARC, CostAware, PinnedSet, Learned])
@pytest.mark.parametrize("capacity", [40, 190, 700])
def test_it_misses_what_a_replay_misses(make: Callable[[int], Policy], capacity: int) -> None:
    trace = accesses(capacity)
    shadow = Shadow(make(capacity))
    for access in trace:
        if access.op == "get":
            shadow.read(access.key, access.nbytes, access.cost, 1.0)
        elif access.op == "put":
            shadow.write(access.key, access.nbytes, access.cost)
        else:
            shadow.remove(access.key)
        assert shadow._used == sum(shadow._sizes.values()) <= capacity
        assert len(shadow.policy) == len(shadow._sizes)
    assert shadow.missed == pytest.approx(replay(trace, make, capacity).missed_cost)


def test_a_miss_counts_its_weight() -> None:
    shadow = Shadow(LRU(10))
    shadow.read("a", 4, 3.0, 0.0)
    assert shadow.missed == 0.0
    shadow.read("b", 40, 3.0, 0.5)
    assert shadow.missed == 1.5
    shadow.read("a", 4, 3.0, 1.0)
    assert shadow.missed == 1.5


def test_it_tells_who_had_to_go_and_only_those() -> None:
    shadow = Shadow(LRU(10))
    gone: list[object] = []
    shadow.told = gone.append
    for key in "abc":
        shadow.write(key, 4, 1.0)
    assert gone == ["a"]
    shadow.remove("b")
    assert gone == ["a"]
    shadow.write("c", 20, 1.0)
    assert gone == ["a", "c"]
    assert "c" not in shadow


def test_a_smaller_one_lets_the_oldest_go() -> None:
    shadow = Shadow(LRU(10))
    for key in range(10):
        shadow.write(key, 1, 1.0)
    shadow.resize(4)
    assert [key for key in range(10) if key in shadow] == [6, 7, 8, 9]
    shadow.keep(lambda key: key in (7, 9))
    assert [key for key in range(10) if key in shadow] == [7, 9]
    assert shadow._used == 2


def test_a_grown_value_pushes_out_others_not_itself() -> None:
    shadow = Shadow(LRU(10))
    for key in "abc":
        shadow.write(key, 3, 1.0)
    shadow.write("a", 6, 1.0)
    assert ["a" in shadow, "b" in shadow, "c" in shadow] == [True, False, True]
    assert shadow._used == 9
