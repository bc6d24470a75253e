"""A recorded run, replayed whole, shifted, disturbed and abandoned."""

from __future__ import annotations

import math
import random

import hypothesis.strategies as st
from hypothesis import given

from octavo.memory.prediction import Predictor, Recorded


def drawn(seed: int, count: int, keys: int) -> list[int]:
    draw = random.Random(seed)
    return [draw.randrange(keys) for _ in range(count)]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_the_same_run_again_is_known_at_every_place(keys: list[int]) -> None:
    recorded: Predictor = Recorded(keys)
    for place, key in enumerate(keys):
        rest = keys[place:]
        assert recorded.upcoming(3) == list(dict.fromkeys(rest))[:3]
        for asked in range(6):
            expected = rest.index(asked) + 1 if asked in rest else None
            if expected is not None:
                assert recorded.distance(asked) == expected
        recorded.observe(key)
    assert recorded.upcoming(3) == []


def test_a_run_that_begins_in_the_middle_is_found() -> None:
    keys = drawn(1, 400, 60)
    recorded = Recorded(keys)
    for key in keys[200:204]:
        recorded.observe(key)
    assert recorded.upcoming(1) == [keys[204]]


def test_uses_left_out_or_added_do_not_derail_it() -> None:
    keys = list(range(200))
    recorded = Recorded(keys)
    for key in (0, 1, 2, 4, 5, 8, "new", 9, 10):
        recorded.observe(key)
    assert recorded.upcoming(2) == [11, 12]


def test_it_falls_silent_when_the_run_departs_and_speaks_when_it_returns() -> None:
    keys = list(range(300))
    recorded = Recorded(keys)
    for key in range(50):
        recorded.observe(key)
    assert recorded.upcoming(2) == [50, 51]
    for key in ("x", "y"):
        recorded.observe(key)
    assert not recorded.aligned
    assert recorded.upcoming(2) == []
    assert recorded.distance(60) == 300.0  # once in so many uses
    for key in (120, 121):
        recorded.observe(key)
    assert recorded.upcoming(2) == []
    recorded.observe(122)
    assert recorded.aligned
    assert recorded.upcoming(2) == [123, 124]
    assert recorded.distance(130) == 8


def test_another_run_of_the_same_keys_is_not_predicted() -> None:
    """Silent or right: with chance agreement only, it must not go on naming keys."""
    recorded = Recorded(drawn(2, 5000, 300))
    named = right = 0
    for key in drawn(3, 2000, 300):
        soon = recorded.upcoming(1)
        named += bool(soon)
        right += soon == [key]
        recorded.observe(key)
    assert named < 0.1 * 2000
    assert right <= named


def test_of_many_like_places_the_next_one_is_taken() -> None:
    keys = [*"abcX", *"abcY", *"abcZ"]
    recorded = Recorded(keys)
    for key in keys[:4]:
        recorded.observe(key)
    for key in "??abc":
        recorded.observe(key)
    assert recorded.upcoming(1) == ["Y"]


def test_a_place_behind_is_found_too() -> None:
    keys = list(range(100))
    recorded = Recorded(keys)
    for key in (*keys[:80], 10, 11, 12):
        recorded.observe(key)
    assert recorded.upcoming(2) == [13, 14]


def test_a_forgotten_key_is_not_named() -> None:
    recorded = Recorded("abcde")
    recorded.forget("b")
    recorded.forget("never seen")
    assert recorded.upcoming(3) == ["a", "c", "d"]
    assert recorded.distance("b") == math.inf
    recorded.observe("b")
    recorded.observe("c")
    assert recorded.upcoming(1) == ["d"]
