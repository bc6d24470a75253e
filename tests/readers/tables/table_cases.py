"""Tables drawn from a known grid: the words and lines of a page, and what its cells must be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from reportlab.pdfbase.pdfmetrics import stringWidth

from octavo.media.page import Ruling, Word
from octavo.types import Box

PAGE = Box(0, 0, 612, 792)
PROSE = [
    *("the", "model", "learns", "a", "mapping", "from", "tokens", "to", "features", "and", "its"),
    *("loss", "is", "averaged", "over", "all", "of", "the", "samples", "in", "a", "batch", "while"),
    *("the", "rate", "of", "learning", "falls", "with", "a", "cosine", "to", "a", "tenth", "of"),
    *("its", "first", "value", "so", "that", "later", "steps", "change", "less", "than", "early"),
    *("ones", "do", "and", "the", "result", "is", "stable", "over", "many", "runs", "as", "seen"),
]


@dataclass
class Sheet:
    """A page in the making."""

    words: list[Word] = field(default_factory=list)
    rulings: list[Ruling] = field(default_factory=list)
    #: What to draw on a picture of the page: x, baseline, text, font and size.
    texts: list[tuple[float, float, str, str, float]] = field(default_factory=list)
    #: Coloured backgrounds.
    bands: list[Box] = field(default_factory=list)
    face: str = "Helvetica"
    #: Degrees counter-clockwise by which the words and lines are turned (``texts`` are not).
    turned: int = 0

    def font(self, bold: bool = False) -> str:
        if self.face == "Times":
            return "Times-Bold" if bold else "Times-Roman"
        return self.face + ("-Bold" if bold else "")

    def text(self, x: float, y: float, text: str, size: float = 10, bold: bool = False) -> float:
        """Draw one line with its left end at ``x`` and its baseline at ``y``."""
        font = self.font(bold)
        self.texts.append((x, y, text, font, size))
        space: float = stringWidth(" ", font, size)
        for token in text.split(" "):
            width = stringWidth(token, font, size)
            if token:
                box = Box(x, y - 0.8 * size, x + width, y + 0.2 * size)
                self.words.append(Word(token, box, y, size, font, bold))
            x += width + space
        return x - space

    def aligned(
        self, span: tuple[float, float], y: float, text: str, *, how: str, size: float, bold: bool
    ) -> None:
        width = stringWidth(text, self.font(bold), size)
        left, right = span
        x = {"l": left, "r": right - width, "c": (left + right - width) / 2}[how]
        self.text(x, y, text, size, bold)

    def level(self, left: float, right: float, y: float, thick: float = 0.5) -> None:
        self.rulings.append(Ruling(Box(left, y - thick / 2, right, y + thick / 2), True))

    def upright(self, x: float, top: float, bottom: float, thick: float = 0.5) -> None:
        self.rulings.append(Ruling(Box(x - thick / 2, top, x + thick / 2, bottom), False))

    def prose(self, left: float, right: float, y: float, lines: int, start: int = 0) -> float:
        """Justified running text; returns the y below it."""
        at = start
        for _ in range(lines):
            line: list[str] = []
            while stringWidth(" ".join([*line, PROSE[at % len(PROSE)]]), self.font(), 10) < (
                right - left
            ):
                line.append(PROSE[at % len(PROSE)])
                at += 1
            widths = [stringWidth(word, self.font(), 10) for word in line]
            gap = (right - left - sum(widths)) / max(len(line) - 1, 1)
            x = left
            for word, width in zip(line, widths, strict=True):
                self.text(x, y, word)
                x += width + gap
            y += 12
        return y


@dataclass(frozen=True)
class Cell:
    """``text`` with ``\\n`` where it wraps."""

    text: str
    cols: int = 1
    rows: int = 1


Spec = str | Cell | None
Grid = list[list[str]]


@dataclass
class Case:
    """A page and the grids, spans expanded, of the tables on it, top to bottom, left to right."""

    name: str
    sheet: Sheet
    grids: list[Grid]


def table(
    sheet: Sheet,
    left: float,
    top: float,
    widths: Sequence[float],
    rows: Sequence[Sequence[Spec]],
    *,
    style: str,
    align: str = "",
    heads: int = 1,
    size: float = 10,
    leading: float = 11.5,
    pad: float = 2.5,
    bold_head: bool = False,
    rules_after: Sequence[int] = (),
    cmid: Sequence[tuple[int, int, int]] = (),
    outer: bool = True,
    middle: bool = False,
    bottom: bool = False,
    rules: Sequence[tuple[int, int, int]] = (),
    bands: bool = False,
) -> tuple[Grid, Box]:
    """Draw a table.

    Args:
        rows: cells by row; None where a span from above or the left covers the place.
        style: ``ruled``, ``booktabs``, ``columns`` (upright lines, level ones only as in
            ``rules_after``) or ``plain``.
        cmid: (row, first column, last column) of partial rules below a row.
        middle: cells with fewer lines stand in the vertical middle of their row.
        bottom: they stand at its lower end.
        rules: like ``cmid``, from edge to edge of their columns.
        bands: the first row and every other one after it has a coloured background.
    """
    align = align or "l" * len(widths)
    xs = [left]
    for width in widths:
        xs.append(xs[-1] + width)
    counts = [
        max(
            (_cell(c).text.count("\n") + 1 for c in row if c is not None and _cell(c).rows == 1),
            default=1,
        )
        for row in rows
    ]
    ys = [top]
    for count in counts:
        ys.append(ys[-1] + count * leading + 2 * pad)
    grid = [[""] * len(widths) for _ in rows]
    for r, row in enumerate(rows):
        for c, spec in enumerate(row):
            if spec is None:
                continue
            cell = _cell(spec)
            for rr in range(r, r + cell.rows):
                for cc in range(c, c + cell.cols):
                    grid[rr][cc] = cell.text.replace("\n", " ")
            lines = cell.text.split("\n")
            free = ys[r + cell.rows] - ys[r] - 2 * pad - len(lines) * leading
            down = 1.0 if bottom else 0.5 if cell.rows > 1 or middle else 0.0
            y = ys[r] + pad + 0.8 * size + free * down
            how = "c" if cell.cols > 1 else align[c]
            for line in lines:
                span = (xs[c] + 4, xs[c + cell.cols] - 4)
                bold = bold_head and r < heads
                sheet.aligned(span, y, line, how=how, size=size, bold=bold)
                y += leading
            if style == "ruled":
                box = Box(xs[c], ys[r], xs[c + cell.cols], ys[r + cell.rows])
                _frame(sheet, box, Box(xs[0], ys[0], xs[-1], ys[-1]), outer)
    if style in ("booktabs", "columns"):
        for at in {0, heads, len(rows), *rules_after}:
            sheet.level(xs[0], xs[-1], ys[at])
    for row_at, first, last in cmid:
        sheet.level(xs[first] + 3, xs[last + 1] - 3, ys[row_at + 1])
    for row_at, first, last in rules:
        sheet.level(xs[first], xs[last + 1], ys[row_at + 1])
    if bands:
        sheet.bands += [Box(xs[0], ys[r], xs[-1], ys[r + 1]) for r in range(0, len(rows), 2)]
    if style == "columns":
        for x in xs if outer else xs[1:-1]:
            sheet.upright(x, ys[0], ys[-1])
    return grid, Box(xs[0], ys[0], xs[-1], ys[-1])


def cells_of(*texts: str) -> list[Spec]:
    """A row of plain cells."""
    return list(texts)


def _cell(spec: Spec) -> Cell:
    return spec if isinstance(spec, Cell) else Cell(spec or "")


def _frame(sheet: Sheet, cell: Box, whole: Box, outer: bool) -> None:
    for y in (cell.top, cell.bottom):
        if outer or whole.top < y < whole.bottom:
            sheet.level(cell.left, cell.right, y)
    for x in (cell.left, cell.right):
        if outer or whole.left < x < whole.right:
            sheet.upright(x, cell.top, cell.bottom)


SALES: list[list[Spec]] = [
    ["Region", "Units", "Revenue", "Share"],
    ["North", "1,204", "$48,160", "31.2%"],
    ["South America", "986", "$39,440", "25.5%"],
    ["East", "", "$42,010", "27.2%"],
    ["West", "621", "-$24,840", "16.1%"],
]
MODELS: list[list[Spec]] = [
    ["Method", "Params", "Top-1", "Top-5"],
    ["ResNet 50", "25.6M", "76.1 ± 0.2", "92.9"],
    ["ViT base 16", "86M", "81.8 ± 0.1", "95.6"],
    ["ConvNeXt tiny", "29M", "82.1", "–"],
    ["Swin base", "88M", "83.5*", "96.5"],
    ["Ours", "31M", "84.0 ± 0.3", "96.9"],
]
GROUPED: list[list[Spec]] = [
    ["", Cell("Validation", cols=2), None, Cell("Test set", cols=2), None],
    ["Model", "F1", "EM", "F1", "EM"],
    ["BERT base", "88.5", "80.8", "88.1", "80.2"],
    ["BERT large", "90.9", "84.1", "91.0", "84.3"],
    ["XLNet", "93.4", "87.9", "93.2", "87.1"],
]
WRAPPED: list[list[Spec]] = [
    ["Item", "Description", "Qty"],
    ["Bolt", "Hexagonal head, zinc\nplated, metric thread", "40"],
    ["Washer", "Flat", "80"],
    ["Bracket", "Steel, for the left side of\nthe frame, pre-drilled and\npainted", "2"],
    ["Nut", "Self-locking", "40"],
]
WIDE = (110.0, 70.0, 90.0, 80.0)


def _single(
    rows: list[list[Spec]], widths: Sequence[float], **options: Any
) -> Callable[[], tuple[Sheet, list[Grid]]]:
    def draw() -> tuple[Sheet, list[Grid]]:
        sheet = Sheet()
        y = sheet.prose(72, 540, 90, 4)
        sheet.text(72, y + 10, "Table 1. Figures of the year, by kind.", 9)
        grid, box = table(sheet, 90, y + 24, widths, rows, **options)
        sheet.text(72, box.bottom + 14, "Note: rounded to the last digit shown, see the text.", 8)
        sheet.prose(72, 540, box.bottom + 40, 8, start=9)
        return sheet, [grid]

    return draw


def _in_column() -> tuple[Sheet, list[Grid]]:
    """A booktabs table inside the left of two columns of running text."""
    sheet = Sheet()
    y = sheet.prose(60, 295, 80, 12)
    grid, box = table(
        sheet, 64, y + 14, (88, 44, 60, 36), MODELS, style="booktabs", align="lrrr", size=9
    )
    sheet.prose(60, 295, box.bottom + 30, 20, start=5)
    sheet.prose(317, 552, 80, 45, start=21)
    return sheet, [grid]


def _side_by_side(style: str) -> Callable[[], tuple[Sheet, list[Grid]]]:
    def draw() -> tuple[Sheet, list[Grid]]:
        sheet = Sheet()
        rows_a: list[list[Spec]] = [["Year", "Rain"], ["2019", "812"], ["2020", "790"]]
        rows_b: list[list[Spec]] = [["Site", "Depth"], ["Lake", "4.1"], ["Shore", "0.3"]]
        rows_a.append(["2021", "933"])
        rows_b.append(["Weir", "2.2"])
        a, _ = table(sheet, 80, 100, (60, 60), rows_a, style=style, align="lr")
        b, _ = table(sheet, 320, 100, (70, 60), rows_b, style=style, align="lr")
        return sheet, [a, b]

    return draw


def _stacked() -> tuple[Sheet, list[Grid]]:
    sheet = Sheet()
    a, box = table(sheet, 90, 100, WIDE, SALES, style="booktabs", align="lrrr")
    sheet.text(90, box.bottom + 24, "Table 2. Another one of the same width.", 9)
    b, _ = table(sheet, 90, box.bottom + 34, WIDE, MODELS, style="booktabs", align="lrrr")
    return sheet, [a, b]


SECTIONS: list[list[Spec]] = [
    ["Setting", "Low", "High"],
    [Cell("Indoor experiments", cols=3), None, None],
    ["Office", "0.12", "0.98"],
    ["Hall", "0.33", "0.91"],
    [Cell("Outdoor experiments", cols=3), None, None],
    ["Street", "0.08", "0.77"],
    ["Forest", "0.05", "0.69"],
]
RULED_SPANS: list[list[Spec]] = [
    [Cell("Category", rows=2), Cell("Results", cols=2), None, Cell("Count", rows=2)],
    [None, "Accuracy", "Time to\ncomplete", None],
    [Cell("Blind", rows=2), "34.5%", "1199 sec", "5"],
    [None, "98.3%", "1716 sec", "4"],
    ["Low vision", "97.7%", "1934 sec", "3"],
]
BALANCE: list[list[Spec]] = [
    ["", "", "2023", "", "2022"],
    ["Net sales", "$", "274,515", "$", "260,174"],
    ["Cost of sales", "", "169,559", "", "161,782"],
    ["Gross margin", "", "104,956", "", "98,392"],
    ["Operating income", "$", "66,288", "$", "63,930"],
]
BALANCE_GRID: Grid = [
    ["", "2023", "2022"],
    ["Net sales", "$ 274,515", "$ 260,174"],
    ["Cost of sales", "169,559", "161,782"],
    ["Gross margin", "104,956", "98,392"],
    ["Operating income", "$ 66,288", "$ 63,930"],
]
WRAPPED_HEAD: list[list[Spec]] = [
    ["Inhibitor\nconcentration (g)", "bc (V/dec)", "Ecorr (V)", "Polarization\nresistance", "Rate"],
    ["0", "0.0335", "−0.9393", "24.0910", "2.8163"],
    ["2", "1.9460", "−0.8276", "121.440", "1.5054"],
    ["4", "0.0163", "−0.8825", "42.121", "0.9476"],
    ["10", "0.0382", "−0.5356", "246.080", "0.0919"],
]
LABELS: list[list[Spec]] = [
    ["Country", "Capital", "Language"],
    ["Chile", "Santiago", "Spanish"],
    ["Kenya", "Nairobi", "Swahili"],
    ["Norway", "Oslo", "Norwegian"],
    ["Japan", "Tokyo", "Japanese"],
    ["New Zealand", "Wellington", "English"],
]
TIGHT: list[list[Spec]] = [
    ["Run", "a", "b", "c", "d", "e", "f"],
    *[
        cells_of(f"run {i}", *[f"{(i * 7 + j * 13) % 90 + 10}.{i}{j}" for j in range(6)])
        for i in range(7)
    ],
]


def _balance() -> tuple[Sheet, list[Grid]]:
    sheet = Sheet()
    sheet.prose(72, 540, 90, 4)
    table(sheet, 90, 160, (130, 16, 70, 30, 70), BALANCE, style="plain", align="llrlr")
    return sheet, [BALANCE_GRID]


def _group_rules() -> tuple[Sheet, list[Grid]]:
    draw = _single(
        GROUPED,
        (90, 50, 50, 50, 50),
        style="booktabs",
        align="lrrrr",
        heads=2,
        cmid=[(0, 1, 2), (0, 3, 4)],
    )
    return draw()


def cases() -> list[Case]:
    """All drawn pages with tables."""
    five = (90.0, 50.0, 50.0, 50.0, 50.0)
    draws: dict[str, Callable[[], tuple[Sheet, list[Grid]]]] = {
        "ruled": _single(SALES, WIDE, style="ruled", align="lrrr"),
        "ruled centred": _single(MODELS, WIDE, style="ruled", align="lccc", bold_head=True),
        "ruled, no outer border": _single(SALES, WIDE, style="ruled", align="lrrr", outer=False),
        "ruled, wrapped cells": _single(WRAPPED, (80, 150, 50), style="ruled"),
        "ruled, cells in the middle": _single(WRAPPED, (80, 150, 50), style="ruled", middle=True),
        "ruled, spans": _single(RULED_SPANS, (80, 70, 80, 60), style="ruled", heads=2),
        "ruled, grouped heads": _single(GROUPED, five, style="ruled", heads=2),
        "ruled, words only": _single(LABELS, (90, 90, 90), style="ruled"),
        "upright lines, few level": _single(
            MODELS, WIDE, style="columns", align="lccc", rules_after=[5]
        ),
        "inner upright lines only": _single(
            MODELS, WIDE, style="columns", align="lccc", outer=False
        ),
        "booktabs": _single(SALES, WIDE, style="booktabs", align="lrrr"),
        "booktabs models": _single(MODELS, WIDE, style="booktabs", align="lccc"),
        "booktabs, rules between rows": _single(
            WRAPPED, (80, 150, 50), style="booktabs", rules_after=[2, 3, 4]
        ),
        "booktabs, wrapped cells": _single(WRAPPED, (80, 150, 50), style="booktabs"),
        "booktabs, wrapped, loose": _single(WRAPPED, (80, 150, 50), style="booktabs", pad=5),
        "booktabs, grouped heads": _group_rules,
        "booktabs, grouped, no partial rule": _single(
            GROUPED, five, style="booktabs", align="lrrrr", heads=2
        ),
        "booktabs, sections": _single(SECTIONS, (120, 60, 60), style="booktabs", align="lrr"),
        "booktabs, wrapped heads": _single(WRAPPED_HEAD, (95, 65, 65, 75, 55), style="booktabs"),
        "booktabs, tight": _single(TIGHT, (44, *[36] * 6), style="booktabs", align="lrrrrrr"),
        "booktabs, words only": _single(LABELS, (80, 80, 80), style="booktabs"),
        "plain numbers": _single(SALES, WIDE, style="plain", align="lrrr"),
        "plain models": _single(MODELS, WIDE, style="plain", align="lrrr", bold_head=True),
        "plain words": _single(LABELS, (100, 100, 100), style="plain", bold_head=True),
        "plain wrapped heads": _single(WRAPPED_HEAD, (100, 75, 75, 80, 60), style="plain"),
        "plain tight": _single(TIGHT, (50, *[44] * 6), style="plain", align="lrrrrrr"),
        "balance sheet": _balance,
        "in one column": _in_column,
        "two ruled, side by side": _side_by_side("ruled"),
        "two booktabs, side by side": _side_by_side("booktabs"),
        "two booktabs, stacked": _stacked,
    }
    return [Case(name, *draw()) for name, draw in draws.items()]


def expanded(rows: int, cols: int, cells: Sequence[tuple[int, int, int, int, str]]) -> Grid:
    """The grid of (row, col, row span, col span, text) with the text in every place it covers."""
    grid = [[""] * cols for _ in range(rows)]
    for row, col, down, across, text in cells:
        for r in range(row, row + down):
            for c in range(col, col + across):
                grid[r][c] = text
    return grid


def neighbours(grid: Grid) -> list[tuple[str, str, str]]:
    """Rules (text, direction, neighbour) that hold in a grid: what a reader of it relies on."""
    out = []
    for r, row in enumerate(grid):
        for c, text in enumerate(row):
            if not text:
                continue
            for name, dr, dc in (("up", -1, 0), ("down", 1, 0), ("left", 0, -1), ("right", 0, 1)):
                rr, cc = r + dr, c + dc
                if 0 <= rr < len(grid) and 0 <= cc < len(row):
                    other = grid[rr][cc]
                    if other and other != text:
                        out.append((text, name, other))
    return sorted(set(out))


def score(found: Sequence[Grid], wanted: Grid) -> float:
    """The share of the rules of ``wanted`` that hold in the best of the grids found."""
    rules = neighbours(wanted)
    held = [set(neighbours(_plain(grid))) for grid in found]
    return max(
        (sum(1 for rule in rules if _plain_rule(rule) in h) / len(rules) for h in held), default=0.0
    )


def _plain(grid: Grid) -> Grid:
    return [[_squeeze(text) for text in row] for row in grid]


def _plain_rule(rule: tuple[str, str, str]) -> tuple[str, str, str]:
    return _squeeze(rule[0]), rule[1], _squeeze(rule[2])


def _squeeze(text: str) -> str:
    """Spaces do not count: "$ 12" and "$12" are one text; nor do the kinds of minus."""
    return "".join(text.split()).replace("−", "-").replace("–", "-")
