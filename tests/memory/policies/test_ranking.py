"""The ranking beside a dict that is sorted each time."""

from __future__ import annotations

from itertools import islice

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from octavo.memory.policies.ranking import Rank, Ranking

OPS = st.tuples(st.sampled_from(["set", "set", "set", "drop", "look"]), st.integers(0, 9))


@given(st.lists(st.tuples(OPS, st.integers(-5, 5)), max_size=200))
@settings(deadline=None)
def test_lists_by_rank(steps: list[tuple[tuple[str, int], int]]) -> None:
    ranking, ranks = Ranking(), dict[int, Rank]()
    for tick, ((op, key), level) in enumerate(steps):
        if op == "set":
            ranks[key] = (float(level), tick)
            ranking.set(key, ranks[key])
        elif op == "drop":
            assert ranking.drop(key) == ranks.pop(key, None)
        else:
            assert list(islice(ranking, 2)) == sorted(ranks, key=lambda k: ranks[k])[:2]
    assert list(ranking) == list(ranking) == sorted(ranks, key=lambda k: ranks[k])
    assert len(ranking) == len(ranks)
    assert all(ranking.rank(key) == rank for key, rank in ranks.items())


@pytest.mark.parametrize("change", [-1, 1])
def test_does_not_grow_with_the_number_of_changes(change: int) -> None:
    ranking = Ranking()
    for tick in range(5000):
        ranking.set(tick % 7, (float(change * tick), tick))
    assert len(ranking._heap) < 60


def test_dropped_keys_are_swept() -> None:
    ranking = Ranking()
    for tick in range(1000):
        ranking.set(tick, (float(tick), tick))
    for tick in range(1000):
        ranking.drop(tick)
    assert len(ranking._heap) < 60
