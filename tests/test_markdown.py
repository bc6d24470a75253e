from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from octavo.document import Report
from octavo.escape import escape_inline, escape_start
from octavo.markdown import join_text, page_markdown, render
from octavo.tables import to_html, to_markdown
from octavo.types import Box, Category, Element, Failure, PageResult, Table, TableCell

COMMONMARK = MarkdownIt("commonmark").enable(["table", "strikethrough"])
BOX = Box(0, 0, 1, 1)


def el(number: int, category: Category, text: str = "", **more: Any) -> Element:
    return Element(f"p1-{number}", category, BOX, text, **more)


def page(*elements: Element, number: int = 1) -> PageResult:
    return PageResult(number, 100, 100, elements)


def shown(markdown: str) -> str:
    """The words that a reader of the rendered Markdown sees, by an independent renderer."""
    words: list[str] = []

    class Words(HTMLParser):
        def handle_data(self, data: str) -> None:
            words.append(data)

    Words().feed(COMMONMARK.render(markdown))
    return " ".join("".join(words).split())


def test_furniture_is_left_out_unless_asked_for() -> None:
    one = page(
        el(1, Category.PAGE_HEADER, "Journal of Sheets"),
        el(2, Category.TEXT, "Body."),
        el(3, Category.PAGE_FOOTER, "17"),
    )
    assert page_markdown(one) == "Body.\n"
    assert page_markdown(one, furniture=True) == "Journal of Sheets\n\nBody.\n\n17\n"


def test_headings_leave_the_first_level_to_the_title() -> None:
    levels = [el(n, Category.SECTION_HEADER, f"h{n}", level=n) for n in (1, 2, 7)]
    text = page_markdown(page(el(0, Category.TITLE, "The\nname"), *levels))
    assert text == "# The name\n\n## h1\n\n### h2\n\n###### h7\n"


def test_a_paragraph_goes_on_over_a_figure_and_a_page() -> None:
    first = page(
        el(1, Category.TEXT, "It begins and is con-"),
        el(2, Category.PICTURE),
        el(3, Category.CAPTION, "Figure 1", caption_of="p1-2"),
        el(4, Category.TEXT, "tinued here,", continues=True),
    )
    second = page(
        el(1, Category.PAGE_HEADER, "Head"),
        el(2, Category.TEXT, "and ends.", continues=True),
        el(3, Category.TEXT, "Another."),
        number=2,
    )
    assert "".join(render([first, second])) == (
        "It begins and is continued here, and ends.\n\nFigure 1\n\n<!-- page 2 -->\n\nAnother.\n"
    )
    assert page_markdown(second) == "and ends.\n\nAnother.\n"


def test_text_does_not_go_on_over_a_page_between() -> None:
    pages = [
        page(el(1, Category.TEXT, "One")),
        page(el(1, Category.TITLE, "Two"), number=2),
        page(el(1, Category.TEXT, "three", continues=True), number=3),
    ]
    assert "One\n\n" in "".join(render(pages))


def test_render_streams() -> None:
    taken: list[int] = []

    def pages() -> Iterator[PageResult]:
        for number in range(1, 9):
            taken.append(number)
            yield page(el(1, Category.TEXT, f"text {number}"), number=number)

    pieces = render(pages())
    assert "text 1" in next(pieces)
    assert taken == [1, 2]


@pytest.mark.parametrize(
    ("before", "after", "whole"),
    [
        ("exam-", "ple", "example"),
        ("exam\u00ad", "Ple", "examPle"),
        ("F-", "measure", "F- measure"),
        ("North-", "South", "North- South"),
        ("中文", "字", "中文字"),
        ("end.", "Next", "end. Next"),
        ("", "x", "x"),
    ],
)
def test_parts_are_joined_as_words(before: str, after: str, whole: str) -> None:
    assert join_text(before, after) == whole


def test_lists_keep_their_markers_and_nesting() -> None:
    items = [
        ("1.", 1, "one"),
        ("•", 2, "dot"),
        ("(a)", 2, "paren"),
        ("2.", 1, "two"),
        (None, 1, "x"),
    ]
    elements = [
        el(n, Category.LIST_ITEM, text, marker=marker, level=level)
        for n, (marker, level, text) in enumerate(items)
    ]
    text = page_markdown(page(*elements))
    assert text == "1. one\n   - dot\n   - (a) paren\n2. two\n- x\n"
    assert COMMONMARK.render(text).count("<ul>") == 2


def test_a_number_after_a_numbered_list_is_not_counted_on() -> None:
    text = page_markdown(
        page(
            el(1, Category.LIST_ITEM, "one", marker="1."),
            el(2, Category.TEXT, "1986. A year."),
            el(3, Category.TEXT, "1987. Another."),
        )
    )
    assert "<p>1986. A year.</p>" in COMMONMARK.render(text)
    # Elsewhere it is shown as it stands, and the words stay whole for a search.
    assert "\n\n1987. Another." in text


def test_a_caption_that_stands_apart_comes_beside_its_figure() -> None:
    text = page_markdown(
        page(
            el(1, Category.CAPTION, "Table 1", caption_of="p1-3"),
            el(2, Category.TEXT, "Between."),
            el(3, Category.TABLE, "cells"),
            el(4, Category.PICTURE, children=(el(5, Category.TEXT, "axis"),)),
            el(6, Category.TEXT, "After."),
            el(7, Category.CAPTION, "Figure 1", caption_of="p1-4"),
        )
    )
    assert text.split("\n\n") == ["Between.", "Table 1", "cells", "axis", "Figure 1", "After.\n"]


