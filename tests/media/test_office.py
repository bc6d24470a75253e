"""Office files drawn here by the libraries that write them, so that their truth is known."""

from __future__ import annotations

import os
import stat
import sys
import zipfile
from contextlib import suppress
from datetime import date
from io import BytesIO
from pathlib import Path

import openpyxl
import pytest
from docx import Document
from docx.enum.text import WD_BREAK
from openpyxl.comments import Comment
from PIL import Image
from pptx import Presentation
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from octavo.errors import (
    BrokenFile,
    InputError,
    LimitExceeded,
    MissingDependency,
    PasswordRequired,
    UnsupportedFormat,
)
from octavo.media import office_archive
from octavo.media.office import read_office
from octavo.types import Box, Category, Element, PageResult, TextSource

OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def of(page: PageResult, category: Category) -> list[Element]:
    return [element for element in page.elements if element.category is category]


def texts(page: PageResult) -> list[str]:
    return [element.text for element in page.elements]


def cells(element: Element) -> list[tuple[str, int, int, int, int]]:
    assert element.table is not None
    return [(c.text, c.row, c.col, c.row_span, c.col_span) for c in element.table.cells if c.text]


@pytest.fixture
def docx(tmp_path: Path) -> Path:
    document = Document()
    document.add_heading("Title", 0)
    document.add_heading("Chapter", 1)
    document.add_heading("Section", 2)
    paragraph = document.add_paragraph("Plain, ")
    paragraph.add_run("bold").bold = True
    paragraph.add_run(", inter")
    paragraph.add_run("nation").italic = True
    paragraph.add_run("al.")
    for style, text in (
        ("List Bullet", "one"),
        ("List Bullet 2", "inner"),
        ("List Number", "first"),
        ("List Number", "second"),
    ):
        document.add_paragraph(text, style=style)
    table = document.add_table(3, 3)
    table.cell(0, 0).merge(table.cell(0, 1)).text = "wide"
    table.cell(1, 0).merge(table.cell(2, 0)).text = "tall"
    table.cell(2, 2).text = "end"
    hidden = document.add_paragraph().add_run("unseen")
    hidden.font.hidden = True
    document.sections[0].header.paragraphs[0].text = "Head"
    document.sections[0].footer.paragraphs[0].text = "Foot"
    path = tmp_path / "a.docx"
    document.save(str(path))
    return path


def test_docx_keeps_levels_nesting_spans_and_whole_words(docx: Path) -> None:
    (page,) = read_office(docx)
    assert page.source is TextSource.OFFICE
    assert (page.width, page.height) == (612.0, 792.0)
    assert [e.text for e in of(page, Category.TITLE)] == ["Title"]
    assert [(e.text, e.level) for e in of(page, Category.SECTION_HEADER)] == [
        ("Chapter", 1),
        ("Section", 2),
    ]
    assert [e.text for e in of(page, Category.TEXT)] == ["Plain, bold, international."]
    assert [(e.text, e.level, e.marker) for e in of(page, Category.LIST_ITEM)] == [
        ("one", 1, None),
        ("inner", 2, None),
        ("first", 1, "1."),
        ("second", 1, "2."),
    ]
    (table,) = of(page, Category.TABLE)
    assert cells(table) == [("wide", 0, 0, 1, 2), ("tall", 1, 0, 2, 1), ("end", 2, 2, 1, 1)]
    assert [e.text for e in of(page, Category.PAGE_HEADER)] == ["Head"]
    assert [e.text for e in of(page, Category.PAGE_FOOTER)] == ["Foot"]
    assert [e.id for e in page.elements] == [f"p1-{n + 1}" for n in range(len(page.elements))]


