"""Tables of many makes, drawn before the code had seen them: statements, forms, old print."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from octavo.media.page import Word
from octavo.types import Box
from tests.readers.tables.held_out_places import (
    Drawn,
    form,
    over_both_columns,
    sideways_booktabs,
    sideways_ruled,
    two_in_columns,
)
from tests.readers.tables.table_cases import Case, Cell, Grid, Sheet, Spec, cells_of, table


def _column(rows: Sequence[Sequence[Spec]], drop: Sequence[int]) -> Grid:
    """The grid that remains when each column of signs is joined to the number on its right."""
    out: Grid = []
    for row in rows:
        texts: list[str] = []
        carried = ""
        for at, spec in enumerate(row):
            text = (spec.text if isinstance(spec, Cell) else spec or "").replace("\n", " ")
            if at in drop:
                carried = text
                continue
            texts.append(f"{carried} {text}".strip())
            carried = ""
        out.append(texts)
    return out


def income_statement() -> Drawn:
    sheet = Sheet(face="Times")
    sheet.prose(72, 540, 80, 3)
    sheet.text(180, 135, "CONSOLIDATED STATEMENTS OF INCOME", 10, True)
    head: list[list[Spec]] = [
        ["", Cell("Three months ended", cols=2), None, Cell("Six months ended", cols=2), None],
        ["(in millions)", "June 2021", "June 2020", "June 2021", "June 2020"],
    ]
    body: list[list[Spec]] = [
        ["Product revenue", "1,204", "1,118", "2,390", "2,207"],
        ["Service revenue", "311", "290", "618", "571"],
        ["Total revenue", "1,515", "1,408", "3,008", "2,778"],
        ["Cost of products", "(702)", "(690)", "(1,398)", "(1,350)"],
        ["Cost of services", "(95)", "(88)", "(187)", "(171)"],
        ["Impairment", "–", "(12)", "–", "(12)"],
        ["Operating profit", "718", "618", "1,423", "1,245"],
    ]
    grid, _ = table(
        sheet, 80, 150, (150, 70, 70, 70, 70), [*head, *body], style="plain", align="lrrrr",
        heads=2, cmid=[(0, 1, 2), (0, 3, 4)], rules=[(3, 1, 4), (7, 1, 4), (8, 1, 4)],
    )  # fmt: skip
    return sheet, [grid]


def currency_apart() -> Drawn:
    sheet = Sheet(face="Times")
    rows: list[list[Spec]] = [
        ["December 31,", "", "2022", "", "2021"],
        ["Cash", "$", "41,200", "$", "38,911"],
        ["Receivables, net", "", "17,034", "", "16,200"],
        ["Inventory (note 4)", "", "9,871", "", "10,433"],
        ["Less: allowance", "", "(1,204)", "", "(987)"],
        ["Total current assets", "$", "66,901", "$", "64,557"],
    ]
    sheet.prose(72, 540, 90, 5)
    table(
        sheet, 72, 180, (170, 14, 70, 30, 70), rows, style="plain", align="llrlr",
        rules=[(0, 1, 2), (0, 3, 4), (4, 1, 2), (4, 3, 4), (5, 1, 2), (5, 3, 4)],
    )  # fmt: skip
    sheet.prose(72, 540, 320, 12)
    return sheet, [_column(rows, (1, 3))]


THREE: list[list[Spec]] = [
    [Cell("Method", rows=3), Cell("Seen classes", cols=4), None, None, None,
     Cell("Unseen", cols=2), None],
    [None, Cell("Precision", cols=2), None, Cell("Recall", cols=2), None,
     Cell("Precision", cols=2), None],
    [None, "small", "large", "small", "large", "small", "large"],
    ["Baseline", "41.2", "55.0", "38.1", "49.7", "12.2", "19.9"],
    ["+ mixing", "43.0", "57.1", "39.4", "51.2", "15.8", "22.0"],
    ["+ mixing, longer", "44.9", "58.3", "40.0", "52.6", "17.1", "24.3"],
    ["Oracle", "61.0", "70.2", "58.8", "66.1", "60.4", "69.9"],
]  # fmt: skip


def three_levels_ruled() -> Drawn:
    sheet = Sheet(face="Times")
    y = sheet.prose(72, 540, 90, 6)
    sheet.text(72, y + 8, "Table 3: Ablation over the two splits, best in bold.", 9)
    grid, box = table(
        sheet, 80, y + 20, (100, *[56] * 6), THREE, style="booktabs", align="lcccccc", heads=3,
        cmid=[(0, 1, 4), (0, 5, 6), (1, 1, 2), (1, 3, 4), (1, 5, 6)], size=9, leading=11,
    )  # fmt: skip
    sheet.prose(72, 540, box.bottom + 30, 10)
    return sheet, [grid]


def three_levels_bare() -> Drawn:
    sheet = Sheet()
    grid, box = table(
        sheet, 80, 120, (100, *[62] * 6), THREE, style="booktabs", align="lrrrrrr", heads=3
    )
    sheet.prose(72, 540, box.bottom + 30, 10)
    return sheet, [grid]


def section_rows() -> Drawn:
    """Section titles in plain letters, their rows set in."""
    sheet = Sheet(face="Times")
    rows: list[list[Spec]] = [
        ["Characteristic", "Control (n = 41)", "Treated (n = 44)", "p"],
        ["Age, mean (SD)", "61.2 (8.4)", "60.8 (9.1)", "0.82"],
        ["Sex, n (%)", "", "", ""],
        ["    Female", "22 (54)", "25 (57)", "0.77"],
        ["    Male", "19 (46)", "19 (43)", ""],
        ["Stage, n (%)", "", "", "0.31"],
        ["    I", "10 (24)", "8 (18)", ""],
        ["    II", "17 (41)", "24 (55)", ""],
        ["    III", "14 (34)", "12 (27)", ""],
        ["Follow-up, months", "18.4", "18.9", "0.64"],
    ]
    grid, box = table(
        sheet, 90, 140, (120, 100, 100, 50), rows, style="booktabs", align="lccc", size=9
    )
    sheet.text(90, box.bottom + 11, "SD, standard deviation. p from Welch's test.", 8)
    sheet.prose(72, 540, box.bottom + 40, 12)
    grid = [[text.strip() for text in row] for row in grid]
    return sheet, [grid]


def totals_and_units() -> Drawn:
    sheet = Sheet()
    rows: list[list[Spec]] = [
        ["Crop", "Area", "Yield", "Output"],
        ["", "(1000 ha)", "(t/ha)", "(1000 t)"],
        ["Wheat", "3,120", "7.4", "23,088"],
        ["Barley", "1,540", "6.1", "9,394"],
        ["Oats", "120", "4.9", "588"],
        ["Total", "4,780", "6.9", "33,070"],
    ]
    grid, box = table(
        sheet, 120, 150, (100, 80, 70, 80), rows, style="booktabs", align="lrrr", heads=2,
        rules_after=[5],
    )  # fmt: skip
    sheet.prose(72, 540, box.bottom + 30, 12)
    return sheet, [[["Crop", "Area (1000 ha)", "Yield (t/ha)", "Output (1000 t)"], *grid[2:]]]


def footnote_marks() -> Drawn:
    sheet = Sheet(face="Times")
    rows: list[list[Spec]] = [
        ["Drug", "Dose", "Onset (h)", "Half-life"],
        ["Amlodipine", "5–10 mg", "6–8", "35 h†"],
        ["Felodipine*", "2.5–10 mg", "2–5", "14 h"],
        ["Isradipine", "2.5 mg b.i.d.", "1–2", "8 h"],
        ["Nifedipine‡", "30–90 mg", "6", "2 h§"],
    ]
    sheet.prose(72, 540, 90, 4)
    grid, box = table(sheet, 100, 160, (100, 100, 70, 70), rows, style="booktabs", bold_head=True)
    for at, mark in enumerate(("* Extended release.", "† In the elderly up to 58 h.", "‡ Coated.")):
        sheet.text(100, box.bottom + 11 + 10 * at, mark, 8)
    for word in [w for w in sheet.words if w.text == "Dose"]:
        sheet.words.append(
            Word("a", Box(word.box.right, word.box.top - 2, word.box.right + 3, word.box.top + 5),
                 word.box.top + 3.6, 6.0)
        )  # fmt: skip
        sheet.texts.append((word.box.right, word.box.top + 3.6, "a", "Times-Roman", 6.0))
    grid[0][1] = "Dosea"
    return sheet, [grid]


def dotted() -> Drawn:
    """Dot leaders from the label to the first number, as in old reports."""
    sheet = Sheet(face="Times")
    names = ("Massachusetts", "Connecticut", "Rhode Island", "New York", "Pennsylvania", "Ohio")
    values = [("612", "1,041", "18.2"), ("377", "640", "17.0"), ("81", "122", "9.6"),
              ("1,905", "2,844", "22.7"), ("1,412", "2,070", "21.1"),
              ("940", "1,377", "14.4")]  # fmt: skip
    wanted: Grid = [["State", "Mills", "Hands", "Wages"]]
    sheet.prose(90, 520, 90, 6)
    y = 190.0
    for x, head in ((110, "State"), (300, "Mills"), (370, "Hands"), (440, "Wages")):
        sheet.text(x, y, head, 10)
    sheet.level(100, 500, y - 12)
    sheet.level(100, 500, y + 5)
    for name, row in zip(names, values, strict=True):
        y += 14
        end = sheet.text(110, y, name)
        while end < 280:
            end = sheet.text(end + 4, y, ".")
        for x, text in zip((326, 396, 466), row, strict=True):
            sheet.aligned((x - 60, x), y, text, how="r", size=10, bold=False)
        wanted.append([name, *row])
    sheet.level(100, 500, y + 6)
    sheet.prose(90, 520, y + 40, 10)
    return sheet, [wanted]


def old_print() -> Drawn:
    """Upright lines, a double top line, ditto marks."""
    sheet = Sheet(face="Times")
    rows: list[list[Spec]] = [
        ["No. of\nexperiment.", "Kind of wire.", "Length,\nin feet.", "Current.", "Remarks."],
        ["1", "Copper", "40", "6.2", "Steady."],
        ["2", '"', "80", "3.3", '"'],
        ["3", "Iron", "40", "1.1", "Wire heated."],
        ["4", '"', "80", "0.6", "Irregular."],
        ["5", "German silver", "40", "0.5", "Steady."],
    ]
    sheet.prose(80, 530, 90, 8)
    grid, box = table(
        sheet, 90, 200, (70, 100, 70, 70, 110), rows, style="columns", align="clccl", outer=False
    )
    sheet.level(90, 510, 197)
    sheet.prose(80, 530, box.bottom + 24, 12)
    return sheet, [grid]


def banded() -> Drawn:
    sheet = Sheet()
    rows: list[list[Spec]] = [
        ["Month", "Rain (mm)", "Sun (h)", "Frost days"],
        *[cells_of(m, f"{40 + i * 7 % 31}", f"{50 + i * 37 % 170}.{i}", f"{(9 - i) % 7}")
          for i, m in enumerate(("January", "February", "March", "April", "May", "June", "July"))],
    ]  # fmt: skip
    sheet.prose(72, 540, 90, 4)
    grid, box = table(
        sheet, 110, 160, (100, 90, 90, 90), rows, style="plain", align="lrrr", bands=True, pad=4
    )
    sheet.prose(72, 540, box.bottom + 30, 10)
    return sheet, [grid]


def banded_words() -> Drawn:
    sheet = Sheet()
    rows: list[list[Spec]] = [
        ["Plan", "Storage", "Support", "Price"],
        ["Starter", "10 GB", "Forum", "free"],
        ["Team", "100 GB", "E-mail, one day", "$8 a month"],
        ["Business", "1 TB", "Telephone", "$19 a month"],
        ["Enterprise", "as agreed", "Own engineer", "on request"],
    ]
    grid, box = table(
        sheet, 90, 160, (90, 90, 130, 100), rows, style="plain", bold_head=True, bands=True, pad=5
    )
    sheet.prose(72, 540, box.bottom + 40, 10)
    return sheet, [grid]


def wrapped_middle() -> Drawn:
    """Cells with one line stand beside the middle of cells with several."""
    sheet = Sheet(face="Times")
    rows: list[list[Spec]] = [
        ["Factor", "What it stands for", "Low", "High"],
        ["Temperature", "Mean of the three sensors in\nthe upper chamber", "20 °C", "35 °C"],
        ["Flow", "Rate of the pump, set by hand", "1.2 l/s", "3.5 l/s"],
        ["Time", "From the first drop to the\nlast, with the pauses in\nbetween", "10 min",
         "45 min"],
        ["Acid", "Concentration at the inlet of\nthe column", "0.1 M", "0.5 M"],
    ]  # fmt: skip
    grid, box = table(sheet, 80, 150, (80, 160, 60, 60), rows, style="booktabs", middle=True, pad=4)
    sheet.prose(72, 540, box.bottom + 40, 10)
    return sheet, [grid]


def sparse() -> Drawn:
    sheet = Sheet()
    rows: list[list[Spec]] = [
        ["Feature", "A", "B", "C", "D", "E"],
        ["Layout", "yes", "", "yes", "", ""],
        ["Tables", "", "yes", "yes", "", "yes"],
        ["Formulas", "", "", "", "yes", ""],
        ["Headings", "yes", "yes", "yes", "yes", "yes"],
        ["Footnotes", "", "", "yes", "", ""],
    ]
    grid, box = table(sheet, 100, 150, (90, *[50] * 5), rows, style="booktabs", align="lccccc")
    sheet.prose(72, 540, box.bottom + 40, 10)
    return sheet, [grid]


def small_and_dense() -> Drawn:
    sheet = Sheet()
    rows: list[list[Spec]] = [
        ["ISO", *[f"{2010 + i}" for i in range(10)]],
        *[cells_of(code, *[f"{(k * 131 + i * 57) % 890 + 100 + (i * 7 % 10) / 10:.1f}"
                           for i in range(10)])
          for k, code in enumerate("AUT BEL CHE DEU ESP FRA GBR ITA NLD".split())],
    ]  # fmt: skip
    grid, box = table(
        sheet, 100, 150, (40, *[34] * 10), rows, style="plain", align="l" + "r" * 10, size=7,
        leading=8, pad=1,
    )  # fmt: skip
    sheet.prose(72, 540, box.bottom + 40, 10)
    return sheet, [grid]


def groups_on_the_left() -> Drawn:
    """A name of a group stands beside its first row only; rules part the groups."""
    sheet = Sheet(face="Times")
    rows: list[list[Spec]] = [
        ["Size", "Model", "BLEU", "chrF"],
        ["Small", "LSTM", "21.3", "48.0"],
        ["", "GRU", "20.9", "47.7"],
        ["", "Conv", "22.0", "48.8"],
        ["Large", "Transformer", "28.4", "55.1"],
        ["", "+ back-translation", "30.2", "56.9"],
    ]
    grid, box = table(
        sheet, 100, 150, (70, 120, 60, 60), rows, style="booktabs", align="llrr", rules_after=[4]
    )
    sheet.prose(72, 540, box.bottom + 40, 10)
    return sheet, [grid]


def ruled_groups() -> Drawn:
    sheet = Sheet(face="Times")
    rows: list[list[Spec]] = [
        [Cell("Class", rows=2), Cell("Subject", rows=2), Cell("Marks", cols=3), None, None],
        [None, None, "oral", "written", "total"],
        [Cell("Fifth", rows=3), "Latin", "31", "44", "75"],
        [None, "Greek", "28", "39", "67"],
        [None, "History", "35", "41", "76"],
        [Cell("Sixth", rows=2), "Latin", "30", "40", "70"],
        [None, "Physics", "22", "47", "69"],
    ]
    grid, _ = table(
        sheet, 100, 150, (60, 80, 50, 55, 50), rows, style="ruled", align="llrrr", heads=2
    )
    return sheet, [grid]


def plus_minus() -> Drawn:
    sheet = Sheet(face="Times")
    rows: list[list[Spec]] = [
        ["Effect", "β", "95% CI", "t", "p"],
        ["Intercept", "2.31", "[1.90, 2.72]", "11.04", "< .001"],
        ["Age", "−0.04", "[−0.09, 0.01]", "−1.58", ".114"],
        ["Group × time", "0.77", "[0.41, 1.13]", "4.20", "< .001"],
        ["Group", "0.12", "[−0.30, 0.54]", "0.56", ".575"],
    ]
    grid, box = table(sheet, 100, 150, (100, 50, 90, 50, 60), rows, style="booktabs", align="lcccc")
    sheet.prose(72, 540, box.bottom + 40, 10)
    return sheet, [grid]


def timetable() -> Drawn:
    sheet = Sheet()
    rows: list[list[Spec]] = [
        ["Station", "IC 701", "RE 12", "RE 14", "IC 703"],
        ["Harbour", "6:02", "6:31", "7:01", "7:32"],
        ["Old Town", "6:09", "6:40", "7:10", "7:39"],
        ["Mill Lane", "–", "6:47", "7:17", "–"],
        ["Airport", "6:24", "7:05", "7:35", "7:54"],
    ]
    grid, box = table(
        sheet, 90, 150, (100, 70, 70, 70, 70), rows, style="plain", align="lrrrr", bold_head=True
    )
    sheet.prose(72, 540, box.bottom + 40, 10)
    return sheet, [grid]


def week() -> Drawn:
    sheet = Sheet()
    rows: list[list[Spec]] = [
        ["", "Monday", "Tuesday", "Wednesday"],
        ["9–10", Cell("Algebra\nRoom 4", rows=2), "Optics", "Chemistry"],
        ["10–11", None, Cell("Laboratory", rows=2), "Seminar"],
        ["11–12", "Drawing", None, "Seminar B"],
        ["12–1", Cell("Lunch", cols=3), None, None],
    ]
    grid, _ = table(sheet, 90, 150, (60, 90, 90, 90), rows, style="ruled", align="lccc")
    return sheet, [grid]


def small_statement() -> Drawn:
    """A label and one number, no lines but one above the total."""
    sheet = Sheet(face="Times")
    sheet.prose(72, 540, 90, 6)
    rows: list[list[Spec]] = [
        ["Subscriptions", "14,220"],
        ["Donations", "3,105"],
        ["Interest", "212"],
        ["Sale of books", "1,870"],
        ["Total receipts", "19,407"],
    ]
    grid, box = table(
        sheet, 120, 180, (220, 80), rows, style="plain", align="lr", heads=0, rules=[(3, 1, 1)]
    )
    sheet.prose(72, 540, box.bottom + 30, 14)
    return sheet, [grid]


def wide_heads() -> Drawn:
    """Headings far wider than their numbers, wrapped to three lines, set at the bottom."""
    sheet = Sheet()
    rows: list[list[Spec]] = [
        ["Fund", "Net asset value\nper share at the\nstart of the year", "Income from\ninvestments",
         "Expenses as a\npart of assets"],
        ["Growth", "12.40", "0.31", "0.8%"],
        ["Income", "9.77", "0.62", "0.6%"],
        ["Balanced", "11.02", "0.44", "0.7%"],
    ]  # fmt: skip
    grid, box = table(
        sheet, 90, 150, (80, 110, 90, 100), rows, style="booktabs", align="lccc", bottom=True
    )
    sheet.prose(72, 540, box.bottom + 40, 10)
    return sheet, [grid]


#: Twenty-six drawings.
DRAWINGS: tuple[Callable[[], Drawn], ...] = (
    income_statement, currency_apart, three_levels_ruled, three_levels_bare, section_rows,
    totals_and_units, footnote_marks, dotted, old_print, two_in_columns, over_both_columns,
    sideways_ruled, sideways_booktabs, form, banded, banded_words, wrapped_middle, sparse,
    small_and_dense, groups_on_the_left, ruled_groups, plus_minus, timetable, week,
    small_statement, wide_heads,
)  # fmt: skip


def held_out() -> list[Case]:
    return [Case(draw.__name__.replace("_", " "), *draw()) for draw in DRAWINGS]
