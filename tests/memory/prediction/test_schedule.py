"""The schedule against a scan of the list of what is still to come."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from octavo.memory.prediction import Predictor, Schedule

keys_of_few = st.lists(st.integers(0, 5), min_size=1, max_size=14)


def rest_of(keys: list[int], place: int, cyclic: bool) -> list[int]:
    """What is still to come, one round of it."""
    if cyclic:
        place %= len(keys)
        return keys[place:] + keys[:place]
    return keys[place:]


@given(keys_of_few, st.booleans())
def test_the_schedule_is_known_at_every_place(keys: list[int], cyclic: bool) -> None:
    schedule: Predictor = Schedule(keys, cyclic=cyclic)
    for place in range(2 * len(keys) if cyclic else len(keys) + 1):
        rest = rest_of(keys, place, cyclic)
        distinct = list(dict.fromkeys(rest))
        for count in (0, 1, 2, 20):
            assert schedule.upcoming(count) == distinct[:count]
        for key in range(7):
            expected = rest.index(key) + 1 if key in rest else math.inf
            assert schedule.distance(key) == expected
        if place < len(keys) or cyclic:
            schedule.observe(keys[place % len(keys)])


@given(keys_of_few, st.booleans(), st.integers(0, 5), st.integers(0, 13))
def test_a_forgotten_key_never_comes(keys: list[int], cyclic: bool, gone: int, place: int) -> None:
    schedule = Schedule(keys, cyclic=cyclic)
    place = min(place, len(keys) - 1)
    for key in keys[:place]:
        schedule.observe(key)
    schedule.forget(gone)
    schedule.forget(gone)
    rest = rest_of(keys, place, cyclic)
    assert schedule.upcoming(20) == [key for key in dict.fromkeys(rest) if key != gone]
    assert schedule.distance(gone) == math.inf


@pytest.mark.parametrize("cyclic", [True, False])
def test_foreign_keys_change_nothing(cyclic: bool) -> None:
    schedule = Schedule("abcdef", cyclic=cyclic)
    for key in ("a", "x", "b", "y", "z"):
        schedule.observe(key)
    assert schedule.upcoming(2) == ["c", "d"]


@pytest.mark.parametrize("cyclic", [True, False])
def test_skipped_keys_are_passed_over(cyclic: bool) -> None:
    schedule = Schedule("abcdefghij", cyclic=cyclic)
    for key in "abe":
        schedule.observe(key)
    assert schedule.upcoming(2) == ["f", "g"]


def test_a_key_read_again_is_not_taken_for_the_next_round() -> None:
    schedule = Schedule(range(64), cyclic=True)
    for key in (0, 1, 2, 3, 2):
        schedule.observe(key)
    assert schedule.upcoming(2) == [4, 5]
    schedule.observe(4)
    assert schedule.upcoming(2) == [5, 6]


@pytest.mark.parametrize("stray", [30, 40, 62])
def test_one_stray_use_costs_at_most_two_steps(stray: int) -> None:
    """Wherever the stray use points, two uses in order put the schedule right."""
    schedule = Schedule(range(64), cyclic=True)
    for key in (*range(33), stray, 33, 34):
        schedule.observe(key)
    assert schedule.upcoming(2) == [35, 36]


def test_a_run_that_begins_again_is_followed() -> None:
    schedule = Schedule(range(50))
    for key in (*range(20), 0, 1):
        schedule.observe(key)
    assert schedule.upcoming(2) == [2, 3]


def test_the_end_of_a_schedule_that_does_not_repeat() -> None:
    schedule = Schedule("ab")
    for key in "ab":
        schedule.observe(key)
    assert schedule.upcoming(3) == []
    assert schedule.distance("a") == math.inf


def test_an_empty_schedule_names_nothing() -> None:
    for cyclic in (True, False):
        schedule = Schedule([], cyclic=cyclic)
        schedule.observe("a")
        assert schedule.upcoming(4) == []
        assert schedule.distance("a") == math.inf


def test_a_key_repeated_often_is_stepped_over_at_once() -> None:
    """The search for other keys must not walk the repetitions: counted, not timed."""
    keys = ["a"] * 100_000 + ["b"]
    schedule = Schedule(keys)
    assert schedule.upcoming(2) == ["a", "b"]
    assert schedule.distance("b") == 100_001
    watched = _Watched(schedule._before._least)
    schedule._before._least = watched
    schedule.upcoming(2)
    assert watched.looked_at < 200


class _Watched(list[int]):
    looked_at = 0

    def __getitem__(self, place):  # type: ignore[no-untyped-def,override]
        self.looked_at += 1
        return super().__getitem__(place)