def test_docx_pages_begin_where_the_file_says(tmp_path: Path) -> None:
    document = Document()
    document.add_paragraph("one").add_run().add_break(WD_BREAK.PAGE)
    second = document.add_paragraph()
    # Word repeats a break set by hand as the place where the page began.
    second.add_run()._r.append(second._p.makeelement(_w("lastRenderedPageBreak")))
    second.add_run("two")
    second.add_run()._r.append(second._p.makeelement(_w("lastRenderedPageBreak")))
    second.add_run("three")
    before = document.add_paragraph("four")
    before.paragraph_format.page_break_before = True
    document.add_section()
    document.add_paragraph("five")
    document.save(str(tmp_path / "a.docx"))
    pages = read_office(tmp_path / "a.docx")
    assert [texts(page) for page in pages] == [["one"], ["two"], ["three"], ["four"], ["five"]]
    assert [page.elements[0].continues for page in pages] == [False, False, True, False, False]
    assert [page.elements[0].id for page in pages] == [f"p{n}-1" for n in range(1, 6)]


def test_docx_break_in_a_table_leaves_the_table_whole(tmp_path: Path) -> None:
    document = Document()
    table = document.add_table(2, 1)
    table.cell(0, 0).text = "above"
    table.cell(1, 0).paragraphs[0].add_run().add_break(WD_BREAK.PAGE)
    table.cell(1, 0).paragraphs[0].add_run("below")
    document.add_paragraph("after")
    document.save(str(tmp_path / "a.docx"))
    first, second = read_office(tmp_path / "a.docx")
    assert [text for text, *_ in cells(first.elements[0])] == ["above", "below"]
    assert texts(second) == ["after"]


def test_pptx_slides_are_pages_in_points(tmp_path: Path) -> None:
    deck = Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    slide.shapes.title.text = "First"
    frame = slide.placeholders[1].text_frame
    frame.text = "outer"
    inner = frame.add_paragraph()
    inner.text, inner.level = "inner", 1
    slide.notes_slide.notes_text_frame.text = "spoken"
    hidden = deck.slides.add_slide(deck.slide_layouts[5])
    hidden.shapes.title.text = "Backup"
    hidden.element.set("show", "0")
    third = deck.slides.add_slide(deck.slide_layouts[6])
    grid = third.shapes.add_table(2, 2, Inches(1), Inches(2), Inches(4), Inches(1)).table
    grid.cell(0, 0).merge(grid.cell(0, 1))
    grid.cell(0, 0).text = "over"
    grid.cell(1, 1).text = "b"
    deck.save(str(tmp_path / "a.pptx"))

    one, two, three = read_office(tmp_path / "a.pptx")
    assert (one.width, one.height) == (720.0, 540.0)
    assert [e.text for e in of(one, Category.TITLE)] == ["First"]
    assert [(e.text, e.level) for e in of(one, Category.LIST_ITEM)] == [("outer", 1), ("inner", 2)]
    assert [e.text for e in of(one, Category.FOOTNOTE)] == ["spoken"]
    assert (two.elements, two.reason) == ((), "a hidden slide, left out")
    (table,) = three.elements
    assert table.box == Box(72.0, 144.0, 360.0, 216.0)
    assert cells(table) == [("over", 0, 0, 1, 2), ("b", 1, 1, 1, 1)]


def test_pptx_chart_keeps_its_numbers(tmp_path: Path) -> None:
    deck = Presentation()
    data = CategoryChartData()
    data.categories = ["North", "South"]
    data.add_series("Pens", (7, 9))
    area = (Inches(1), Inches(1), Inches(4), Inches(3))
    deck.slides.add_slide(deck.slide_layouts[6]).shapes.add_chart(
        XL_CHART_TYPE.COLUMN_CLUSTERED, *area, data
    )
    deck.save(str(tmp_path / "a.pptx"))
    (page,) = read_office(tmp_path / "a.pptx")
    (picture,) = of(page, Category.PICTURE)
    (chart,) = [child for child in picture.children if child.table]
    found = {text: (row, col) for text, row, col, *_ in cells(chart)}
    assert found["North"][0] == next(at for text, at in found.items() if text[0] == "7")[0]
    assert chart.id.startswith(f"{picture.id}.")


