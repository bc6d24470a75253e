"""Statements, forms and old print come back cell by cell."""

from __future__ import annotations

import pytest

from octavo.readers.tables import find_tables
from octavo.types import Box
from tests.readers.tables.held_out import held_out
from tests.readers.tables.table_cases import PAGE, Case, expanded, score


@pytest.mark.parametrize("case", held_out(), ids=lambda case: case.name)
def test_tables_of_many_makes_come_back_cell_by_cell(case: Case) -> None:
    page = Box(0, 0, PAGE.bottom, PAGE.right) if case.sheet.turned else PAGE
    found = find_tables(case.sheet.words, case.sheet.rulings, page=page)
    assert len(found) == len(case.grids)
    for one, wanted in zip(found, case.grids, strict=True):
        cells = [(c.row, c.col, c.row_span, c.col_span, c.text) for c in one.table.cells]
        assert score([expanded(one.table.rows, one.table.cols, cells)], wanted) == 1.0