def test_pictures_show_crop_and_text_within() -> None:
    labels = (el(2, Category.TEXT, "x axis"), el(3, Category.TEXT, "= y"))
    one = page(
        el(1, Category.PICTURE, children=labels),
        el(4, Category.CAPTION, "A [plot]", caption_of="p1-1"),
    )
    text = page_markdown(one, crops={"p1-1": "crops/p1-1.png"})
    assert text == "![A \\[plot\\]](crops/p1-1.png)\n\nx axis\n\\= y\n\nA [plot]\n"
    assert shown(page_markdown(one)) == "x axis = y A [plot]"


def test_formulas() -> None:
    one = page(
        el(1, Category.FORMULA, r"\frac{a}{b}"),
        el(2, Category.FORMULA, "a = b + 1"),
        el(3, Category.FORMULA),
    )
    assert page_markdown(one) == "$$\n\\frac{a}{b}\n$$\n\na = b + 1\n"
    assert "![formula](crops/f.png)" in page_markdown(one, crops={"p1-3": "crops/f.png"})


def test_a_failed_page_leaves_its_reason_and_cannot_end_its_comment() -> None:
    bad = PageResult(2, 1, 1, failure=Failure("PageTimeout", "a\n--><script>x</script>"))
    text = "".join(render([page(el(1, Category.TEXT, "One.")), bad]))
    assert text == "One.\n\n<!-- page 2 failed: PageTimeout: a - -><script>x</script> -->\n"
    report = Report(source="a", page_count=2, pages=(bad,))
    assert report.markdown(page=2).startswith("<!-- page 2 failed")


def table(*rows: tuple[str, ...]) -> Table:
    cells = (TableCell(r, c, t) for r, row in enumerate(rows) for c, t in enumerate(row))
    return Table(len(rows), max(map(len, rows)), tuple(cells))


def test_a_plain_table_is_pipes() -> None:
    text = to_markdown(table(("a|b", "c"), ("<d>", "")))
    assert text == "| a\\|b | c |\n| --- | --- |\n| \\<d> |  |"
    assert "<td>&lt;d&gt;</td>" in COMMONMARK.render(text)


def test_a_table_with_spans_or_lines_is_html() -> None:
    spans = Table(
        2, 2, (TableCell(0, 0, "wide", col_span=2, header=True), TableCell(1, 1, "a<b\n\nc"))
    )
    assert to_markdown(spans) == to_html(spans)
    assert to_html(spans) == (
        '<table>\n<tr><th colspan="2">wide</th></tr>\n'
        "<tr><td></td><td>a&lt;b<br>c</td></tr>\n</table>"
    )


def test_a_table_over_a_page_break_is_one_without_a_second_heading() -> None:
    first = page(el(1, Category.TABLE, table=table(("k", "v"), ("a", "1"))))
    rest = el(1, Category.TABLE, table=table(("k", "v"), ("b", "2")), continues=True)
    text = "".join(render([first, page(rest, number=2)]))
    assert text.startswith("| k | v |\n| --- | --- |\n| a | 1 |\n| b | 2 |\n")


@pytest.mark.parametrize(
    "text",
    [
        "# not a heading",
        "- not a list",
        "+ plus",
        "* star",
        "> quote",
        "---",
        "* * *",
        "``` fence",
        "~~~ fence",
        "a <b>tag</b> and <!-- comment -->",
        "<https://example.org>",
        "x < y and a<5",
        "&copy; &#38; R&D",
        "*stars* and **more**",
        "_score_ snake_case_name __init__",
        "5 * 3 * 2",
        "`code` here",
        "~~struck~~",
        "[link](target) and [1][2]",
        "[1]: Smith, A reference",
        r"back\*slash \\ C:\dir",
        "1. numbered 2) twice",
        "trailing \\",
        "===",
        "| a | b |",
        "<script>alert(1)</script>",
        "![image](x)",
    ],
)
def test_text_is_shown_as_it_stands(text: str) -> None:
    written = escape_start(escape_inline(text), in_list=True)
    assert shown(written) == " ".join(text.split())
    heading = page_markdown(page(el(1, Category.SECTION_HEADER, text)))
    assert shown(heading) == " ".join(text.split())
    assert shown(page_markdown(page(el(1, Category.LIST_ITEM, text)))) in (
        " ".join(text.split()),
        text.removeprefix("1. "),  # a list of its own within the item
    )


@pytest.mark.parametrize(
    "text", ["A #1 hit - really", "snake_case", "5 * 3", "R&D < 3", "$5 or (a) [b]", "C# `x"]
)
def test_what_markdown_leaves_alone_is_not_escaped(text: str) -> None:
    assert escape_start(escape_inline(text), in_list=False) == text


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet="ab1 .)#-+*_`~<>![](){}|&;:\\/=\"'?$^@%,", min_size=1, max_size=14))
def test_any_text_is_shown_as_it_stands(text: str) -> None:
    text = " ".join(text.split())
    assert shown(escape_start(escape_inline(text), in_list=True)) == text
