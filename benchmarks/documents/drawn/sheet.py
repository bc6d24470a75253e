"""A page to draw on: text that flows over columns, rulings and tables, bytes always the same.

All places are in points from the top left corner, as a reader sees the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import reportlab
from reportlab.lib.pagesizes import A4
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

#: The Bitstream Vera that reportlab brings, embedded when drawn; it has the ligatures.
SANS = "Vera"
SANS_BOLD = "VeraBd"
SOFT_HYPHEN = "\u00ad"


@dataclass(frozen=True, slots=True)
class Style:
    """How a paragraph is set; lengths in points."""

    font: str = "Times-Roman"
    size: float = 10.0
    leading: float = 12.0
    indent: float = 0.0
    hanging: float = 0.0
    before: float = 0.0
    after: float = 0.0
    justify: bool = True
    color: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Par:
    """A paragraph; soft hyphens mark where a word may be split."""

    text: str
    style: Style


@dataclass(frozen=True, slots=True)
class Column:
    """Where text flows: left edge, top, width and bottom."""

    x: float
    top: float
    width: float
    bottom: float


class Sheet:
    """One or more pages of a PDF."""

    def __init__(self, path: Path, size: tuple[float, float] = A4) -> None:
        _register_fonts()
        self.width, self.height = size
        self.canvas = Canvas(str(path), pagesize=size, invariant=1)

    def save(self) -> None:
        self.canvas.save()

    def text(
        self,
        x: float,
        y: float,
        words: str,
        font: str = "Times-Roman",
        size: float = 10.0,
        align: str = "left",
        color: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> None:
        """One line; ``y`` is its baseline, ``x`` its left edge, middle or right edge."""
        self.canvas.setFont(font, size)
        self.canvas.setFillColorRGB(*color)
        draw = {
            "left": self.canvas.drawString,
            "center": self.canvas.drawCentredString,
            "right": self.canvas.drawRightString,
        }[align]
        draw(x, self.height - y, words)

    def line(self, x0: float, y0: float, x1: float, y1: float, width: float = 0.5) -> None:
        self.canvas.setStrokeColorRGB(0, 0, 0)
        self.canvas.setLineWidth(width)
        self.canvas.line(x0, self.height - y0, x1, self.height - y1)

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        fill: tuple[float, float, float] | None = None,
        stroke: bool = True,
    ) -> None:
        if fill:
            self.canvas.setFillColorRGB(*fill)
        self.canvas.setStrokeColorRGB(0, 0, 0)
        self.canvas.setLineWidth(0.6)
        self.canvas.rect(
            x, self.height - y - height, width, height, stroke=int(stroke), fill=int(bool(fill))
        )

    def balance(self, pars: Sequence[Par], columns: Sequence[Column]) -> float:
        """Sets paragraphs into columns of even length; returns where the longest ends."""
        bottom = min(column.top for column in columns)
        limit = max(column.bottom for column in columns)
        even = list(columns)
        while bottom < limit:
            bottom += 2.0
            even = [replace(column, bottom=bottom) for column in columns]
            if not self.flow(pars, even, dry=True)[0]:
                break
        self.flow(pars, even)
        return bottom

    def flow(
        self, pars: Sequence[Par], columns: Sequence[Column], dry: bool = False
    ) -> tuple[list[Par], float]:
        """Sets paragraphs into columns, one after the other; ``dry`` only reckons.

        Returns what did not fit, which is an error unless dry, and the y where the last line
        ended: a rule must not ask for words that fell off the page.
        """
        places = iter(columns)
        column = next(places)
        y = column.top
        for number, par in enumerate(pars):
            style = par.style
            y += style.before if y > column.top else 0.0
            words = par.text
            first = True
            while words:
                if y + style.leading > column.bottom:
                    following = next(places, None)
                    if following is None:
                        if not dry:
                            raise ValueError(f"does not fit: {words[:60]!r}")
                        return [replace(par, text=words), *pars[number + 1 :]], y
                    column, y = following, following.top
                inset = style.indent if first else style.hanging
                line, words = _break(words, style, column.width - inset)
                y += style.leading
                if not dry:
                    self._set(column.x + inset, y, line, style, column.width - inset, not words)
                first = False
            y += style.after
        return [], y

    def _set(self, x: float, y: float, line: str, style: Style, width: float, last: bool) -> None:
        """One line of a paragraph, stretched to ``width`` unless it is the last."""
        gaps = line.count(" ")
        slack = width - pdfmetrics.stringWidth(line, style.font, style.size)
        gap = slack / gaps if style.justify and not last and gaps and slack < 0.3 * width else 0.0
        self.canvas.setFillColorRGB(*style.color)
        if gap and style.font.startswith(SANS):  # word spacing has no effect on two-byte fonts
            self._spread(x, y, line, style, gap)
            return
        out = self.canvas.beginText(x, self.height - y + 0.25 * style.leading)
        out.setFont(style.font, style.size)
        out.setWordSpace(gap)
        out.textOut(line)
        out.setWordSpace(0)  # it would hold for all text that follows
        self.canvas.drawText(out)

    def _spread(self, x: float, y: float, text: str, style: Style, gap: float) -> None:
        for word in text.split(" "):
            self.canvas.setFont(style.font, style.size)
            self.canvas.drawString(x, self.height - y + 0.25 * style.leading, word + " ")
            x += pdfmetrics.stringWidth(word + " ", style.font, style.size) + gap

    def cells(
        self,
        rows: Sequence[Sequence[str]],
        edges: Sequence[float],
        top: float,
        leading: float,
        font: str = "Times-Roman",
        size: float = 9.0,
        aligns: str = "",
    ) -> float:
        """Rows of one-line cells between ``edges``; ``aligns`` has l, c or r for each column."""
        y = top
        for row in rows:
            y += leading
            for col, words in enumerate(row):
                left, right = edges[col] + 3, edges[col + 1] - 3
                how = (aligns or "l" * len(row))[col]
                x = {"l": left, "c": (left + right) / 2, "r": right}[how]
                align = {"l": "left", "c": "center", "r": "right"}[how]
                self.text(x, y - 0.28 * leading, words, font, size, align)
        return y


@cache
def _register_fonts() -> None:
    folder = Path(reportlab.__file__).parent / "fonts"
    for name in (SANS, SANS_BOLD):
        pdfmetrics.registerFont(TTFont(name, str(folder / f"{name}.ttf")))


def ligatures(text: str) -> str:
    """``text`` as a typesetter of old sets it: ﬁ and ﬂ as one sign."""
    return text.replace("fi", "ﬁ").replace("fl", "ﬂ")


def _break(text: str, style: Style, width: float) -> tuple[str, str]:
    """The words that fill one line, and the rest."""

    def fits(candidate: str) -> bool:
        return bool(pdfmetrics.stringWidth(candidate, style.font, style.size) <= width)

    line = ""
    words = text.split()
    for number, word in enumerate(words):
        whole = word.replace(SOFT_HYPHEN, "")
        candidate = f"{line} {whole}".strip()
        if fits(candidate):
            line = candidate
            continue
        parts = word.split(SOFT_HYPHEN)
        for cut in range(len(parts) - 1, 0, -1):
            head = f"{line} {''.join(parts[:cut])}-".strip()
            if fits(head):
                rest = [SOFT_HYPHEN.join(parts[cut:]), *words[number + 1 :]]
                return head, " ".join(rest)
        if not line:
            return whole, " ".join(words[number + 1 :])
        return line, " ".join(words[number:])
    return line, ""
