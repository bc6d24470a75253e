"""LRU beside a list that is sorted by time of use."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.memory.policies import LRU

from .contract import PolicyContract


class TestContract(PolicyContract):
    make = staticmethod(LRU)


@given(st.lists(st.tuples(st.sampled_from("uer"), st.integers(0, 7)), max_size=80))
@settings(deadline=None)
def test_goes_by_the_time_of_use(steps: list[tuple[str, int]]) -> None:
    policy, used = LRU(100), dict[int, int]()
    for time, (op, key) in enumerate(steps):
        if op == "u":
            policy.touch(key) if key in policy else policy.insert(key, 1)
            used[key] = time
        elif op == "e" and used:
            oldest = min(used, key=lambda k: used[k])
            assert next(policy.victims()) == oldest
            policy.evict(oldest)
            del used[oldest]
        elif op == "r":
            policy.remove(key)
            used.pop(key, None)
        assert list(policy.victims()) == sorted(used, key=lambda k: used[k])


def test_a_new_value_is_a_use() -> None:
    policy = LRU(100)
    for key in "aba":
        policy.insert(key, 1)
    assert list(policy.victims()) == ["b", "a"]
