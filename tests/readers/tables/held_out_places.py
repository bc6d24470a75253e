"""Tables in their places: in columns, over columns, sideways, as a form."""

from __future__ import annotations

from dataclasses import replace

from octavo.media.page import Ruling
from octavo.types import Box
from tests.readers.tables.table_cases import PAGE, Cell, Grid, Sheet, Spec, table

Drawn = tuple[Sheet, list[Grid]]


def two_in_columns() -> Drawn:
    """A table in each of two columns of prose, not at the same height."""
    sheet = Sheet(face="Times")
    rows: list[list[Spec]] = [
        ["k", "Train", "Test", "Gap"], ["1", "99.1", "71.0", "28.1"], ["3", "93.4", "76.6", "16.8"],
        ["5", "90.0", "78.2", "11.8"], ["9", "87.2", "77.9", "9.3"],
    ]  # fmt: skip
    y = sheet.prose(60, 295, 80, 10)
    a, box = table(
        sheet, 80, y + 10, (40, 50, 50, 50), rows, style="booktabs", align="lrrr", size=8
    )
    sheet.prose(60, 295, box.bottom + 24, 30)
    other: list[list[Spec]] = [
        ["Corpus", "Tokens", "Docs"], ["News", "1.2B", "3.1M"], ["Books", "0.8B", "11k"],
        ["Code", "0.4B", "0.9M"],
    ]  # fmt: skip
    y = sheet.prose(317, 552, 80, 18, start=30)
    b, box = table(sheet, 340, y + 10, (60, 60, 60), other, style="booktabs", align="lrr", size=8)
    sheet.prose(317, 552, box.bottom + 24, 20)
    return sheet, [a, b]


def over_both_columns() -> Drawn:
    sheet = Sheet(face="Times")
    rows: list[list[Spec]] = [
        ["Task", "Input", "Output", "Metric", "Train", "Dev", "Test"],
        ["NER", "sentence", "tags", "F1", "14,041", "3,250", "3,453"],
        ["Entailment", "two sentences", "label", "accuracy", "549,367", "9,842", "9,824"],
        ["Summaries", "article", "sentences", "ROUGE-L", "287,227", "13,368", "11,490"],
        ["Translation", "sentence", "sentence", "BLEU", "4.5M", "3,000", "3,003"],
    ]
    sheet.text(60, 80, "Table 1: The tasks with the sizes of their parts.", 9)
    grid, box = table(
        sheet, 60, 90, (75, 85, 75, 70, 65, 60, 62), rows, style="booktabs", align="llllrrr", size=9
    )
    y = box.bottom + 30
    sheet.prose(60, 295, y, 40)
    sheet.prose(317, 552, y, 40, start=20)
    return sheet, [grid]


def _turned(sheet: Sheet, angle: int) -> Sheet:
    """The page turned so that its lines run upwards (90) or downwards (270)."""

    def turn(box: Box) -> Box:
        if angle == 90:
            return Box(box.top, PAGE.right - box.right, box.bottom, PAGE.right - box.left)
        return Box(PAGE.bottom - box.bottom, box.left, PAGE.bottom - box.top, box.right)

    out = Sheet(turned=angle, texts=sheet.texts)
    out.words = [replace(w, box=turn(w.box), angle=float(angle)) for w in sheet.words]
    out.rulings = [Ruling(turn(r.box), not r.horizontal) for r in sheet.rulings]
    return out


def sideways_ruled() -> Drawn:
    sheet = Sheet()
    rows: list[list[Spec]] = [
        ["Station", Cell("Depth", cols=2), None, "Sediment", "Date"],
        ["", "min", "max", "", ""],
        ["A1", "12", "18", "silt, with shells", "3 May"],
        ["A2", "14", "22", "fine sand", "3 May"],
        ["B1", "31", "35", "clay", "5 May"],
        ["B2", "29", "40", "clay over\ngravel", "6 May"],
    ]
    grid, _ = table(sheet, 90, 150, (70, 50, 50, 110, 70), rows, style="ruled", align="lrrll")
    return _turned(sheet, 90), [grid]


def sideways_booktabs() -> Drawn:
    sheet = Sheet(face="Times")
    sheet.text(90, 140, "Table 9. Percent of households by income, sideways.", 9)
    rows: list[list[Spec]] = [
        ["Income", "Owners", "Renters", "All", "Missing"],
        ["Under 10,000", "12.1", "40.2", "24.4", "1.2"],
        ["10,000 to 20,000", "22.9", "33.0", "27.3", "0.8"],
        ["20,000 and over", "65.0", "26.8", "48.3", "2.9"],
    ]
    grid, _ = table(sheet, 90, 150, (110, 60, 60, 60, 60), rows, style="booktabs", align="lrrrr")
    return _turned(sheet, 270), [grid]


def form() -> Drawn:
    sheet = Sheet()
    sheet.text(200, 80, "Application for a permit", 14, True)
    rows: list[list[Spec]] = [
        [Cell("1. Applicant", cols=4), None, None, None],
        ["Last name", "Meyer", "First name", "Ruth"],
        ["Street", Cell("Hauptstrasse 12", cols=3), None, None],
        ["Town", "Bonn", "Postcode", "53111"],
        [Cell("2. Vehicle", cols=4), None, None, None],
        ["Make", "Opel", "Plate", "BN-RM 77"],
        [Cell("Kind of use", rows=2), "private", Cell("Weight", rows=2), "1,240 kg"],
        [None, "trade", None, "2,100 kg"],
    ]
    grid, _ = table(sheet, 90, 110, (90, 110, 90, 110), rows, style="ruled", size=9)
    return sheet, [grid]
