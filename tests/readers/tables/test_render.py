"""HTML and Markdown, read back by parsers that know nothing of the writer."""

from __future__ import annotations

from io import StringIO

import pandas
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from octavo.readers.tables import to_html, to_markdown
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
        '<table><thead><tr><th rowspan="2">Site</th>'
        '<th colspan="2">Depth &amp; &lt;b&gt;</th></tr><tr><th>min</th><th>max</th></tr></thead>'
        "<tbody><tr><td>Lake</td><td>a|b</td><td>4\n5</td></tr></tbody></table>"
    )


def test_pandas_reads_the_spans_back() -> None:
    (frame,) = pandas.read_html(StringIO(to_html(SPANNED)), flavor="lxml")
    assert list(frame.columns) == [
        ("Site", "Site"),
        ("Depth & <b>", "min"),
        ("Depth & <b>", "max"),
    ]


def test_markdown_puts_the_text_of_a_span_first_and_escapes_pipes() -> None:
    assert to_markdown(SPANNED).splitlines() == [
        "| Site | Depth & <b> |  |",
        "| --- | --- | --- |",
        "|  | min | max |",
        "| Lake | a\\|b | 4 5 |",
    ]


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
