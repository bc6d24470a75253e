from __future__ import annotations

import pytest

from octavo.media.page import Ruling
from octavo.readers.blocks import Style, split_blocks
from octavo.readers.classify import Kind, PageView, classify
from octavo.readers.lines import build_lines
from octavo.readers.regions import Region
from octavo.types import Box, Category

from .drawing import prose, set_block, set_line

PAGE = Box(0, 0, 595, 842)
COLUMN = Box(50, 0, 450, 842)


def kinds(
    words: list, *, style: Style | None = None, figures: list | None = None, first: bool = False
) -> dict[str, Kind]:
    style = style or Style(10, measured=True)
    blocks = split_blocks(build_lines(words), COLUMN, style)
    largest = max(b.font_size for b in blocks)
    view = PageView(PAGE, style, figures or [], first, largest)
    return {b.text: k for b, k in zip(blocks, classify(blocks, view), strict=True)}


def after(top: float, seed: int = 1) -> list:
    return set_block([f"The {line}" for line in prose(4, words=13, seed=seed)], 50, top, width=400)


@pytest.mark.parametrize(
    ("text", "size", "bold"),
    [
        ("Of sewing", 13, False),
        ("Of sewing", 10, True),
        ("2.1 Of sewing", 11, False),
        ("References", 11, False),
    ],
)
def test_headings(text: str, size: float, bold: bool) -> None:
    found = kinds(set_block([text], 50, 100, size=size, bold=bold) + after(125))
    assert found[text].category is Category.SECTION_HEADER


@pytest.mark.parametrize(
    "text", ["A short last line.", "Baker, Miller, Smith, Jones", "12.5 31.0 44.2"]
)
def test_no_headings(text: str) -> None:
    assert (
        kinds(set_block([text], 50, 100) + after(125))[text].category is not Category.SECTION_HEADER
    )


def test_depth_of_numbered_headings() -> None:
    found = kinds(
        set_block(["2 Sewing"], 50, 100, size=12, bold=True)
        + after(120)
        + set_block(["2.1.3 On cords"], 50, 200, size=11, bold=True)
        + after(220, seed=5)
    )
    assert (found["2 Sewing"].level, found["2.1.3 On cords"].level) == (1, 3)


def test_the_largest_heading_of_the_first_page_is_the_title() -> None:
    words = set_block(["A Treatise on Binding"], 50, 60, size=22) + after(110)
    words += set_block(["Of sewing"], 50, 200, size=13) + after(220, seed=5)
    found = kinds(words, first=True)
    assert found["A Treatise on Binding"].category is Category.TITLE
    assert found["Of sewing"].category is Category.SECTION_HEADER
    assert kinds(words)["A Treatise on Binding"].category is Category.SECTION_HEADER


def test_bullets_and_depths() -> None:
    words = set_line("• fold the sheet", 60, 108) + set_line("• sew the folds", 60, 122)
    words += set_line("• on cords", 84, 136) + set_line("• trim the edge", 60, 150)
    found = kinds(words)
    assert [k.category for k in found.values()] == [Category.LIST_ITEM] * 4
    assert [k.level for k in found.values()] == [1, 1, 2, 1]


def test_a_lone_initial_is_no_list() -> None:
    found = kinds(set_block(["A. Baker wrote this letter to the binder in the town"], 50, 100))
    assert [k.category for k in found.values()] == [Category.TEXT]


def test_captions_stand_near_their_figure() -> None:
    words = set_block(["Figure 2. A sewing frame"], 50, 300)
    near, far = [Box(50, 100, 300, 290)], [Box(50, 600, 300, 800)]
    assert kinds(words, figures=near)["Figure 2. A sewing frame"].category is Category.CAPTION
    assert kinds(words, figures=far)["Figure 2. A sewing frame"].category is not Category.CAPTION


def test_a_sentence_about_a_table_is_no_caption() -> None:
    text = "Table 2 shows the weight of boards"
    found = kinds(set_block([text], 50, 300), figures=[Box(50, 100, 300, 290)])
    assert found[text].category is not Category.CAPTION


def test_footnotes_are_small_low_and_marked() -> None:
    note = "1 See the second part of this work for its history"
    words = after(100) + set_block([note], 50, 760, size=8)
    assert kinds(words)[note].category is Category.FOOTNOTE
    assert (
        kinds(after(400) + set_block([note], 50, 100, size=8))[note].category
        is not Category.FOOTNOTE
    )


def test_a_note_under_a_short_rule() -> None:
    note = "See the second part of this work for its history"
    rule = Ruling(Box(50, 752, 150, 752), horizontal=True)
    words = after(100) + set_block([note], 50, 760, size=8)
    assert kinds(words, style=Style(10, True, (rule,)))[note].category is Category.FOOTNOTE


def test_formulas() -> None:
    text = "E = m ∑ x − β = 0"
    assert kinds(after(100) + set_block([text], 200, 200))[text].category is Category.FORMULA


def test_the_layout_model_tells_headings_in_scans() -> None:
    text = "Of sewing and gluing"
    words = set_block([text], 50, 100, size=11.5) + after(125)
    style = Style(10, False, (), (Region("title", Box(45, 95, 200, 115), 0.95),))
    plain = Style(10, measured=False)
    assert kinds(words, style=plain)[text].category is Category.TEXT
    assert kinds(words, style=style)[text].category is Category.SECTION_HEADER
