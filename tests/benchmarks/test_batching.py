"""The batching benchmark asks what it says and counts what was asked for."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from benchmarks.batching_ways import (  # noqa: E402
    Answers,
    alone_way,
    lengths,
    octavo_way,
    pages,
    plain_module,
    static_way,
)

import octavo  # noqa: E402
from benchmarks import batching  # noqa: E402


def test_lengths_are_like_pages() -> None:
    made = lengths(48)
    assert min(made) >= 200
    assert 3500 < max(made) <= 4000
    assert statistics.median(made) < 450
    assert sum(length > 2000 for length in made) > 3
    assert made != sorted(made)
    assert made == lengths(48)


def test_pages_have_their_lengths_and_no_two_begin_alike() -> None:
    def prepare(request: Any) -> list[int]:
        text = str(request.parts[0].value)
        return [ord(letter) for letter in text[: len(text) // 3]]

    made = [page for edition in range(3) for page in pages(prepare, 8, 0.25, 400, edition)]
    totals = [len(page.ids) + page.new for page in made]
    assert totals == pytest.approx(lengths(8, 100, 400) * 3, rel=0.05)
    assert all(page.request.max_new_tokens == page.new for page in made)
    assert len({page.ids[:20] for page in made}) == len(made)


def test_rates_count_what_was_asked_for() -> None:
    assert Answers(2.0, {0: [1, 2], 1: [3] * 6}).rate == 4
    one = {"octavo": Answers(1, {0: [1] * 8}), "static": Answers(2, {0: [1] * 8})}
    found = batching._rates([one | {"alone": Answers(8, {0: [1] * 8})}] * 2)
    assert (found["over_static"], found["over_alone"]) == (2, 8)


def test_equality_is_of_answers_and_of_what_comes_before_they_differ() -> None:
    ours, theirs = Answers(1, {0: [1, 2, 3], 1: [4, 5]}), Answers(1, {0: [1, 9, 3], 1: [4, 5]})
    assert batching._equal(ours, theirs) == {"answers": 0.5, "tokens": 0.6}


def test_all_ways_give_the_same_answers_of_the_planned_lengths(tmp_path: Path) -> None:
    folder = batching.saved("tiny", tmp_path / "tiny", torch.float32)
    with octavo.load(str(folder), device="cpu") as model:
        assert model.processor.end_tokens == frozenset()

        def prepare(request: Any) -> list[int]:
            ids: list[int] = model.processor.prepare(request, None).inputs["input_ids"][0].tolist()
            return ids

        asked = dict(enumerate(pages(prepare, 10, 0.25, 120)))
        module = plain_module(folder, torch.float32, "cpu")
        made = [octavo_way(model, asked), static_way(module, asked), alone_way(module, asked)]
    for answers in made:
        assert {n: len(tokens) for n, tokens in answers.tokens.items()} == {
            n: page.new for n, page in asked.items()
        }
        assert batching._equal(answers, made[-1])["answers"] == 1
    wasted = made[1].facts["answer_tokens_not_asked_for"]
    first, rest = [asked[n].new for n in range(8)], [asked[n].new for n in (8, 9)]
    assert wasted == 8 * max(first) - sum(first) + 2 * max(rest) - sum(rest)
