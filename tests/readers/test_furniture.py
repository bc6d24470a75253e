from __future__ import annotations

import pytest

from octavo.media.page import Ruling
from octavo.readers.furniture import find_furniture, is_page_number
from octavo.readers.lines import build_lines
from octavo.readers.regions import Region
from octavo.types import Box, Category

from .drawing import prose, set_block, set_line

PAGE = Box(0, 0, 595, 842)


def furniture(words: list, **evidence: object) -> dict[str, Category]:
    found = find_furniture(build_lines(words), PAGE, 10, **evidence)  # type: ignore[arg-type]
    return {line.text: category for line, category in found.lines}


def body() -> list:
    return set_block(prose(45, words=14), 70, 110, width=450)


def test_running_head_with_a_page_number() -> None:
    words = (
        body() + set_line("The Art of Binding", 70, 60, size=9) + set_line("117", 500, 60, size=9)
    )
    assert furniture(words) == {
        "The Art of Binding": Category.PAGE_HEADER,
        "117": Category.PAGE_HEADER,
    }


def test_a_lone_page_number_at_the_foot() -> None:
    assert furniture(body() + set_line("117", 290, 790)) == {"117": Category.PAGE_FOOTER}


def test_an_imprint_at_the_foot() -> None:
    words = body() + set_line("© 2021 The Press. All rights reserved.", 70, 795, size=8)
    assert set(furniture(words).values()) == {Category.PAGE_FOOTER}


def test_a_head_over_a_rule() -> None:
    rule = Ruling(Box(70, 78, 520, 78), horizontal=True)
    words = body() + set_line("OF SEWING AND GLUING 3", 200, 72, size=9)
    assert list(furniture(words, rulings=[rule]).values()) == [Category.PAGE_HEADER]


def test_the_first_line_of_the_text_is_no_head() -> None:
    assert furniture(set_block(prose(60, words=14), 70, 60, width=450)) == {}


def test_a_bold_heading_at_the_top_is_no_head() -> None:
    words = body() + set_line("Sewing on cords", 70, 80, size=14, bold=True)
    assert furniture(words) == {}


def test_the_opening_of_a_letter_is_no_head() -> None:
    words = set_line("TO: MESSRS. BAKER AND SONS", 70, 70) + set_block(prose(20, words=12), 70, 140)
    assert furniture(words) == {}


def test_a_page_of_few_lines_keeps_them() -> None:
    words = set_line("The end", 250, 400, size=24) + set_line("of the story", 250, 440)
    assert furniture(words) == {}


def test_the_layout_model_is_heard() -> None:
    words = body() + set_line("Binding in cloth", 250, 70, size=9)
    region = Region("header", Box(240, 55, 400, 80), 0.9)
    assert furniture(words, regions=[region]) == {"Binding in cloth": Category.PAGE_HEADER}


@pytest.mark.parametrize(
    "text", ["12", "xiv", "- 7 -", "Page 3 of 10", "[4]", "A-3", "3/12", "p. 9"]
)
def test_page_numbers(text: str) -> None:
    assert is_page_number(text)


@pytest.mark.parametrize("text", ["12 apples", "in", "1984 was", "3.1 Method", ""])
def test_not_page_numbers(text: str) -> None:
    assert not is_page_number(text)


def test_a_rule_tells_a_head_that_nothing_else_tells() -> None:
    words = body() + set_line("Of sewing and gluing", 200, 84)
    assert furniture(words) == {}
    rule = Ruling(Box(70, 90, 520, 90), horizontal=True)
    assert list(furniture(words, rulings=[rule]).values()) == [Category.PAGE_HEADER]


def test_an_address_line_with_a_number_is_no_head() -> None:
    letter = set_block(prose(20, words=12), 70, 140)
    assert furniture(letter + set_line("TO: ALL KEEPERS 12", 70, 60)) == {}
    assert furniture(letter + set_line("OF ALL KEEPERS 12", 70, 60)) != {}


def test_line_numbers_in_the_margin() -> None:
    words = body()
    for n in range(1, 8):
        words += set_line(str(5 * n), 40, 118 + 60 * n)
    found = furniture(words)
    assert {str(5 * n) for n in range(1, 8)} <= set(found)
