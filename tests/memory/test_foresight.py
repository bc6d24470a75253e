"""A predictor shared by threads is told of every use, in order, before it is asked."""

from __future__ import annotations

from octavo.memory.foresight import Foresight
from octavo.memory.prediction import Schedule


def test_uses_that_were_kept_back_are_told_before_anything_is_asked() -> None:
    keys = list("abcdef")
    foresight = Foresight(Schedule(keys, cyclic=True), every=4)
    assert foresight.learns
    assert foresight.after("a", 2, now=False) == []
    assert foresight.after("b", 2, now=False) == []
    # After b the order is c d e f a b.
    assert foresight.farthest_first(keys) == list("bafedc")
    assert foresight.after("c", 2, now=True) == ["d", "e"]


def test_a_known_order_is_asked_at_every_use() -> None:
    foresight = Foresight(Schedule(list("abc"), cyclic=True))
    assert not foresight.learns
    assert foresight.after("a", 1, now=False) == ["b"]
