"""The adaptive policy: on whatever sequence, near the best of those that it plays."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from octavo.memory.policies import ARC, LRU, CostAware, PinnedSet, Policy, adaptive
from octavo.memory.policies.adaptive import Adaptive
from octavo.memory.policies.learned import Learned
from octavo.memory.replay import distinct_bytes, replay
from octavo.memory.trace import Access
from tests.memory.policies.contract import PolicyContract

OTHERS: tuple[Callable[[int], Policy], ...] = (LRU, ARC, CostAware, PinnedSet, Learned)


class TestContract(PolicyContract):
    make = staticmethod(Adaptive)


class TestContractSampled(PolicyContract):
    """The same with so few keys sampled that the sample changes all the time."""

    @pytest.fixture(autouse=True)
    def sample_little(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(adaptive, "_SAMPLED", 4)
        monkeypatch.setattr(adaptive, "_COMPARED", 4)
        monkeypatch.setattr(adaptive, "_FIRST", 4)

    make = staticmethod(Adaptive)


def cyclic(rounds: int, count: int) -> list[Access]:
    return [Access("get", f"layer {i}", 1, 1.0) for _ in range(rounds) for i in range(count)]


def window(steps: int) -> list[Access]:
    """Recency rules: each value is used a few times, then never again."""
    return [
        Access("get", f"frame {i}", 1, 1.0)
        for first in range(0, 4 * steps, 4)
        for i in range(first, first + 20)
    ]


def popular(seed: int, count: int) -> list[Access]:
    """Frequency and cost rule."""
    draw = random.Random(seed)
    values = [
        Access("get", f"value {i}", draw.choice((1, 4, 16)), draw.choice((0.1, 1.0, 10.0)))
        for i in range(300)
    ]
    return draw.choices(values, [1 / (i + 1) for i in range(300)], k=count)


TRACES = {
    "cyclic": (cyclic(80, 80), 40),
    "window": (window(700), 26),
    "popular": (popular(1, 9000), 500),
    "cyclic, then popular": (cyclic(50, 80) + popular(2, 9000), 60),
    "popular, then window": (popular(3, 5000) + window(700), 26),
}


@pytest.mark.parametrize("name", TRACES)
def test_within_ten_per_cent_of_the_best(name: str) -> None:
    trace, capacity = TRACES[name]
    best = min(replay(trace, other, capacity).missed_cost for other in OTHERS)
    assert replay(trace, Adaptive, capacity).missed_cost <= 1.1 * best


def test_it_beats_lru_where_lru_is_worst() -> None:
    trace = cyclic(60, 66)
    assert replay(trace, LRU, 33).hits == 0
    assert replay(trace, Adaptive, 33).hits > 0.45 * len(trace)


@pytest.mark.parametrize(
    ("trace", "capacity", "expected"),
    [(window(400), 26, {"lru", "arc", "learned"}), (cyclic(80, 80), 40, {"pinned", "learned"})],
)
def test_it_says_whom_it_follows(trace: list[Access], capacity: int, expected: set[str]) -> None:
    made: list[Adaptive] = []

    def make(size: int) -> Adaptive:
        made.append(Adaptive(size))
        return made[0]

    replay(trace, make, capacity)
    assert made[0].following in expected


def test_it_changes_to_a_policy_that_does_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a learned policy that keeps nothing, it must go to another, and follow it exactly."""
    monkeypatch.setattr(Learned, "admits", lambda *_: False)
    trace, capacity = TRACES["popular"]
    best = min(replay(trace, other, capacity).missed_cost for other in (LRU, ARC, CostAware))
    worst = replay(trace, Learned, capacity).missed_cost
    assert worst > 2 * best
    assert replay(trace, Adaptive, capacity).missed_cost < 1.15 * best


