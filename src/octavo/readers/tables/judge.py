"""Is it a table? Precision first: running text in columns, lists and contents are none."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence

from octavo.media.page import Word
from octavo.readers.tables.aligned import Aligned
from octavo.readers.tables.text import Chunk, is_value
from octavo.types import Box, Table, TableCell

CAPTION = re.compile(
    r"(?:supplementary\s+|extended\s+data\s+)?"
    r"(?:table|tab\.|figure|fig\.|tabelle|abbildung|tableau|tabla|tabella|表|图|圖|그림|표)\s*[\dIVXA-Z]",
    re.IGNORECASE,
)
_MARKER = re.compile(
    r"^(?:[•●◦▪■·\-–—*]|\(?\[?(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{1,4})[.)\]]{1,2}|\[\w+\])$"
)
_BLANKS = re.compile(r"(?:\.\s?){4,}|_{4,}")
_ROMAN = re.compile(r"^[ivxlc]+$", re.IGNORECASE)
#: Words on a line of a cell, on average, from which a column counts as running text.
_PROSE_RUN = 4.5


def looks_like_prose(rows: Sequence[Sequence[Chunk]], box: Box, em: float) -> bool:
    """Lines of running text in one, two or three columns."""
    if len(rows) < 4:
        return False
    widest = box.width / em
    counts = [len(row) for row in rows]
    long_lines = sum(1 for row in rows if sum(len(c.words) for c in row) / len(row) >= _PROSE_RUN)
    ink = statistics.mean(sum(c.right - c.left for c in row) / box.width for row in rows)
    return (
        statistics.median(counts) <= 3
        and long_lines >= 0.6 * len(rows)
        and ink > 0.6
        and widest > 15
    )


def lattice_is_table(table: Table, words: Sequence[Word], *, hinted: bool) -> bool:
    """Charts have empty cells, framed pages have cells of running text."""
    full = [cell for cell in table.cells if cell.text]
    if len(full) < (3 if hinted else 4):
        return False
    if len(full) < 0.25 * len(table.cells) and not hinted:
        return False
    spanned = sum(1 for c in table.cells if c.row_span > 1 or c.col_span > 1)
    if spanned > 0.4 * len(table.cells) and len(table.cells) > 8 and not hinted:
        return False
    mean = len(words) / len(full)
    return mean < (150 if hinted else 60) or table.rows > 4


def is_tabular(made: Aligned, *, hinted: bool, rules: int, led: int) -> bool:
    """Judge a table that no lattice proves.

    Args:
        made: the table with the number of words in each line of each column.
        hinted: a layout model saw a table here.
        rules: level rules from edge to edge that the table has.
        led: dot leaders that were taken out of it.
    """
    table = made.table
    texts = [[c for c in table.cells if c.col == col and c.text] for col in range(table.cols)]
    filled = sum(len(column) for column in texts)
    if filled < 0.3 * len(table.cells) or _is_list(texts) or _has_blanks(table):
        return False
    if led >= 0.4 * table.rows and _leads_to_pages(texts):
        return False
    runs = [statistics.mean(run) if run else 0.0 for run in made.run_lengths]
    prose = sum(1 for run in runs if run >= _PROSE_RUN)
    if prose == len(runs) and not (rules >= 4 and rules > 0.5 * table.rows):
        return False
    words = sum(sum(run) for run in made.run_lengths)
    pieces = sum(len(run) for run in made.run_lengths)
    valued = any(is_value(c.text) for c in table.cells if not c.header)
    if table.rows >= 8 and words >= 4 * pieces and not valued and rules < 4:
        return False
    if hinted:
        return True
    if rules >= 2:
        return prose <= 0.5 * len(runs) or rules >= 4
    if prose:
        return False
    return _strict(table, texts)


def _strict(table: Table, texts: Sequence[Sequence[TableCell]]) -> bool:
    """What a table without rules and without a hint must show."""
    body = [c for c in table.cells if not c.header and c.text]
    if table.rows < 3 or table.rows > 200 or _is_contents(texts):
        return False
    values = [c for c in body if is_value(c.text) and c.col > 0]
    values_share = len(values) / max(sum(1 for c in body if c.col > 0), 1)
    full_rows = sum(
        1
        for row in range(table.rows)
        if sum(1 for c in table.cells if c.row == row and c.text) >= max(2, 0.7 * table.cols)
    )
    if full_rows < max(3, 0.6 * table.rows):
        return False
    if any(c.text.endswith(":") for c in body if c.col == 0) and table.cols == 2:
        return False
    mean_words = statistics.mean(len(c.text.split()) for c in body)
    if table.cols == 2:
        return table.rows >= 4 and values_share >= 0.7 and mean_words <= 4
    short = all(statistics.median(len(c.text.split()) for c in col) <= 4 for col in texts if col)
    return short and (values_share >= 0.4 or (table.rows >= 4 and mean_words <= 3))


def _is_list(texts: Sequence[Sequence[TableCell]]) -> bool:
    first = [c.text for c in texts[0]]
    marks = sum(1 for text in first if _MARKER.match(text))
    return bool(first) and len(texts) == 2 and marks >= 0.6 * len(first)


def _is_contents(texts: Sequence[Sequence[TableCell]]) -> bool:
    """Page numbers that only rise, beside words: a table of contents."""
    numbered = worded = 0
    for column in texts:
        body = [c.text for c in column]
        whole = [int(t) for t in body if t.isdecimal()]
        if len(whole) >= max(2, 0.6 * len(body)):
            if whole != sorted(whole):
                return False
            numbered += 1
        elif any(is_value(t) for t in body):
            return False
        else:
            worded += 1
    return numbered > 0 and worded > 0


def _leads_to_pages(texts: Sequence[Sequence[TableCell]]) -> bool:
    """Leaders to one column of whole numbers without separators: a table of contents."""
    valued = [column for column in texts[1:] if any(is_value(c.text) for c in column)]
    return len(valued) < 2 and all(
        c.text.isdecimal() or _ROMAN.match(c.text) or not is_value(c.text)
        for column in valued
        for c in column
    )


def _has_blanks(table: Table) -> bool:
    """Lines to write on: a form."""
    blank = sum(1 for c in table.cells if _BLANKS.search(c.text))
    return blank >= 0.4 * table.rows
