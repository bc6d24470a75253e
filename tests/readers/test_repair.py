from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from octavo.readers.repair import is_suspect, mend_words
from octavo.types import Box

from .drawing import set_line


@pytest.mark.parametrize("text", ['bene"ts', "signi#cant", "\ufffd0.9393", "e↵orts"])
def test_suspects(text: str) -> None:
    assert is_suspect(set_line(text, 0, 10)[0])


@pytest.mark.parametrize(
    "text", ['"quoted"', "don't", "a/b", "x=3", "50%", "C#", "user@host.org", "e.g."]
)
def test_words_that_are_fine(text: str) -> None:
    assert not is_suspect(set_line(text, 0, 10)[0])


def test_only_suspects_are_read_and_replaced() -> None:
    words = set_line('the bene"ts of linen "rst', 0, 10)
    asked: list[Box] = []

    def read(boxes: Sequence[Box]) -> list[tuple[str, float]]:
        asked.extend(boxes)
        return [("benefits", 0.98), ("first", 0.97)]

    found = [w.text for w in mend_words(words, read)]
    assert found == ["the", "benefits", "of", "linen", "first"]
    assert asked == [words[1].box, words[4].box]


@pytest.mark.parametrize("reading", [("banana", 0.99), ("benefits", 0.3), ("", 0.0)])
def test_a_reading_that_does_not_fit_is_not_taken(reading: tuple[str, float]) -> None:
    words = set_line('bene"ts', 0, 10)
    assert mend_words(words, lambda _: [reading])[0].text == 'bene"ts'


def test_a_lone_broken_sign() -> None:
    word = replace(set_line("\ufffd", 0, 10)[0], broken=1.0)
    assert mend_words([word], lambda _: [("−", 0.9)])[0].text == "−"
