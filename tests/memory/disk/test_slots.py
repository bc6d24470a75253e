"""The allocator of extents beside a set of numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.memory.disk.slots import Slots

STEPS = st.lists(st.tuples(st.sampled_from(["take", "give", "claim"]), st.integers(0, 40)))


@given(st.sets(st.integers(0, 30)), STEPS)
def test_it_does_what_a_set_of_numbers_does(start: set[int], steps: list[tuple[str, int]]) -> None:
    slots, taken = Slots(start), set(start)
    for op, number in steps:
        if op == "take":
            lowest = next(n for n in range(1000) if n not in taken)
            assert slots.take() == lowest
            taken.add(lowest)
        elif op == "claim" and number not in taken:
            slots.claim(number)
            taken.add(number)
        elif op == "give" and number in taken:
            slots.give(number)
            taken.remove(number)
        assert slots.end == max(taken, default=-1) + 1
        assert len(slots) == len(taken)
        assert {n for n in range(-1, 45) if n in slots} == taken


def test_a_number_is_not_given_or_claimed_twice() -> None:
    slots = Slots({0, 2})
    with pytest.raises(ValueError, match="not taken"):
        slots.give(1)
    with pytest.raises(ValueError, match="is taken"):
        slots.claim(2)
