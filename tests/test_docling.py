from dataclasses import replace
from typing import Any

import pytest
from docling_core.types.doc import (
    BoundingBox,
    ContentLayer,
    CoordOrigin,
    DocItemLabel,
    DoclingDocument,
    GroupLabel,
    ProvenanceItem,
    Size,
    TableItem,
)

from octavo.document import Report
from octavo.types import Box, Category, Element, Failure, PageResult, Table, TableCell

C = Category


def el(number: int, category: Category, text: str = "", page: int = 1, **more: Any) -> Element:
    box = Box(10.0, 20.0 * number, 200.0, 20.0 * number + 15)
    return Element(f"p{page}-{number}", category, box, text, **more)


GRID = Table(
    2,
    3,
    (
        TableCell(0, 0, "both", col_span=2, header=True, box=Box(1, 2, 3, 4)),
        TableCell(0, 2, "high", row_span=2),
        TableCell(1, 0, "a"),
        TableCell(1, 1, "b"),
    ),
)
FIRST = PageResult(
    1,
    300.0,
    900.0,
    (
        el(1, C.PAGE_HEADER, "Running head"),
        el(2, C.TITLE, "The title"),
        el(3, C.SECTION_HEADER, "Method", level=2),
        el(4, C.TEXT, "Some words."),
        el(5, C.LIST_ITEM, "one", level=1, marker="1."),
        el(6, C.LIST_ITEM, "deeper", level=2, marker="•"),
        el(7, C.LIST_ITEM, "two", level=1, marker="2."),
        el(8, C.CAPTION, "Table 1", caption_of="p1-9"),
        el(9, C.TABLE, table=GRID),
        Element(
            "p1-10",
            C.PICTURE,
            Box(10, 200, 200, 250),
            children=(Element("p1-10.1", C.TEXT, Box(20, 210, 40, 220), "axis"),),
        ),
        el(11, C.CAPTION, "Figure 1", caption_of="p1-10"),
        el(12, C.FORMULA, "a = b"),
        el(13, C.FOOTNOTE, "1 A note"),
        el(14, C.PAGE_FOOTER, "17"),
    ),
)
SECOND = PageResult(2, 300.0, 900.0, failure=Failure("PageTimeout", "took too long"))
THIRD = PageResult(3, 300.0, 900.0, (el(1, C.LIST_ITEM, "alone", 3, level=3, marker="(a)"),))
REPORT = Report(source="paper.pdf", sha256="ab" * 32, page_count=3, pages=(FIRST, SECOND, THIRD))


def test_text_order_categories_boxes_and_tables_survive_the_round_trip() -> None:
    back = Report.from_docling(REPORT.document)
    assert back.source == "paper.pdf"
    assert [page.number for page in back.pages] == [1, 2, 3]
    assert back.pages[0].elements == FIRST.elements
    assert back.pages[1].elements == ()
    assert back.pages[2].elements == THIRD.elements
    assert (back.pages[0].width, back.pages[0].height) == (300.0, 900.0)


def test_the_document_is_valid_and_whole() -> None:
    document = REPORT.document
    assert DoclingDocument.model_validate_json(document.model_dump_json()) == document
    text = document.export_to_markdown(traverse_pictures=True)
    words = ["# The title", "### Method", "Some words.", "1. one", "deeper", "Table 1", "both"]
    for word in [*words, "axis", "Figure 1", "a = b", "1 A note"]:
        assert text.count(word) >= 1, word
    assert text.count("Table 1") == text.count("Figure 1") == 1
    assert "Running head" not in text


def test_furniture_captions_and_origin_are_docling_s_own() -> None:
    document = REPORT.document
    layers = {item.text: item.content_layer for item in document.texts}
    assert layers["Running head"] is layers["17"] is ContentLayer.FURNITURE
    assert document.tables[0].caption_text(document) == "Table 1"
    assert document.pictures[0].caption_text(document) == "Figure 1"
    assert document.origin
    assert document.origin.binary_hash == int("ab" * 8, 16)
    box = document.texts[1].prov[0].bbox
    assert (box.coord_origin, box.t, box.b) == (CoordOrigin.TOPLEFT, 40.0, 55.0)
    assert document.tables[0].data.grid[1][2].text == "high"


