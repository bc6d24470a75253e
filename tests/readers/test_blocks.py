from __future__ import annotations

from octavo.media.page import Ruling
from octavo.readers.blocks import Style, body_size, split_blocks
from octavo.readers.lines import build_lines
from octavo.types import Box

from .drawing import prose, set_block, set_line

COLUMN = Box(50, 0, 250, 800)
STYLE = Style(10, measured=True)


def blocks(words: list, style: Style = STYLE) -> list[str]:
    return [block.text for block in split_blocks(build_lines(words), COLUMN, style)]


def sentence(seed: int) -> list[str]:
    lines = prose(3, seed=seed)
    return [lines[0].capitalize(), lines[1], lines[2] + "."]


def test_white_room_ends_a_paragraph() -> None:
    first, second = sentence(2), sentence(4)
    words = set_block(first, 50, 100, width=200) + set_block(second, 50, 152, width=200)
    assert blocks(words) == [" ".join(first), " ".join(second)]


def test_an_indented_first_line_begins_a_paragraph() -> None:
    first, second = sentence(2), sentence(4)
    words = set_block(first, 50, 100, width=200)
    words += set_line(second[0], 62, 100 + 8 + 36, fill=188)
    words += set_block(second[1:], 50, 100 + 48, width=200)
    assert blocks(words) == [" ".join(first), " ".join(second)]


def test_hanging_entries_are_told_apart() -> None:
    words = []
    for i in range(3):
        words += set_line(f"Author{i} wrote the first line of it", 50, 108 + 36 * i, fill=200)
        words += set_line("and this is the second line here", 64, 120 + 36 * i, fill=186)
        words += set_line("the third", 64, 132 + 36 * i)
    assert len(blocks(words)) == 3


def test_numbered_items_without_full_stops_are_told_apart() -> None:
    words = set_block(["1. fold the sheet", "2. sew the folds", "3. trim the edge"], 50, 100)
    assert len(blocks(words)) == 3


def test_a_change_of_size_or_weight_ends_a_block() -> None:
    words = set_block(["A larger heading"], 50, 100, size=13) + set_block(sentence(1), 50, 116)
    assert len(blocks(words)) == 2
    words = set_block(["A bold heading"], 50, 100, bold=True) + set_block(sentence(1), 50, 112)
    assert len(blocks(words)) == 2


def test_ocr_sizes_may_waver_within_a_paragraph() -> None:
    words = set_line(prose(1)[0], 50, 108, size=10) + set_line(
        prose(1, seed=9)[0], 50, 120, size=11.5
    )
    assert len(blocks(words, Style(10, measured=False))) == 1


def test_ocr_weight_may_waver_in_the_middle_of_a_sentence() -> None:
    lines = prose(3, words=7)
    words = set_line(lines[0], 50, 108, fill=200)
    words += set_line("OPM " + lines[1], 50, 120, fill=200, bold=True)
    assert len(blocks(words, Style(10, measured=False))) == 1
    assert len(blocks(words, STYLE)) == 2


def test_a_rule_between_lines_divides_and_an_underline_does_not() -> None:
    words = set_block(prose(2), 50, 100)
    rule = Ruling(Box(40, 110, 300, 110), horizontal=True)
    assert len(blocks(words, Style(10, True, (rule,)))) == 2
    under = Ruling(Box(50, 110, 90, 110), horizontal=True)
    assert len(blocks(words, Style(10, True, (under,)))) == 1


def test_body_size_is_that_of_most_letters() -> None:
    words = set_block(prose(9), 50, 100, size=9) + set_block(["A title of words"], 50, 60, size=24)
    assert body_size(build_lines(words)) == 9
    assert body_size([]) > 0
