from __future__ import annotations

from dataclasses import replace

from octavo.media.page import Word
from octavo.readers.compose import Parts, Picture, compose
from octavo.readers.lines import build_lines
from octavo.readers.tables import FoundTable
from octavo.types import Box, Category, Table, TableCell

from .drawing import prose, set_block, set_line


def parts(words: list[Word], **more: object) -> Parts:
    lines = build_lines([word for word in words if not word.angle])
    base = Parts(1, 595, 842, words, lines, (), (), (), (), True)
    return replace(base, **more)  # type: ignore[arg-type]


def sentences(seed: int) -> list[str]:
    lines = prose(12, words=7, seed=seed)
    return [lines[0].capitalize(), *lines[1:-1], lines[-1] + "."]


def test_a_page_in_order() -> None:
    left, right = sentences(2), sentences(5)
    words = (
        set_line("On Binding Books by Hand", 120, 100, size=20)
        + set_block(left, 60, 150, width=220)
        + set_block(right, 310, 150, width=220)
        + set_line("1 A note of small print about the sheets", 60, 720, size=7.5)
        + set_line("14", 290, 800)
    )
    found = compose(parts(words))
    assert [e.category for e in found] == [
        Category.TITLE,
        Category.TEXT,
        Category.TEXT,
        Category.FOOTNOTE,
        Category.PAGE_FOOTER,
    ]
    assert found[1].text == " ".join(left)
    assert found[2].text == " ".join(right)
    assert [e.id for e in found] == [f"p1-e{i}" for i in range(1, 6)]


def test_a_paragraph_goes_on_in_the_next_column() -> None:
    left = prose(12, words=7, seed=2)
    left[0] = left[0].capitalize()
    words = set_block(left, 60, 150, width=220) + set_block(sentences(5), 310, 150, width=220)
    found = compose(parts(words))
    assert not found[1].continues  # begins with a capital
    right = prose(12, words=7, seed=5)
    found = compose(
        parts(set_block(left, 60, 150, width=220) + set_block(right, 310, 150, width=220))
    )
    assert found[1].continues


def test_captions_are_bound_to_what_they_name() -> None:
    picture = Picture(Box(60, 100, 300, 250), (), 0.9)
    grid = Table(1, 2, (TableCell(0, 0, "a"), TableCell(0, 1, "b")))
    table = FoundTable(Box(60, 320, 300, 380), grid, 0.9, "ruled")
    words = set_line("Figure 1. A press", 60, 268) + set_line("Table 1. Weights", 60, 312)
    words += set_block(sentences(3), 60, 420, width=220)
    found = compose(parts(words, pictures=(picture,), tables=(table,)))
    by_category = {e.category: e for e in found}
    captions = {e.text: e.caption_of for e in found if e.category is Category.CAPTION}
    assert captions == {
        "Figure 1. A press": by_category[Category.PICTURE].id,
        "Table 1. Weights": by_category[Category.TABLE].id,
    }


def test_words_in_a_picture_are_its_children() -> None:
    inside = tuple(set_line("north wing", 100, 150))
    found = compose(parts([], pictures=(Picture(Box(60, 100, 300, 250), inside, 0.9),)))
    assert [child.text for child in found[0].children] == ["north wing"]
    assert found[0].children[0].id == "p1-e1.1"


def test_a_stamp_in_the_margin_is_furniture() -> None:
    stamp = [replace(set_line("arXiv:1234", 20, 400)[0], angle=90.0, box=Box(20, 300, 32, 400))]
    found = compose(parts(stamp + set_block(sentences(3), 60, 420, width=220)))
    assert found[0].category is Category.PAGE_HEADER


def test_markers_and_depths_of_list_items() -> None:
    words = set_line("1. fold the sheet", 60, 108) + set_line("2. sew the folds", 60, 122)
    found = compose(parts(words))
    assert [(e.marker, e.text) for e in found] == [
        ("1.", "fold the sheet"),
        ("2.", "sew the folds"),
    ]


def test_an_empty_page() -> None:
    assert compose(parts([])) == ()


def test_the_caption_of_a_sideways_table_is_no_stamp() -> None:
    caption = [replace(set_line("Table", 40, 400)[0], angle=90.0, box=Box(40, 300, 50, 400))]
    table = FoundTable(Box(56, 100, 200, 420), Table(1, 1, (TableCell(0, 0, "a"),)), 0.9, "ruled")
    found = compose(parts(caption + set_block(sentences(3), 240, 420, width=220), tables=(table,)))
    assert all(e.category is not Category.PAGE_HEADER for e in found)