def place(page: int, top: float, bottom: float, span: tuple[int, int]) -> ProvenanceItem:
    box = BoundingBox(l=1, t=top, r=9, b=bottom, coord_origin=CoordOrigin.BOTTOMLEFT)
    return ProvenanceItem(page_no=page, bbox=box, charspan=span)


def test_boxes_from_the_bottom_left_are_turned_over() -> None:
    document = DoclingDocument(name="x")
    document.add_page(page_no=1, size=Size(width=10, height=100))
    document.add_text(DocItemLabel.PARAGRAPH, "words", prov=place(1, 90, 80, (0, 5)))
    (element,) = Report.from_docling(document).elements()
    assert (element.category, element.box) == (C.TEXT, Box(1, 10, 9, 20))


def test_a_paragraph_over_two_pages_is_two_elements() -> None:
    document = DoclingDocument(name="x")
    for number in (1, 2):
        document.add_page(page_no=number, size=Size(width=10, height=100))
    item = document.add_text(DocItemLabel.TEXT, "begins ends", prov=place(1, 9, 8, (0, 6)))
    item.prov.append(place(2, 99, 98, (7, 11)))
    report = Report.from_docling(document)
    assert [[(e.text, e.continues) for e in page.elements] for page in report.pages] == [
        [("begins", False)],
        [("ends", True)],
    ]
    assert "begins ends\n" in report.markdown()


def test_a_document_without_pages_as_from_a_word_processor() -> None:
    document = DoclingDocument(name="letter")
    heading = document.add_heading("Dear reader", level=1)
    section = document.add_group(label=GroupLabel.SECTION, parent=heading)
    inline = document.add_inline_group(parent=section)
    document.add_text(DocItemLabel.TEXT, "bold", parent=inline)
    document.add_text(DocItemLabel.TEXT, "plain", parent=inline)
    outer = document.add_list_group(parent=section)
    item = document.add_list_item("", parent=outer)
    document.add_text(DocItemLabel.TEXT, "run", parent=document.add_inline_group(parent=item))
    inner = document.add_list_group(parent=item)
    document.add_list_item("inside", parent=inner, marker="-")
    document.add_code("x = 1", parent=section)
    document.add_text(DocItemLabel.TEXT, "top", content_layer=ContentLayer.FURNITURE)
    document.add_text(DocItemLabel.TEXT, "hidden", content_layer=ContentLayer.INVISIBLE)
    report = Report.from_docling(document)
    assert [(e.category, e.text, e.level) for e in report.elements()] == [
        (C.SECTION_HEADER, "Dear reader", 1),
        (C.TEXT, "bold plain", None),
        (C.LIST_ITEM, "run", 1),
        (C.LIST_ITEM, "inside", 2),
        (C.TEXT, "x = 1", None),
        (C.PAGE_HEADER, "top", None),
    ]
    assert (report.source, report.page_count) == ("letter", 1)
    assert Report.from_docling(report.document).pages[0].elements == report.pages[0].elements


def test_runs_below_a_heading_are_a_paragraph_of_their_own() -> None:
    document = DoclingDocument(name="letter")
    heading = document.add_heading("Terms", level=1)
    inline = document.add_inline_group(parent=heading)
    document.add_text(DocItemLabel.TEXT, "pay", parent=inline)
    document.add_text(DocItemLabel.TEXT, "soon", parent=inline)
    assert [(e.category, e.text) for e in Report.from_docling(document).elements()] == [
        (C.SECTION_HEADER, "Terms"),
        (C.TEXT, "pay soon"),
    ]


def test_a_table_without_a_grid_keeps_its_lines() -> None:
    page = replace(FIRST, elements=(el(1, C.TABLE, "first line\nsecond line"),))
    document = replace(REPORT, pages=(page,)).document
    assert isinstance(document.tables[0], TableItem)
    assert [cell.text for cell in document.tables[0].data.table_cells] == [
        "first line",
        "second line",
    ]


@pytest.mark.parametrize("source", ["noending", "x.heic", "a.PDF", ".hidden", ""])
def test_any_name_of_a_source_makes_a_document(source: str) -> None:
    report = replace(REPORT, source=source)
    assert Report.from_docling(report.document).source == source
