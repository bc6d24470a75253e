"""The cost-aware policy beside its definition, computed anew for every key."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.memory.policies import CostAware

from .contract import PolicyContract


class TestContract(PolicyContract):
    make = staticmethod(CostAware)


@dataclass
class Kept:
    uses: int
    worth: float
    level: float
    time: int

    def rank(self) -> tuple[float, int]:
        return (self.level + self.uses * self.worth, self.time)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["use", "use", "evict", "new"]),
        st.integers(0, 7),
        st.sampled_from([0, 1, 4, 100]),
        st.sampled_from([0.0, 1.0, 8.0]),
    ),
    max_size=100,
)


@given(STEPS)
@settings(deadline=None)
def test_goes_by_worth_above_the_level(steps: list[tuple[str, int, int, float]]) -> None:
    policy, kept, level = CostAware(100), dict[int, Kept](), 0.0
    for time, (op, key, nbytes, cost) in enumerate(steps):
        if op == "evict" and kept:
            worst = min(kept, key=lambda k: kept[k].rank())
            assert next(policy.victims()) == worst
            policy.evict(worst)
            level = max(level, kept.pop(worst).rank()[0])
        elif op == "use" and key in kept:
            kept[key] = Kept(kept[key].uses + 1, kept[key].worth, level, time)
            policy.touch(key)
        elif op != "evict":
            uses = kept[key].uses + 1 if key in kept else 1
            kept[key] = Kept(uses, cost / max(nbytes, 1), level, time)
            policy.insert(key, nbytes, cost)
        assert list(policy.victims()) == sorted(kept, key=lambda k: kept[k].rank())


def test_large_and_cheap_goes_before_small_and_dear() -> None:
    policy = CostAware(100)
    policy.insert("small", 10, cost=1.0)
    policy.insert("dear", 50, cost=60.0)
    policy.insert("large", 50, cost=1.0)
    assert list(policy.victims()) == ["large", "small", "dear"]


def test_old_fame_fades() -> None:
    policy = CostAware(100)
    policy.insert("famous", 1)
    for _ in range(20):
        policy.touch("famous")
    for key in range(25):
        policy.insert(key, 1)
        policy.touch(key)
        policy.evict(next(policy.victims()))
    assert "famous" not in policy