def test_xlsx_sheets_are_pages_under_their_names(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "Sales"
    sheet.append(["Item", "Share", "When", "Sum"])
    sheet.append(["pen", 0.15, date(2024, 3, 4), 0.1 + 0.2])
    sheet["B2"].number_format = "0%"
    sheet.merge_cells("A3:B3")
    sheet["A3"] = "both"
    book.create_sheet("Secret")["A1"] = "unseen"
    book["Secret"].sheet_state = "hidden"
    book.create_sheet("Note")["A1"] = "alone"
    book["Note"]["A1"].comment = Comment("why", "me")
    book.create_sheet("Empty")
    book.save(tmp_path / "a.xlsx")

    sales, secret, note, empty = read_office(tmp_path / "a.xlsx")
    assert texts(sales)[0] == "Sales"
    (table,) = of(sales, Category.TABLE)
    assert [text for text, row, *_ in cells(table) if row == 1] == [
        "pen", "15%", "2024-03-04", "0.3",
    ]  # fmt: skip
    assert ("both", 2, 0, 1, 2) in cells(table)
    assert table.box == Box(0.0, 0.0, 192.0, 45.0)
    assert (secret.elements, secret.reason) == ((), "a hidden sheet, left out")
    assert texts(note)[:2] == ["Note", "alone"]
    assert [e.text for e in of(note, Category.FOOTNOTE)] == ["[author: me]: why"]
    assert not empty.elements
    assert empty.width > 0 < empty.height


def test_html_shows_what_a_browser_shows(tmp_path: Path) -> None:
    path = tmp_path / "a.html"
    path.write_bytes(
        """<!doctype html><meta charset="iso-8859-1"><style>p{}</style>
        <script>evil()</script><nav>menu</nav><p>Café <b>is</b>, inter<i>nation</i>al
        <a href="x">link</a>.</p><h1>Top</h1><h2>Under</h2>
        <ul><li>one<ul><li>inner</li></ul></li></ul><ol start=3><li>three</ol>
        <table><tr><th colspan=2>wide</th></tr><tr><td rowspan=2>tall</td><td>1<b>2</b></td></tr>
        <tr><td>3</td></tr></table>
        <p hidden>unseen</p><p style="display: none">unseen</p>
        <footer>foot</footer>""".encode("latin-1")
    )
    (page,) = read_office(path)
    joined = "\n".join(texts(page))
    assert "Café is, international link." in texts(page)
    assert not any(word in joined for word in ("evil", "unseen", "p{}"))
    assert [e.text for e in of(page, Category.TITLE)] == ["Top"]
    assert [e.text for e in of(page, Category.SECTION_HEADER)] == ["Under"]
    assert [(e.text, e.level, e.marker) for e in of(page, Category.LIST_ITEM)] == [
        ("one", 1, None),
        ("inner", 2, None),
        ("three", 1, "3."),
    ]
    (table,) = of(page, Category.TABLE)
    assert cells(table) == [
        ("wide", 0, 0, 1, 2),
        ("tall", 1, 0, 2, 1),
        ("12", 1, 1, 1, 1),
        ("3", 2, 1, 1, 1),
    ]
    assert [e.text for e in of(page, Category.PAGE_FOOTER)] == ["menu", "foot"]


@pytest.mark.parametrize("code", ["utf-16", "utf-8-sig", "utf-8"])
def test_html_by_its_byte_order_mark(tmp_path: Path, code: str) -> None:
    path = tmp_path / "a.html"
    path.write_bytes("<html><body><p>Ünïcode — “文書”</p></body></html>".encode(code))
    assert texts(read_office(path)[0]) == ["Ünïcode — “文書”"]


def test_nothing_is_fetched_and_nothing_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool, proof = tmp_path / "bin" / "soffice", tmp_path / "ran"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\ntouch {proof}\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    asked: list[str] = []
    monkeypatch.setattr("socket.socket.connect", lambda _, place: asked.append(str(place)))
    html = tmp_path / "a.html"
    html.write_text('<p>a</p><img src="http://127.0.0.1:9/a.png"><iframe src="http://x/"></iframe>')
    read_office(html)

    picture = BytesIO()
    Image.new("RGB", (4, 4)).save(picture, "PNG")
    document = Document()
    document.add_picture(picture)
    document.save(str(tmp_path / "a.docx"))
    with zipfile.ZipFile(tmp_path / "a.docx") as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    # A Windows metafile, which only another program can draw.
    parts["word/media/image1.png"] = b"\xd7\xcd\xc6\x9a" + bytes(60)
    _pack(tmp_path / "b.docx", parts)
    assert of(read_office(tmp_path / "b.docx")[0], Category.PICTURE)
    assert not asked
    assert not proof.exists()


def test_an_archive_that_unfolds_too_far_is_refused(tmp_path: Path) -> None:
    _pack(tmp_path / "bomb.docx", {"word/document.xml": bytes(40 << 20)})
    with pytest.raises(LimitExceeded, match="200 times"):
        read_office(tmp_path / "bomb.docx")


@pytest.mark.parametrize(
    ("name", "limit", "words"),
    [("MAX_TOTAL", 1000, "MiB when"), ("MAX_XML", 1000, "of XML"), ("MAX_PARTS", 3, "parts")],
)
def test_limits_hold_for_the_bytes_that_come_out(
    docx: Path, monkeypatch: pytest.MonkeyPatch, name: str, limit: int, words: str
) -> None:
    monkeypatch.setattr(office_archive, name, limit)
    with pytest.raises(LimitExceeded, match=words):
        read_office(docx)


def test_entities_are_refused(docx: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(docx) as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    head, body = parts["word/document.xml"].split(b"\n", 1)
    parts["word/document.xml"] = (
        head + b'<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/hostname">]>' + body
    )
    _pack(tmp_path / "b.docx", parts)
    with pytest.raises(BrokenFile, match="document type"):
        read_office(tmp_path / "b.docx")


@pytest.mark.parametrize("share", [0.2, 0.6, 0.98])
def test_a_file_cut_short_is_broken(docx: Path, share: float) -> None:
    data = docx.read_bytes()
    docx.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BrokenFile) as caught:
        read_office(docx)
    assert caught.value.next_step


def test_changed_bytes_end_in_pages_or_a_clear_error(docx: Path) -> None:
    data = docx.read_bytes()
    for at in range(0, len(data), len(data) // 40):
        changed = bytearray(data)
        changed[at] ^= 0x55
        docx.write_bytes(changed)
        # Any other error fails the test.
        with suppress(InputError):
            assert read_office(docx)


def test_xml_that_is_not_whole_is_broken(docx: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(docx) as whole:
        parts = {name: whole.read(name) for name in whole.namelist()}
    parts["word/document.xml"] = parts["word/document.xml"][:500]
    _pack(tmp_path / "b.docx", parts)
    with pytest.raises(BrokenFile, match="DOCX"):
        read_office(tmp_path / "b.docx")


@pytest.mark.parametrize(
    ("stream", "error", "words"),
    [
        ("EncryptedPackage", PasswordRequired, "without a password"),
        ("WordDocument", UnsupportedFormat, ".docx"),
        ("Workbook", UnsupportedFormat, ".xlsx"),
        ("PowerPoint Document", UnsupportedFormat, ".pptx"),
        ("Other", UnsupportedFormat, "PDF"),
    ],
)
def test_compound_files_are_named(
    tmp_path: Path, stream: str, error: type[InputError], words: str
) -> None:
    path = tmp_path / "a.docx"
    path.write_bytes(OLE + bytes(1016) + stream.encode("utf-16-le").ljust(64, b"\0") + bytes(64))
    with pytest.raises(error) as caught:
        read_office(path)
    assert words in (caught.value.next_step or "")


def test_without_the_extra(docx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docling.backend.msword_backend", None)
    with pytest.raises(MissingDependency) as caught:
        read_office(docx)
    assert caught.value.next_step == "pip install 'octavo[office]'"


def _w(name: str) -> str:
    return "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}" + name


def _pack(path: Path, parts: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
