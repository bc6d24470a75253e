"""No text is lost in a table, and what is no table stays text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.media.page import Ruling, Word
from octavo.readers.tables import FoundTable, aligned, find_tables
from octavo.types import Box
from tests.readers.tables.held_out import held_out
from tests.readers.tables.table_cases import LABELS, PAGE, Case, Sheet, Spec, cases, table


def letters(texts: list[str]) -> Counter[str]:
    return Counter(char for text in texts for char in text if char.isalnum())


def lost(found: list[FoundTable], words: list[Word]) -> Counter[str]:
    """Letters with their centre in the box of a table that none of the tables has."""
    inside = [w.text for w in words if any(f.box.contains_center(w.box) for f in found)]
    return letters(inside) - letters([c.text for f in found for c in f.table.cells])


@pytest.mark.parametrize("case", [*cases(), *held_out()], ids=lambda case: case.name)
def test_no_word_in_a_drawn_table_is_lost(case: Case) -> None:
    page = Box(0, 0, PAGE.bottom, PAGE.right) if case.sheet.turned else PAGE
    found = find_tables(case.sheet.words, case.sheet.rulings, page=page)
    assert found
    assert not lost(found, case.sheet.words)


@st.composite
def stray_words(draw: st.DrawFn) -> list[Word]:
    """Words anywhere, level or turned, small or large."""
    out = []
    for at in range(draw(st.integers(1, 8))):
        x, y = draw(st.floats(60, 540)), draw(st.floats(60, 320))
        size = draw(st.sampled_from([3.0, 6.0, 10.0, 16.0]))
        angle = draw(st.sampled_from([0.0, 0.0, 90.0, -90.0]))
        wide, high = (5 * size, size) if not angle else (size, 5 * size)
        box = Box(x, y, x + wide, y + high)
        out.append(Word(f"stray{at}", box, y + 0.8 * high, size, angle=angle))
    return out


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([*cases(), *held_out()]), stray_words())
def test_no_stray_word_is_lost(case: Case, strays: list[Word]) -> None:
    words = [*case.sheet.words, *strays]
    found = find_tables(words, case.sheet.rulings, page=PAGE)
    assert not lost(found, words)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(20, 560), st.floats(20, 400), st.sampled_from(["ab", "12", "x-", "..."])
        ),
        min_size=4,
        max_size=40,
    ),
    st.lists(st.tuples(st.floats(20, 560), st.floats(20, 400), st.booleans()), max_size=16),
)
def test_no_word_is_lost_on_a_page_of_chance(
    spots: list[tuple[float, float, str]], lines: list[tuple[float, float, bool]]
) -> None:
    words = [
        Word(f"{text}{at}", Box(x, y, x + 18, y + 10), y + 8, 10.0)
        for at, (x, y, text) in enumerate(spots)
    ]
    rulings = [
        Ruling(Box(x, y, x + 160, y + 1) if level else Box(x, y, x + 1, y + 160), level)
        for x, y, level in lines
    ]
    found = find_tables(words, rulings, page=PAGE, hints=[Box(50, 50, 500, 300)])
    assert not lost(found, words)


def test_a_table_that_lost_a_word_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = aligned.structure

    def forgetful(*args: Any) -> aligned.Aligned | None:
        made = whole(*args)
        if made is None:
            return None
        cells = tuple(replace(c, text="") if c.text == "Kenya" else c for c in made.table.cells)
        return replace(made, table=replace(made.table, cells=cells))

    case = next(c for c in cases() if c.name == "booktabs, words only")
    assert find_tables(case.sheet.words, case.sheet.rulings, page=PAGE)
    monkeypatch.setattr(aligned, "structure", forgetful)
    assert not find_tables(case.sheet.words, case.sheet.rulings, page=PAGE)


def test_a_running_line_across_a_table_does_not_cost_its_words() -> None:
    """Large letters over the edge of a table, where boxes of tables and words cross."""
    random = Random(7)
    for case in [*cases(), *held_out()] * 3:
        words = list(case.sheet.words)
        for at in range(6):
            x, y, size = (
                random.uniform(60, 540),
                random.uniform(60, 400),
                random.choice((6, 16, 40)),
            )
            box = Box(x, y, x + 5 * size, y + size)
            words.append(Word(f"stray{at}", box, y + 0.8 * size, size))
        assert not lost(find_tables(words, case.sheet.rulings, page=PAGE), words)


def test_headings_printed_upwards_go_to_their_columns() -> None:
    sheet = Sheet()
    rows: list[list[Spec]] = [["Town", "", ""], *LABELS[1:]]
    table(sheet, 90, 100, (80, 80, 80), rows, style="ruled", leading=40)
    for x, text in ((200, "Capital"), (280, "Language")):
        sheet.words.append(Word(text, Box(x, 104, x + 10, 138), 138, 10.0, angle=90.0))
    (found,) = find_tables(sheet.words, sheet.rulings, page=PAGE)
    top = {c.col: c.text for c in found.table.cells if c.row == 0}
    assert top == {0: "Town", 1: "Capital", 2: "Language"}


# -- what is no table -----------------------------------------------------------------------


def paragraphs_in_a_grid(sheet: Sheet) -> None:
    """Two boxes of running text beside each other, twice: a layout, not a table."""
    for x in (60, 320):
        for y in (80, 300):
            sheet.prose(x + 8, x + 232, y + 14, 15, start=int(x + y))
    for x in (60, 306, 552):
        sheet.upright(x, 80, 500)
    for y in (80, 290, 500):
        sheet.level(60, 552, y)


def note_in_a_box(sheet: Sheet) -> None:
    sheet.text(80, 110, "Note", bold=True)
    sheet.prose(80, 300, 124, 5)
    for y in (96, 190):
        sheet.level(72, 310, y)
    for x in (72, 310):
        sheet.upright(x, 96, 190)


def form_with_lines(sheet: Sheet) -> None:
    for at, name in enumerate(("Name", "Street", "Town", "Date of birth", "Signature")):
        sheet.text(80, 120 + 26 * at, name)
        sheet.level(160, 330, 121 + 26 * at)
        sheet.text(350, 120 + 26 * at, "Number")
        sheet.level(400, 520, 121 + 26 * at)


def title_block(sheet: Sheet) -> None:
    names = (("Ada Green", "Ben Hill", "Carla Moss"), ("Univ. of Elm", "Oak Institute", "Ash Labs"),
             ("ada@elm.edu", "ben@oak.org", "carla@ash.com"))  # fmt: skip
    sheet.text(150, 80, "A Study of Leaves over Four Seasons", 16, True)
    for row, line in enumerate(names):
        for x, text in zip((100, 260, 420), line, strict=True):
            sheet.text(x, 120 + 12 * row, text)
    sheet.prose(72, 540, 200, 20)


def contents_with_leaders(sheet: Sheet) -> None:
    for at, name in enumerate(("Preface", "Methods", "The first year", "Results", "Index", "Maps")):
        end = sheet.text(80, 120 + 15 * at, name)
        while end < 470:
            end = sheet.text(end + 3, 120 + 15 * at, ".")
        sheet.text(490, 120 + 15 * at, str(3 + at * 11))


def code(sheet: Sheet) -> None:
    sheet.face = "Courier"
    lines = ("def mean(values):", "    total = 0", "    for value in values:",
             "        total += value  # slow", "    return total / len(values)", "",
             "x = mean([1, 2, 3])", "y = mean(x for x in z)  # lazy", "print(x, y)")  # fmt: skip
    for at, line in enumerate(lines):
        if line:
            sheet.text(80, 120 + 12 * at, str(at + 1))
            sheet.text(100, 120 + 12 * at, line)


def axis(sheet: Sheet) -> None:
    for at in range(6):
        sheet.text(90, 300 - 30 * at, f"{at * 0.2:.1f}")
        sheet.text(118 + 60 * at, 316, str(at * 10))
    sheet.text(230, 332, "Time (s)")
    sheet.level(112, 420, 305)
    sheet.upright(112, 140, 305)


def bibliography(sheet: Sheet) -> None:
    for at in range(8):
        sheet.text(60, 90 + 34 * at, f"{at + 1}.")
        sheet.prose(76, 290, 90 + 34 * at, 2, start=at * 7)
        sheet.text(317, 90 + 34 * at, f"{at + 9}.")
        sheet.prose(335, 550, 90 + 34 * at, 2, start=at * 5 + 3)


@pytest.mark.parametrize(
    "draw",
    [
        paragraphs_in_a_grid, note_in_a_box, form_with_lines, title_block, contents_with_leaders,
        code, axis, bibliography,
    ],
)  # fmt: skip
def test_no_table_is_seen_in(draw: Callable[[Sheet], None]) -> None:
    sheet = Sheet()
    draw(sheet)
    found = find_tables(sheet.words, sheet.rulings, page=PAGE)
    assert [[c.text for c in f.table.cells] for f in found] == []
