from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from octavo.media.page import Pixels, TextLayer
from octavo.readers.soundness import Verdict, agreement, judge, provable, without_hidden
from octavo.types import Box

from .drawing import prose, set_block

PAGE = Box(0, 0, 595, 842)


def paint(words: list, *, paper: int = 255) -> Pixels:
    """Stripes of ink where words are."""
    pixels = np.full((842, 595, 3), paper, dtype=np.uint8)
    for word in words:
        b = word.box
        pixels[int(b.top) + 2 : int(b.bottom) - 2, int(b.left) : int(b.right) : 2] = 0
    return pixels


@pytest.fixture
def words() -> list:
    return set_block(prose(40, words=12), 60, 80, width=470)


def verdict(layer: TextLayer, pixels: Pixels) -> Verdict:
    return judge(layer, PAGE, pixels, 1.0).verdict


def test_words_over_ink_are_sound(words: list) -> None:
    assert verdict(TextLayer(tuple(words)), paint(words)) is Verdict.SOUND


def test_a_blank_page(words: list) -> None:
    assert verdict(TextLayer(), paint([])) is Verdict.BLANK


def test_a_scan_has_no_layer(words: list) -> None:
    assert verdict(TextLayer(), paint(words)) is Verdict.UNSOUND


def test_words_over_no_ink(words: list) -> None:
    shifted = set_block(prose(10, words=6), 60, 700, width=200)
    assert verdict(TextLayer(tuple(words)), paint(shifted)) is Verdict.UNSOUND


def test_invisible_words_must_be_proved(words: list) -> None:
    hidden = tuple(replace(word, invisible=True) for word in words)
    assert verdict(TextLayer(hidden), paint(words)) is Verdict.PROVE


def test_a_scan_under_words_must_be_proved(words: list) -> None:
    layer = TextLayer(tuple(words), images=(Box(5, 5, 590, 840),))
    assert verdict(layer, paint(words)) is Verdict.PROVE


def test_characters_without_a_meaning(words: list) -> None:
    broken = tuple(replace(word, broken=0.5) for word in words)
    assert verdict(TextLayer(broken), paint(words)) is Verdict.UNSOUND


def test_a_shifted_alphabet_must_be_proved(words: list) -> None:
    shifted = tuple(
        replace(word, text="".join(chr((ord(c) - 97 + 1) % 26 + 97) for c in word.text))
        for word in words
    )
    assert verdict(TextLayer(shifted), paint(words)) is Verdict.PROVE


def test_a_layer_over_half_of_the_ink(words: list) -> None:
    assert verdict(TextLayer(tuple(words[:150])), paint(words)) is Verdict.PROVE


def test_a_dark_page_is_judged_like_a_light_one(words: list) -> None:
    pixels = 255 - paint(words)
    assert verdict(TextLayer(tuple(words)), pixels) is Verdict.SOUND


def test_invisible_words_among_visible_ones_are_left_out(words: list) -> None:
    mixed = [replace(word, invisible=i % 2 == 0) for i, word in enumerate(words)]
    layer, left_out = without_hidden(TextLayer(tuple(mixed)))
    assert left_out == len(words) // 2
    assert not any(word.invisible for word in layer.words)


def test_agreement() -> None:
    assert agreement("The Binder's craft", "the binders craft.") == 1.0
    assert agreement("The Binder's craft", "xyz qqq") < 0.3
    assert agreement("", "anything") == 0.0


def test_only_scripts_that_can_be_read_are_put_to_the_proof(words: list) -> None:
    assert provable(words)
    assert not provable([replace(word, text="שלום") for word in words])