def test_once_it_follows_a_policy_the_tier_is_what_that_would_keep() -> None:
    """After a change the tier turns into the followed shadow, key by key."""
    trace, capacity = TRACES["popular"]
    policy = Adaptive(capacity)
    used = 0
    sizes: dict[str, int] = {}
    for access in trace:
        if access.key in sizes:
            policy.touch(access.key)
            continue
        if not policy.admits(access.key, access.nbytes, access.cost):
            continue
        for victim in list(policy.victims()):
            if used + access.nbytes <= capacity:
                break
            used -= sizes.pop(str(victim))
            policy.evict(victim)
        sizes[access.key] = access.nbytes
        used += access.nbytes
        policy.insert(access.key, access.nbytes, access.cost)
    shadow = policy._followed
    alike = sum(key in shadow for key in sizes)
    assert alike >= 0.95 * len(sizes)
    strangers = [key for key in sizes if key not in shadow]
    assert list(policy.victims())[: len(strangers)] == sorted(
        strangers, key=list(policy.victims()).index
    )


def test_of_many_keys_a_sample_is_played(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptive, "_SAMPLED", 128)
    draw = random.Random(4)
    values = [Access("get", f"value {i}", 1, draw.choice((0.2, 1.0, 5.0))) for i in range(4000)]
    trace = draw.choices(values, [1 / (i + 1) ** 0.8 for i in range(4000)], k=20_000)
    capacity = distinct_bytes(trace) // 4
    played = _count_plays(monkeypatch)
    adaptive_cost = replay(trace, Adaptive, capacity).missed_cost
    # Four candidates on one key of eight or so, and the followed one on all.
    assert played() < 2.5 * len(trace)
    best = min(replay(trace, other, capacity).missed_cost for other in OTHERS)
    assert adaptive_cost <= 1.1 * best


def test_the_shadows_of_a_sample_are_smaller_in_proportion() -> None:
    policy = Adaptive(4000)
    for key in range(4000):
        policy.admits(key, 1)
        policy.insert(key, 1)
    assert policy._halvings == 3
    shadows = list(policy._shadows.values())
    assert all(shadow.policy.capacity == 500 for shadow in shadows)
    assert all(400 < sum(key in shadow for key in range(4000)) <= 500 for shadow in shadows)
    for key in range(200, 4000):
        policy.evict(key)
    assert policy._halvings == 0
    assert all(shadow.policy.capacity == 4000 for shadow in shadows)


def test_a_read_is_one_use_though_several_are_under_way() -> None:
    policy = Adaptive(10)
    for key in "abc":
        assert policy.admits(key, 1)
    for key in "bac":
        policy.insert(key, 1)
    assert policy._reuse.now == 3
    policy.insert("b", 1)  # a new value
    assert policy._reuse.now == 4


def test_first_uses_speak_for_no_policy() -> None:
    policy = Adaptive(50)
    for key in range(300):
        if policy.admits(key, 1):
            for victim in list(policy.victims())[: max(len(policy) - 49, 0)]:
                policy.evict(victim)
            policy.insert(key, 1)
    assert all(shadow.missed == 0.0 for shadow in policy._shadows.values())


def _count_plays(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    counted = [0]
    read = adaptive.Shadow.read

    def counting(self: adaptive.Shadow, *given: object) -> None:
        counted[0] += 1
        read(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(adaptive.Shadow, "read", counting)
    return lambda: counted[0]


def test_the_sample_is_the_same_in_every_run() -> None:
    policy = Adaptive(100)
    policy._halvings = 2
    sampled = [i for i in range(1000) if policy._sampled(("kv", i))]
    assert 200 < len(sampled) < 300
    assert sampled[:6] == [3, 13, 18, 21, 26, 28]


def test_a_tier_that_shrinks_shrinks_its_shadows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptive, "_FIRST", 64)
    policy = Adaptive(100)
    for key in range(100):
        policy.admits(key, 1)
        policy.insert(key, 1)
    policy.capacity = 50
    for _ in range(2):
        for key in range(100):
            policy.touch(key)
    # Half of the keys are strangers to the shadow now, and go first.
    assert len(policy._strangers) == 50
    assert set(list(policy.victims())[:50]) == set(policy._strangers)


def test_values_written_are_played_as_written_not_as_missed() -> None:
    policy = Adaptive(10)
    for key in range(200):
        policy.insert(key, 1)
        for victim in list(policy.victims())[: max(len(policy) - 10, 0)]:
            policy.evict(victim)
    assert all(shadow.missed == 0.0 for shadow in policy._shadows.values())
