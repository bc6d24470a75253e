"""Nested lists, a slide, and a page whose figure has text inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.documents.drawn import prose
from benchmarks.documents.drawn.sheet import Column, Par, Sheet, Style


def nested(path: Path) -> None:
    """Headings of three levels and lists within lists."""
    sheet = Sheet(path)
    sheet.text(60, 80, "Care of the Reading Room", "Helvetica-Bold", 20)
    y = 96.0
    for level, marker, words in prose.ROOM:
        if level == 0:
            size = 14 if marker == "h2" else 11.5
            y += size + 10
            sheet.text(60, y, words, "Helvetica-Bold", size)
            y += 4
            continue
        left = 60 + 22 * level
        sheet.text(left - 14, y + 9.75, marker, "Helvetica", 10)
        _, y = sheet.flow(
            [Par(words, Style("Helvetica", 10, 13, after=2, justify=False))],
            [Column(left, y, 500 - left, 800)],
        )
    sheet.text(297, 815, "Page 3 of 11", "Helvetica", 8, "center")
    sheet.save()


def slide(path: Path) -> None:
    """A wide page with few, large words in two boxes."""
    sheet = Sheet(path, (720, 405))
    sheet.box(0, 0, 720, 64, (0.13, 0.25, 0.38), stroke=False)
    sheet.text(36, 42, "What the Spring Survey Found", "Helvetica-Bold", 26, color=(1, 1, 1))
    large = Style("Helvetica", 15, 20, after=8, justify=False)
    title = Style("Helvetica-Bold", 17, 22, after=6, justify=False)
    for x, (head, points) in zip((36, 378), prose.SURVEY, strict=True):
        pars = [Par(head, title), *(Par("\u2022 " + point, large) for point in points)]
        sheet.flow(pars, [Column(x, 84, 300, 370)])
    sheet.text(36, 392, "Dunmere Library Trust", "Helvetica", 9, color=(0.4, 0.4, 0.4))
    sheet.text(684, 392, "8", "Helvetica", 9, "right", color=(0.4, 0.4, 0.4))
    sheet.save()


def figure(path: Path) -> None:
    """Two columns; a drawn figure with labels stands at the head of the second."""
    sheet = Sheet(path, (595, 480))
    body = Style(size=10, leading=12.2, indent=10)
    small = Style(size=8.5, leading=10.4)
    sheet.text(297, 70, "How a Press Is Driven by Water", "Times-Bold", 17, "center")
    sheet.text(297, 90, "Lucia Ferrante and Owen Blythe", "Times-Roman", 11, "center")
    for x, y, words in ((330, 130, "Wheel"), (450, 130, "Shaft"), (390, 200, "Platen")):
        sheet.box(x, y, 70, 34)
        sheet.text(x + 35, y + 21, words, "Helvetica", 9, "center")
    sheet.line(400, 147, 450, 147)
    sheet.line(485, 164, 440, 200)
    sheet.flow([Par(prose.PRESS_CAPTION, small)], [Column(310, 242, 235, 300)])
    first, *others = prose.PRESS
    pars = [Par("1 Introduction", Style("Times-Bold", 12, 15, after=3)), Par(first, body)]
    pars += [Par(others[0], body)]
    pars += [Par("2 The wheel and its gate", Style("Times-Bold", 12, 15, before=8, after=3))]
    pars += [Par(text, body) for text in others[1:]]
    sheet.flow(pars, [Column(50, 110, 235, 400), Column(310, 285, 235, 440)])
    sheet.text(297, 460, "1", "Times-Roman", 9, "center")
    sheet.save()


DOCUMENTS: dict[str, Callable[[Path], None]] = {
    "nested.pdf": nested,
    "slide.pdf": slide,
    "figure.pdf": figure,
}
