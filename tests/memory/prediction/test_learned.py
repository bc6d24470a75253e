"""The learned predictor on sequences whose next uses are known, or known to be unknowable."""

from __future__ import annotations

import gc
import math
import random
from weakref import WeakSet

from octavo.memory.prediction import LearnedOrder, Predictor


def score(predictor: Predictor, keys: list[int], count: int, skip: int) -> tuple[float, float]:
    """Precision and recall of ``upcoming(count)`` for the next ``count`` uses, after ``skip``."""
    named = right = wanted = 0
    for place, key in enumerate(keys[:-count]):
        if place > skip:
            soon, coming = predictor.upcoming(count), set(keys[place : place + count])
            assert len(soon) == len(set(soon)) <= count
            named += len(soon)
            right += len(coming & set(soon))
            wanted += len(coming)
        predictor.observe(key)
    return (right / named if named else 1.0), right / wanted


def test_a_cycle_is_known_after_a_few_rounds() -> None:
    keys = [i for _ in range(12) for i in range(40)]
    assert score(LearnedOrder(), keys, 4, 120) == (1.0, 1.0)
    predictor = LearnedOrder()
    for key in keys:
        predictor.observe(key)
    assert [predictor.distance(key) for key in (0, 3, 20, 39)] == [1, 4, 21, 40]


def test_two_uses_tell_apart_what_one_cannot() -> None:
    """After b comes c or d, and only the use before b says which."""
    keys = [key for _ in range(60) for key in (0, 1, 2, 5, 1, 3)]
    precision, recall = score(LearnedOrder(), keys, 1, 60)
    assert (precision, recall) == (1.0, 1.0)


def test_a_markov_chain_is_named_where_it_is_sure() -> None:
    draw = random.Random(1)
    keys = [0]
    for _ in range(6000):
        here = keys[-1]
        # From even keys on by one, with 0.9; from odd ones anywhere.
        sure = here % 2 == 0 and draw.random() < 0.9
        keys.append(here + 1 if sure else draw.randrange(50))
    predictor = LearnedOrder()
    named = right = from_odd = 0
    for place, key in enumerate(keys[:-1]):
        predictor.observe(key)
        if place < 3000:
            continue
        soon = predictor.upcoming(1)
        if key % 2:
            from_odd += bool(soon)
        else:
            named += bool(soon)
            right += soon == keys[place + 1 : place + 2]
    assert right / named > 0.85
    assert named > 0.9 * sum(key % 2 == 0 for key in keys[3001:])
    assert from_odd < 0.1 * sum(key % 2 for key in keys[3001:])


def test_random_uses_are_not_predicted() -> None:
    draw = random.Random(2)
    keys = [draw.randrange(200) for _ in range(5000)]
    predictor = LearnedOrder()
    named = 0
    for key in keys:
        predictor.observe(key)
        named += len(predictor.upcoming(4))
    assert named < 0.02 * 4 * len(keys)


def test_a_steady_beat_among_random_uses_is_expected() -> None:
    draw = random.Random(3)
    predictor = LearnedOrder()
    for place in range(2000):
        predictor.observe("beat" if place % 10 == 0 else draw.randrange(500))
    # The last beat was use 1990, counted from zero; the next is ten uses after it.
    assert predictor.upcoming(4) == ["beat"]
    assert predictor.distance("beat") == 1
    for place in range(2000, 2004):
        predictor.observe("beat" if place % 10 == 0 else draw.randrange(500))
    assert "beat" not in predictor.upcoming(4)
    assert predictor.distance("beat") == 7


def test_a_beat_that_is_missed_is_no_longer_expected() -> None:
    draw = random.Random(4)
    predictor = LearnedOrder()
    for place in range(200):
        predictor.observe("beat" if place % 10 == 0 else 1000 + draw.randrange(5000))
    for _ in range(30):
        predictor.observe(7000 + draw.randrange(10**6))
        assert "beat" not in predictor.upcoming(1) or predictor.distance("beat") == 1
    assert predictor.upcoming(30) == []
    # It was due after 10 uses; the longer it is late, the longer it is expected to be.
    assert predictor.distance("beat") == 39 - 10


def test_old_habits_are_forgotten() -> None:
    """New keys between, so that only the use just before can tell what comes."""
    predictor = LearnedOrder()
    for place in range(540):
        predictor.observe(f"new {place}")
        predictor.observe("a")
        predictor.observe("b" if place < 500 else "c")
    predictor.observe("a")
    assert predictor.upcoming(1) == ["c"]


def test_the_mean_interval_is_the_distance_where_nothing_else_is_known() -> None:
    draw = random.Random(5)
    predictor = LearnedOrder()
    assert predictor.distance("a") == math.inf
    for _ in range(8000):
        predictor.observe(draw.randrange(50) if draw.random() < 0.5 else draw.randrange(50, 1000))
    often = sum(predictor.distance(key) for key in range(50)) / 50
    seldom = sum(min(predictor.distance(key), 5000) for key in range(50, 1000)) / 950
    assert 30 < often < 250
    assert seldom > 4 * often


def test_a_forgotten_key_is_not_named() -> None:
    predictor = LearnedOrder()
    for _ in range(10):
        for key in "abc":
            predictor.observe(key)
    assert predictor.upcoming(3) == ["a", "b", "c"]
    predictor.forget("b")
    predictor.forget("never seen")
    assert "b" not in predictor.upcoming(3)
    assert predictor.distance("b") == math.inf


class Name:
    """A key that can be watched going."""


def test_memory_is_bounded_by_the_number_of_keys() -> None:
    predictor = LearnedOrder(max_keys=50)
    alive: WeakSet[Name] = WeakSet()
    for _ in range(3000):
        key = Name()
        alive.add(key)
        predictor.observe(key)
    del key
    gc.collect()
    # Those remembered, and those in the contexts: four times as many, of up to three keys.
    assert len(alive) <= 50 + 4 * 50 * 3
    assert len(predictor._due) <= 50


def test_many_steady_keys_leave_nothing_behind() -> None:
    predictor = LearnedOrder(max_keys=100)
    for start in range(0, 3000, 3):
        for _ in range(5):
            for key in range(start, start + 3):
                predictor.observe(key)
    assert len(predictor._due) <= 100
