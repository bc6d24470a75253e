"""Answers that say the same over and over end where that is found, and others do not."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import octavo  # noqa: E402
from octavo.errors import ConfigError  # noqa: E402
from octavo.models.loops import LEAST, LONGEST, Loops  # noqa: E402
from octavo.requests import Finish, Request, Sampling  # noqa: E402


def found_at(tokens: list[int], times: int) -> int | None:
    """How many tokens were said when the loop was found."""
    loops = Loops(times)
    return next((at for at, token in enumerate(tokens, 1) if loops.came(token)), None)


def by_definition(tokens: list[int], times: int) -> int | None:
    """The same by looking: some passage stands at the end so often, and is long enough in all."""
    for end in range(1, len(tokens) + 1):
        for p in range(1, min(LONGEST, end) + 1):
            length = max(p * times, LEAST)
            last = tokens[max(end - length, 0) : end]
            if len(last) == length and last[p:] == last[:-p]:
                return end
    return None


@settings(max_examples=150, deadline=None)
@given(
    before=st.lists(st.integers(0, 3), max_size=40),
    passage=st.lists(st.integers(0, 3), min_size=1, max_size=30),
    count=st.integers(1, 60),
    after=st.lists(st.integers(0, 3), max_size=10),
    times=st.integers(2, 6),
)
def test_it_is_found_where_the_definition_finds_it(
    before: list[int], passage: list[int], count: int, after: list[int], times: int
) -> None:
    tokens = [*before, *passage * min(count, 120 // len(passage)), *after]
    assert found_at(tokens, times) == by_definition(tokens, times)


def test_long_passages_and_short_ones() -> None:
    chance = random.Random(0)
    row = [chance.randrange(1000) for _ in range(LONGEST)]
    assert found_at([7, 8, 9, *row * 4], 3) == 3 + 3 * LONGEST
    assert found_at([*row, 1000] * 4, 3) is None  # one longer than is watched for
    assert found_at([5] * 1000, 3) == LEAST
    assert found_at([5] * (LEAST - 1) + [6] + [5] * (LEAST - 1), 3) is None


@pytest.mark.parametrize("family", ["text", "blip"])
def test_an_answer_ends_there_whoever_computes_it(tiny: Any, family: str) -> None:
    """Tiny weights soon say the same for ever: of the engine's families and of others."""
    import numpy as np

    from octavo.requests import Part

    picture = np.zeros((32, 32, 3), np.uint8)
    parts = ("hi",) if family == "text" else (Part.image(picture),)
    new = 200 if family == "text" else 100
    with octavo.load(str(tiny(family))) as model:

        def asked(limit: int) -> Any:
            sampling = Sampling(loop_limit=limit)
            (done,) = model.generate([Request.of(*parts, max_new_tokens=new, sampling=sampling)])
            return done.check()

        free, held = asked(0), asked(3)
        end = found_at(list(free.tokens), 3)
    assert end is not None, "this answer does not loop: choose another question"
    assert free.finish is not Finish.LOOP
    assert held.finish is Finish.LOOP
    assert held.tokens == free.tokens[:end]


def test_a_limit_of_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="loop_limit"):
        Sampling(loop_limit=1)
    with pytest.raises(ConfigError, match="loop_limit"):
        Sampling(loop_limit=-2)
