"""Pages of tables: unruled, with spans, with two levels of heads, ruled, scanned."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.documents.drawn import prose
from benchmarks.documents.drawn.scan import Scanner, scan
from benchmarks.documents.drawn.sheet import Column, Par, Sheet, Style


def invoice(path: Path) -> None:
    """An invoice whose table has no rulings at all."""
    sheet = Sheet(path)
    sheet.text(50, 70, "Quillfeather Paper Supply", "Helvetica-Bold", 18)
    for n, words in enumerate(("9 Mill Lane", "Eastbridge EB4 2QT", "orders@quillfeather.example")):
        sheet.text(50, 88 + 12 * n, words, "Helvetica", 9)
    sheet.text(545, 70, "INVOICE", "Helvetica-Bold", 18, "right")
    for n, (name, value) in enumerate(
        (("Invoice no.", "QF-20718"), ("Date", "14 March 2021"), ("Due", "13 April 2021"))
    ):
        sheet.text(400, 92 + 13 * n, name, "Helvetica", 9)
        sheet.text(545, 92 + 13 * n, value, "Helvetica", 9, "right")
    sheet.text(50, 165, "Bill to", "Helvetica-Bold", 10)
    sheet.text(50, 179, "Harrow & Daughters, Bookbinders", "Helvetica", 9)
    edges = (50, 115, 310, 370, 450, 545)
    sheet.cells([prose.INVOICE[0]], edges, 220, 16, "Helvetica-Bold", 9, "llrrr")
    bottom = sheet.cells(prose.INVOICE[1:], edges, 240, 18, "Helvetica", 9, "llrrr")
    totals = (("Subtotal", "712.40"), ("VAT 20%", "142.48"), ("Total due", "854.88"))
    for n, (name, value) in enumerate(totals):
        bold = "Helvetica-Bold" if n == 2 else "Helvetica"
        sheet.text(447, bottom + 26 + 16 * n, name, bold, 9, "right")
        sheet.text(542, bottom + 26 + 16 * n, value, bold, 9, "right")
    sheet.text(
        50,
        770,
        "Payment within thirty days by transfer. Thank you for your custom.",
        "Helvetica",
        8,
    )
    sheet.save()


def financial(path: Path) -> None:
    """A statement with years under spanning heads and sums under thin rules."""
    sheet = Sheet(path)
    sheet.text(60, 44, "Northwater Canal Company", "Helvetica", 8)
    sheet.text(535, 44, "Annual Report 2018", "Helvetica", 8, "right")
    sheet.text(60, 90, "Consolidated Statement of Income", "Times-Bold", 15)
    edges = (60, 255, 325, 395, 465, 535)
    sheet.text(325, 122, "Year ended 31 December", "Times-Bold", 9, "center")
    sheet.text(465, 122, "Half year to 30 June", "Times-Bold", 9, "center")
    sheet.line(258, 126, 392, 126, 0.5)
    sheet.line(398, 126, 532, 126, 0.5)
    sheet.cells(
        [("In thousands", "2018", "2017", "2018", "2017")], edges, 126, 15, "Times-Bold", 9, "lrrrr"
    )
    sheet.line(60, 144, 535, 144, 0.8)
    y = 146.0
    for row, bold in prose.INCOME:
        if bold:
            sheet.line(258, y + 2, 535, y + 2, 0.4)
            y += 3
        y = sheet.cells([row], edges, y, 15, "Times-Bold" if bold else "Times-Roman", 9, "lrrrr")
    sheet.line(60, y + 4, 535, y + 4, 0.8)
    note = Style(size=8, leading=10)
    sheet.flow([Par(prose.INCOME_NOTE, note)], [Column(60, y + 10, 475, 700)])
    sheet.text(297, 812, "62", "Helvetica", 8, "center")
    sheet.save()


def _booktabs(path: Path) -> None:
    sheet = Sheet(path, (595, 420))
    sheet.text(
        297, 48, "Table 4: Drying time and strength of five glues.", "Times-Roman", 10, "center"
    )
    edges = (90, 200, 265, 330, 395, 450, 505)
    sheet.line(90, 58, 505, 58, 1)
    sheet.text(297, 72, "Drying time (min)", "Times-Roman", 9.5, "center")
    sheet.text(450, 72, "Strength (N)", "Times-Roman", 9.5, "center")
    sheet.line(205, 77, 390, 77, 0.5)
    sheet.line(400, 77, 500, 77, 0.5)
    sheet.cells(
        [("Glue", "Cold", "Warm", "Hot", "Paper", "Cloth")],
        edges,
        77,
        15,
        size=9.5,
        aligns="lccccc",
    )
    sheet.line(90, 95, 505, 95, 0.6)
    bottom = sheet.cells(prose.GLUES, edges, 98, 16, size=9.5, aligns="lccccc")
    sheet.line(90, bottom + 4, 505, bottom + 4, 1)
    body = Style(size=10, leading=13)
    sheet.flow([Par(prose.GLUES_TEXT, body)], [Column(90, bottom + 20, 415, 400)])
    sheet.save()


def booktabs_scan(path: Path) -> None:
    """The same table from a scanner, slightly crooked."""
    with tempfile.TemporaryDirectory() as folder:
        clean = Path(folder) / "clean.pdf"
        _booktabs(clean)
        scan(clean, path, Scanner(200, skew=-1.3, blur=0.5, noise=5, paper=(0.97, 0.96, 0.93)))


def form(path: Path) -> None:
    """A ruled form with a cell over two rows and cells over several columns."""
    sheet = Sheet(path)
    sheet.text(297, 70, "Application for a Reader's Ticket", "Helvetica-Bold", 16, "center")
    edges = (60, 170, 290, 410, 535)
    heights = (28, 28, 28, 28, 28)
    top = 100.0
    spans = prose.FORM
    for row, col, down, right, words in spans:
        y = top + sum(heights[:row])
        height = sum(heights[row : row + down])
        width = edges[col + right] - edges[col]
        sheet.box(edges[col], y, width, height)
        sheet.text(edges[col] + 5, y + height / 2 + 3, words, "Helvetica", 9)
    sheet.flow([Par(prose.FORM_TEXT, Style("Helvetica", 9, 12))], [Column(60, 260, 475, 400)])
    sheet.save()


DOCUMENTS: dict[str, Callable[[Path], None]] = {
    "invoice.pdf": invoice,
    "financial.pdf": financial,
    "booktabs.pdf": _booktabs,
    "booktabs_scan.pdf": booktabs_scan,
    "form.pdf": form,
}
