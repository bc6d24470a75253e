"""The estimate of uses again, against sequences whose intervals are known."""

from __future__ import annotations

import random

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from octavo.memory.prediction import reuse as module
from octavo.memory.prediction.reuse import _STEPS, _WIDTHS_A, Reuse, _rates, step_of


@given(st.integers(0, 2**24))
def test_steps_cover_all_ages_in_order(age: int) -> None:
    starts = np.concatenate([[0], np.cumsum(_WIDTHS_A)])
    expected = min(int(np.searchsorted(starts, age, side="right")) - 1, _STEPS - 1)
    assert step_of(age) == expected
    assert step_of(age + 1) in (expected, expected + 1)


def test_the_index_is_the_best_ratio_of_uses_to_time() -> None:
    """Against a loop over every time to give up, straight from the definition."""
    draw = np.random.default_rng(1)
    passed_ca = draw.uniform(0, 50, (6, _STEPS))
    reused_ca = passed_ca * draw.choice([0.0, 0.05, 0.5], (6, _STEPS))
    octaves_c = np.array([0, 1, 1, 2, 3, 3])
    rates_ca = _rates(octaves_c, reused_ca, passed_ca)
    coarse = {
        o: _chances(reused_ca[octaves_c == o].sum(0), passed_ca[octaves_c == o].sum(0), 0.02)
        for o in range(4)
    }
    for c in range(6):
        chances = _chances(reused_ca[c], passed_ca[c], coarse[int(octaves_c[c])])
        for age in range(0, _STEPS, 7):
            alive, gained, spent, best = 1.0, 0.0, 0.0, 0.0
            for later in range(age, _STEPS):
                gained += alive * chances[later]
                spent += alive * _WIDTHS_A[later] * (1 - chances[later] / 2)
                alive *= 1 - chances[later]
                best = max(best, gained / spent)
            if np.prod(1 - chances[:age]) > 1e-9:
                assert rates_ca[c, age] == pytest.approx(best, rel=1e-4)


def _chances(reused: np.ndarray, passed: np.ndarray, prior: np.ndarray | float) -> np.ndarray:
    return np.minimum((reused + 2 * prior) / (passed + 2), 0.98)


def test_on_a_cycle_the_one_longest_unused_is_next() -> None:
    reuse = Reuse()
    for _ in range(60):
        for key in range(100):
            reuse.observe(key, 1, 1.0)
    rates = [reuse.rate(key) for key in range(100)]
    assert rates[0] == max(rates)
    assert rates[0] > 3 * rates[50] > 3 * rates[99]
    # Its use comes within the age step, of a sixth of the age at most.
    assert 1 / rates[0] < 100 / 6


def test_like_values_share_what_was_learned_of_them() -> None:
    """Small ones are used again soon, large ones never: a new key is judged by its size."""
    reuse = Reuse()
    for turn in range(3000):
        reuse.observe(f"large {turn}", 10**6, 1.0)
        reuse.observe(f"small {turn}", 10, 1.0)
        reuse.observe(f"small {turn}", 10, 1.0)
    reuse.observe("new large", 10**6, 1.0)
    reuse.observe("new small", 10, 1.0)
    assert reuse.rate("new small") > 0.1
    assert reuse.rate("new large") < 0.01 * reuse.rate("new small")


def test_a_key_used_once_is_believed_less_than_a_proven_one() -> None:
    """On a cycle a new key would look as good as one just used; a flood of such must not win."""
    reuse = Reuse()
    for _ in range(40):
        for key in range(100):
            reuse.observe(key, 1, 1.0)
    reuse.observe("new", 1, 1.0)
    assert 0 < reuse.rate("new") < 0.5 * reuse.rate(99)


def test_the_chance_of_independent_uses_is_their_rate() -> None:
    """Each use is key 0 with probability 1/20: its rate must be that, at any age."""
    draw = random.Random(1)
    reuse = Reuse()
    often = 0
    for _ in range(40_000):
        key = 0 if draw.random() < 0.05 else draw.randrange(1, 100_000)
        reuse.observe(key, 10**6 if key == 0 else 1, 1.0)
        often += key == 0
    for _ in range(10):
        reuse.observe(-1, 1, 1.0)
    assert reuse.rate(0) == pytest.approx(0.05, rel=0.5)


def test_habits_change() -> None:
    reuse = Reuse()
    for turn in range(20_000):
        reuse.observe(turn // 2, 1, 1.0)
    reuse.observe("new", 1, 1.0)
    once_rate = reuse.rate("new")
    for turn in range(20_000, 60_000):
        reuse.observe(turn, 1, 1.0)
    reuse.observe("newer", 1, 1.0)
    assert reuse.rate("newer") < 0.05 * once_rate


def test_keys_beyond_the_bound_are_forgotten_longest_unused_first() -> None:
    reuse = Reuse()
    reuse.bound(0)
    for key in range(2000):
        reuse.observe(key, 1, 1.0)
    assert reuse.last_use(1999) == 2000
    assert reuse.last_use(1600) > 0
    assert reuse.last_use(1599) == -1
    assert reuse.rate(1599) == 0.0


def test_the_counts_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without decay, against a plain list of all intervals, ended and not."""
    monkeypatch.setattr(module, "_DECAY", 1.0)
    draw = random.Random(3)
    reuse = Reuse()
    reuse.bound(1000)
    last: dict[int, int] = {}
    used_at, gone_at = [], []
    for now in range(1, 12_001):
        key = draw.randrange(900)
        if key in last:
            used_at.append(step_of(now - last[key]))
        last[key] = now
        reuse.observe(key, draw.choice((1, 1000)), 1.0)
        if draw.random() < 0.02:
            gone = draw.choice(list(last))
            gone_at.append(step_of(now - last.pop(gone)))
            reuse.forget(gone)
    reuse._estimate()
    gone_at += [step_of(reuse.now - then) for then in last.values()]
    kinds = [kind for group in reuse._groups.values() for kind in group.classes if kind]
    used, gone = np.array(used_at), np.array(gone_at)
    for step in range(_STEPS):
        reused = sum(kind.reused_a[step] for kind in kinds)
        passed = sum(kind.passed_a[step] for kind in kinds)
        assert reused == (used == step).sum()
        assert passed == (used >= step).sum() + (gone > step).sum()
