"""Tables are found where they are drawn, cut into the cells that were drawn, and nowhere else."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from octavo.media.page import Ruling, Word
from octavo.readers.tables import FoundTable, find_tables
from octavo.types import Box
from tests.readers.tables.table_cases import (
    GROUPED,
    LABELS,
    MODELS,
    PAGE,
    SALES,
    SECTIONS,
    WIDE,
    WRAPPED,
    Case,
    Grid,
    Sheet,
    cases,
    expanded,
    score,
    table,
)

CASES = cases()


def grid_of(found: FoundTable) -> Grid:
    cells = [(c.row, c.col, c.row_span, c.col_span, c.text) for c in found.table.cells]
    return expanded(found.table.rows, found.table.cols, cells)


def found_on(sheet: Sheet, **options: list[Box]) -> list[FoundTable]:
    return find_tables(sheet.words, sheet.rulings, page=PAGE, **options)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_drawn_tables_come_back_cell_by_cell(case: Case) -> None:
    found = found_on(case.sheet)
    assert len(found) == len(case.grids)
    for one, wanted in zip(found, case.grids, strict=True):
        assert score([grid_of(one)], wanted) == 1.0
        assert (one.table.rows, one.table.cols) == (len(wanted), len(wanted[0]))
        assert 0.5 < one.confidence <= 1


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cells_tile_the_table(case: Case) -> None:
    for found in found_on(case.sheet):
        places = [
            (row, col)
            for cell in found.table.cells
            for row in range(cell.row, cell.row + cell.row_span)
            for col in range(cell.col, cell.col + cell.col_span)
        ]
        assert sorted(places) == [
            (row, col) for row in range(found.table.rows) for col in range(found.table.cols)
        ]


@pytest.mark.parametrize("scale", [0.3, 4.0])
def test_units_do_not_matter(scale: float) -> None:
    for case in CASES[::4]:
        words = [
            replace(
                w,
                box=w.box.scale(scale),
                baseline=w.baseline * scale,
                font_size=w.font_size * scale,
            )
            for w in case.sheet.words
        ]
        rulings = [Ruling(r.box.scale(scale), r.horizontal) for r in case.sheet.rulings]
        found = find_tables(words, rulings, page=PAGE.scale(scale))
        assert [f.table.cols for f in found] == [len(grid[0]) for grid in case.grids]
        for one, wanted in zip(found, case.grids, strict=True):
            assert score([grid_of(one)], wanted) == 1.0


def test_order_of_the_words_does_not_matter() -> None:
    for case in CASES[::5]:
        words = list(case.sheet.words)
        random.Random(1).shuffle(words)
        mixed = find_tables(words, case.sheet.rulings, page=PAGE)
        assert [grid_of(f) for f in mixed] == [grid_of(f) for f in found_on(case.sheet)]


def sideways(box: Box) -> Box:
    """The page turned a quarter counter-clockwise, so that its text runs upwards."""
    return Box(box.top, PAGE.right - box.right, box.bottom, PAGE.right - box.left)


def test_a_table_printed_sideways() -> None:
    sheet = Sheet()
    wanted, box = table(sheet, 90, 100, WIDE, MODELS, style="booktabs", align="lrrr")
    words = [replace(w, box=sideways(w.box), angle=90.0) for w in sheet.words]
    rulings = [Ruling(sideways(r.box), not r.horizontal) for r in sheet.rulings]
    (found,) = find_tables(words, rulings, page=Box(0, 0, PAGE.bottom, PAGE.right))
    assert score([grid_of(found)], wanted) == 1.0
    assert found.box.covered_by(sideways(box).expand(2)) > 0.99


# -- what is in the cells -------------------------------------------------------------------


def test_spans_and_header_rows_of_grouped_heads() -> None:
    case = next(c for c in CASES if c.name == "booktabs, grouped heads")
    (found,) = found_on(case.sheet)
    wide = {c.text: (c.col, c.col_span) for c in found.table.cells if c.col_span > 1}
    assert wide == {"Validation": (1, 2), "Test set": (3, 2)}
    assert {c.row for c in found.table.cells if c.header} == {0, 1}


def test_section_rows_cover_all_columns() -> None:
    sheet = Sheet()
    table(sheet, 90, 100, (120, 60, 60), SECTIONS, style="booktabs", align="lrr")
    (found,) = found_on(sheet)
    spans = {c.text: c.col_span for c in found.table.cells if c.col_span > 1}
    assert spans == {"Indoor experiments": 3, "Outdoor experiments": 3}


def test_empty_cells_stay() -> None:
    sheet = Sheet()
    table(sheet, 90, 100, WIDE, SALES, style="booktabs", align="lrrr")
    (found,) = found_on(sheet)
    assert grid_of(found)[3] == ["East", "", "$42,010", "27.2%"]


def test_caption_and_note_stay_outside() -> None:
    for name in ("booktabs", "ruled", "plain numbers"):
        (found,) = found_on(next(c for c in CASES if c.name == name).sheet)
        text = " ".join(c.text for c in found.table.cells)
        assert "Table 1" not in text
        assert "Note" not in text


def test_hyphenated_wraps_are_mended_and_superscripts_stay_attached() -> None:
    sheet = Sheet()
    rows = [["Part", "What it is"], ["A", "galva-\nnized steel"], ["B", "pre-2010 stock"]]
    table(sheet, 90, 100, (60, 120), rows, style="ruled")
    end = next(w for w in sheet.words if w.text == "A").box
    mark = Box(end.right, end.top - 2, end.right + 3, end.top + 4)
    sheet.words.append(Word("a", mark, end.top + 2.8, 6.0))
    (found,) = found_on(sheet)
    assert grid_of(found)[1:] == [["Aa", "galvanized steel"], ["B", "pre-2010 stock"]]


# -- hints ----------------------------------------------------------------------------------


def test_a_rough_hint_finds_a_table_that_words_alone_do_not_prove() -> None:
    rows = [["Term", "Meaning"], ["Alpha", "first of the letters"], ["Beta", "the one after it"]]
    sheet = Sheet()
    wanted, box = table(sheet, 90, 200, (80, 160), rows, style="plain")
    assert not found_on(sheet)
    hint = Box(box.left - 12, box.top - 5, box.right + 30, box.bottom + 6)
    (found,) = found_on(sheet, hints=[hint])
    assert score([grid_of(found)], wanted) == 1.0


def test_a_hint_that_takes_in_the_caption_is_shrunk() -> None:
    case = next(c for c in CASES if c.name == "plain numbers")
    top = min(w.box.top for w in case.sheet.words if w.text == "Table")
    bottom = max(w.box.bottom for w in case.sheet.words if w.text == "Note:")
    (found,) = found_on(case.sheet, hints=[Box(80, top - 2, 560, bottom + 2)])
    assert score([grid_of(found)], case.grids[0]) == 1.0
    assert grid_of(found)[0][0] == "Region"


def test_a_hint_over_running_text_is_no_table() -> None:
    sheet = Sheet()
    sheet.prose(72, 540, 100, 20)
    assert not found_on(sheet, hints=[Box(70, 90, 545, 250)])


def test_words_in_excluded_boxes_are_no_table() -> None:
    case = next(c for c in CASES if c.name == "ruled")
    assert not found_on(case.sheet, exclude=[PAGE])


# -- what is no table -----------------------------------------------------------------------


def two_columns(sheet: Sheet) -> None:
    sheet.prose(60, 295, 80, 50)
    sheet.prose(317, 552, 80, 50, start=17)


def two_columns_between_rules(sheet: Sheet) -> None:
    sheet.level(60, 552, 62)
    two_columns(sheet)
    sheet.level(60, 552, 700)


def three_columns(sheet: Sheet) -> None:
    for at in range(3):
        sheet.prose(50 + at * 175, 205 + at * 175, 80, 50, start=at * 9)


def numbered_list(sheet: Sheet) -> None:
    for at in range(12):
        sheet.text(72, 100 + 14 * at, f"{at + 1}.")
        sheet.text(100, 100 + 14 * at, f"item {at} of it")


def contents(sheet: Sheet) -> None:
    for at in range(15):
        sheet.text(72, 100 + 14 * at, f"{at + 1}")
        sheet.text(100, 100 + 14 * at, "Chapter of things")
        sheet.text(500, 100 + 14 * at, str(3 + at * 7))


def dotted_contents(sheet: Sheet) -> None:
    for at in range(15):
        sheet.text(72, 100 + 14 * at, f"Chapter {at} " + ". " * 40)
        sheet.text(500, 100 + 14 * at, str(90 - at))


def references(sheet: Sheet) -> None:
    for at in range(10):
        sheet.text(72, 100 + 36 * at, f"[{at + 1}]")
        sheet.prose(95, 540, 100 + 36 * at, 3, start=at)


def addresses(sheet: Sheet) -> None:
    for at, (left, right) in enumerate(
        [
            ("Anna Berg", "Carl Dahl"),
            ("Elm Road 4", "Oak Street 17"),
            ("Oslo", "Bergen"),
            ("Norway", "Norway"),
        ]
    ):
        sheet.text(90, 100 + 13 * at, left)
        sheet.text(330, 100 + 13 * at, right)


def form(sheet: Sheet) -> None:
    for at, (name, value) in enumerate(
        [
            ("Name:", "Jo Smith"),
            ("Born:", "1.2.1980"),
            ("Place:", "Leeds"),
            ("Sex:", "m"),
            ("Height:", "180"),
        ]
    ):
        sheet.text(90, 100 + 16 * at, name)
        sheet.text(190, 100 + 16 * at, value)


def chart(sheet: Sheet) -> None:
    """Axis labels and grid lines."""
    for at in range(6):
        sheet.text(90, 300 - 30 * at, f"{at * 20}")
        sheet.level(110, 400, 297 - 30 * at)
        sheet.text(115 + 55 * at, 315, f"{1990 + at}")
        sheet.upright(115 + 55 * at, 147, 297)
    sheet.text(180, 200, "ours")
    sheet.text(300, 230, "theirs")


def boxed_text(sheet: Sheet) -> None:
    sheet.prose(80, 500, 120, 8)
    for y in (108, 216):
        sheet.level(70, 510, y)
    for x in (70, 510):
        sheet.upright(x, 108, 216)


def underlined(sheet: Sheet) -> None:
    for at in range(6):
        end = sheet.text(72, 100 + 14 * at, "a line of underlined text")
        sheet.level(72, end, 101.2 + 14 * at)


def equations(sheet: Sheet) -> None:
    for at in range(5):
        sheet.text(200, 120 + 40 * at, "y = a + b x")
        sheet.text(520, 120 + 40 * at, f"({at + 1})")
        sheet.prose(72, 540, 134 + 40 * at, 1, start=at)


@pytest.mark.parametrize(
    "draw",
    [
        two_columns, two_columns_between_rules, three_columns, numbered_list, contents,
        dotted_contents, references, addresses, form, chart, boxed_text, underlined, equations,
    ],
)  # fmt: skip
def test_no_table_is_seen_in(draw: Callable[[Sheet], None]) -> None:
    sheet = Sheet()
    draw(sheet)
    assert found_on(sheet) == []


@pytest.mark.parametrize("words", [[], [Word("one", Box(1, 1, 9, 9), 8, 10)]])
def test_nearly_empty_pages(words: list[Word]) -> None:
    line = Ruling(Box(0, 5, 600, 5), True)
    assert find_tables(words, [line], page=PAGE, hints=[PAGE]) == []


def test_words_without_size_do_no_harm() -> None:
    """Broken fonts give boxes without height or width."""
    flat = [Word("x", Box(10, 10 * i, 10, 10 * i), 10 * i, 0.0) for i in range(20)]
    assert find_tables(flat, [], page=PAGE) == []


def test_grouped_cases_differ() -> None:
    """The score itself tells a merged cell from a right one."""
    right = [[str(c) for c in row if isinstance(c, str)] for row in (*LABELS, *WRAPPED[:0])]
    merged = [[row[0] + " " + row[1], row[2]] for row in right]
    assert score([right], right) == 1.0
    assert score([merged], right) < 0.4
    assert GROUPED
