"""HTML and pipes, read back by parsers that know nothing of the writer."""

from __future__ import annotations

from io import StringIO

import pandas
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from octavo.tables import fits_pipes, to_html, to_markdown
from octavo.types import Table, TableCell

TEXT = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=12)

SPANNED = Table(
    3,
    3,
    (
        TableCell(0, 0, "Site", row_span=2, header=True),
        TableCell(0, 1, "Depth & <b>", col_span=2, header=True),
        TableCell(1, 1, "min", header=True),
        TableCell(1, 2, "max", header=True),
        TableCell(2, 0, "Lake"),
        TableCell(2, 1, "a|b"),
        TableCell(2, 2, "4\n5"),
    ),
)


def test_html_is_escaped_and_has_spans() -> None:
    assert to_html(SPANNED) == (
        '<table>\n<tr><th rowspan="2">Site</th><th colspan="2">Depth &amp; &lt;b&gt;</th></tr>\n'
        "<tr><th>min</th><th>max</th></tr>\n"
        "<tr><td>Lake</td><td>a|b</td><td>4<br>5</td></tr>\n</table>"
    )


def test_pandas_reads_the_spans_back() -> None:
    (frame,) = pandas.read_html(StringIO(to_html(SPANNED)), flavor="lxml", header=[0, 1])
    assert list(frame.columns) == [
        ("Site", "Site"),
        ("Depth & <b>", "min"),
        ("Depth & <b>", "max"),
    ]


def test_spans_and_second_heading_rows_do_not_fit_pipes() -> None:
    assert not fits_pipes(SPANNED)
    assert to_markdown(SPANNED) == to_html(SPANNED)
    plain = Table(1, 2, (TableCell(0, 0, "a"), TableCell(0, 1, "b")))
    assert fits_pipes(plain)


@given(st.lists(st.lists(TEXT, min_size=2, max_size=2), min_size=2, max_size=4))
def test_markdown_keeps_its_shape_whatever_the_text(rows: list[list[str]]) -> None:
    cells = tuple(TableCell(r, c, t) for r, row in enumerate(rows) for c, t in enumerate(row))
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(
        to_markdown(Table(len(rows), 2, cells))
    )
    assert sum(token.type == "tr_open" for token in tokens) == len(rows)
    assert sum(token.type in ("th_open", "td_open") for token in tokens) == 2 * len(rows)


@given(TEXT)
def test_html_holds_no_markup_of_the_text(text: str) -> None:
    html = to_html(Table(1, 1, (TableCell(0, 0, text + "<script>x</script>"),)))
    assert "<script" not in html
