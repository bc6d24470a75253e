from __future__ import annotations

import random

from octavo.media.page import Ruling
from octavo.readers.lines import build_lines, is_rtl
from octavo.types import Box

from .drawing import prose, set_block, set_line


def test_words_in_any_order_become_lines_in_reading_order() -> None:
    lines = prose(5)
    words = set_block(lines, 50, 100)
    random.Random(7).shuffle(words)
    assert [line.text for line in build_lines(words)] == lines


def test_a_narrow_gutter_separates_columns_of_justified_text() -> None:
    left = set_block(prose(8, words=9, seed=3), 50, 100, width=240)
    right = set_block(prose(8, words=9, seed=5), 302, 104, width=240)  # 12 pt gutter, baselines off
    lines = build_lines(left + right)
    assert len(lines) == 16
    assert all(line.box.right < 296 or line.box.left > 296 for line in lines)


def test_a_wide_space_in_one_line_is_no_gutter() -> None:
    words = set_block(prose(6), 50, 100)
    words += set_line("Chapter", 50, 200) + set_line("Nine", 50 + 35 + 12, 200)
    assert "Chapter Nine" in [line.text for line in build_lines(words)]


def test_an_upright_ruling_separates_cells() -> None:
    words = set_line("left", 50, 100) + set_line("right", 74, 100)
    assert len(build_lines(words)) == 1
    rule = Ruling(Box(72, 80, 72, 120), horizontal=False)
    assert len(build_lines(words, [rule])) == 2


def test_superscripts_attach_without_a_space() -> None:
    words = set_line("linen", 50, 100) + set_line("2", 75.5, 96, size=6)
    assert [line.text for line in build_lines(words)] == ["linen2"]


def test_a_drop_cap_goes_to_its_line() -> None:
    words = set_line("T", 50, 128, size=34)
    words += set_block(["he binder folds", "each sheet until", "its leaves lie"], 70, 100)
    words += set_block(["in order and sews"], 50, 136)
    assert build_lines(words)[0].text == "The binder folds"


def test_right_to_left_lines_are_read_from_the_right() -> None:
    words = set_line("ספר Python כריכת", 50, 100)
    line = build_lines(words)[0]
    assert line.rtl
    assert line.text == "כריכת Python ספר"


def test_direction_follows_most_letters() -> None:
    assert is_rtl("שלום abc")
    assert not is_rtl("abcdef של")
    assert not is_rtl("12")
