"""Pages of newspapers, journals and dictionaries: columns, running heads, footnotes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.documents.drawn import prose
from benchmarks.documents.drawn.scan import Scanner, scan
from benchmarks.documents.drawn.sheet import (
    SANS,
    SANS_BOLD,
    Column,
    Par,
    Sheet,
    Style,
    ligatures,
)

_BODY = Style(size=9.2, leading=11.2, indent=10)
_SMALL = Style(size=7.4, leading=8.8)


def newspaper_three(path: Path) -> None:
    """A head over the page, a story under it in three columns, two more below a rule."""
    sheet = Sheet(path, (595, 640))
    sheet.text(297, 52, "THE HARBOUR GAZETTE", "Times-Bold", 26, "center")
    sheet.line(40, 62, 555, 62, 1.2)
    sheet.text(40, 74, "Vol. XLI No. 118", "Times-Italic", 8.5)
    sheet.text(297, 74, "Saturday, 3 May 1924", "Times-Italic", 8.5, "center")
    sheet.text(555, 74, "Price two pence", "Times-Italic", 8.5, "right")
    sheet.line(40, 80, 555, 80, 0.5)
    sheet.text(297, 112, "Lantern Ferry Returns After Nine Weeks", "Times-Bold", 22, "center")
    sheet.text(
        297, 130, "Crew tells of fog without end and a lost anchor", "Times-Italic", 12, "center"
    )
    top = _thirds(140, 470)
    foot = sheet.balance([Par(text, _BODY) for text in prose.FERRY], top)
    sheet.line(40, foot + 10, 555, foot + 10, 0.8)
    head = Style("Times-Bold", 12, 15, after=4, justify=False)
    sheet.text(40, foot + 34, "Council Votes to Mend the Tide Clock", "Times-Bold", 15)
    halves = [Column(40, foot + 42, 164, 610), Column(216, foot + 42, 164, 610)]
    sheet.balance([Par(text, _BODY) for text in prose.CLOCK], halves)
    sheet.line(390, foot + 18, 390, 600, 0.4)
    right = Column(400, foot + 18, 155, 610)
    bakers = [Par("Bakers Ask for Dry Flour", head), *(Par(text, _BODY) for text in prose.BAKERS)]
    sheet.flow(bakers, [right])
    sheet.text(297, 625, "5", "Times-Roman", 9, "center")
    sheet.save()


def _thirds(top: float, bottom: float) -> list[Column]:
    return [Column(40 + 176 * n, top, 163, bottom) for n in range(3)]


def newspaper_scan(path: Path) -> None:
    """The same kind of page from a scanner, crooked and grey."""
    with tempfile.TemporaryDirectory() as folder:
        clean = Path(folder) / "clean.pdf"
        sheet = Sheet(clean, (595, 340))
        sheet.text(40, 40, "14", "Times-Roman", 9)
        sheet.text(297, 40, "THE MERCURY, TUESDAY, JUNE 9, 1908", "Times-Roman", 9, "center")
        sheet.line(40, 46, 555, 46, 0.6)
        pars: list[Par] = []
        for title, texts in prose.MERCURY:
            pars.append(Par(title, Style("Times-Bold", 11, 13, before=7, after=3, justify=False)))
            pars.extend(Par(text, Style(size=9, leading=10.8, indent=9)) for text in texts)
        sheet.balance(pars, _thirds(54, 320))
        sheet.save()
        scan(clean, path, Scanner(150, skew=0.9, blur=0.6, noise=7, paper=(0.9, 0.88, 0.82)))


def journal_right(path: Path) -> None:
    """A right-hand page: running head, page number, two columns, footnotes."""
    sheet = Sheet(path, (482, 450))
    sheet.text(241, 44, "Wooden boards and early clasps", "Times-Italic", 8.5, "center")
    sheet.text(436, 44, "217", "Times-Roman", 8.5, "right")
    columns = [Column(46, 56, 188, 330), Column(248, 56, 188, 400)]
    body = Style(size=9, leading=11, indent=10)
    first, *others = prose.BOARDS
    pars = [Par(first, Style(size=9, leading=11))]
    pars += [Par(text, body) for text in others]
    pars.insert(3, Par("3. Clasps of brass", Style("Times-Bold", 10, 12, before=8, after=3)))
    sheet.flow(pars, columns)
    sheet.line(46, 343, 110, 343, 0.4)
    notes = [Par(text, _SMALL) for text in prose.BOARDS_NOTES]
    sheet.flow(notes, [Column(46, 347, 188, 420)])
    sheet.save()


def journal_left(path: Path) -> None:
    """A left-hand page of one column with a foot that carries the journal's name."""
    sheet = Sheet(path, (440, 500))
    sheet.text(52, 40, "88", "Times-Roman", 9)
    sheet.text(220, 40, "E. MARCHETTI AND R. OYELARAN", "Times-Roman", 7.5, "center")
    body = Style(size=10, leading=12.4, indent=12)
    head = Style("Times-Italic", 10.5, 13, before=9, after=4, justify=False)
    pars = [Par(prose.TIDES[0], Style(size=10, leading=12.4))]
    pars += [Par("2.3. Reading the slow hand", head)]
    pars += [Par(text, body) for text in prose.TIDES[1:]]
    sheet.flow(pars, [Column(52, 52, 336, 420)])
    sheet.line(52, 424, 120, 424, 0.4)
    sheet.flow([Par(text, _SMALL) for text in prose.TIDES_NOTES], [Column(52, 428, 336, 470)])
    sheet.text(52, 484, "J. Tidal Instr. 12, 80-97 (1991)", "Times-Roman", 6.8)
    sheet.text(388, 484, "Coastal Society Press", "Times-Roman", 6.8, "right")
    sheet.save()


def dictionary_scan(path: Path) -> None:
    """Three columns of six-point type at 150 dpi."""
    with tempfile.TemporaryDirectory() as folder:
        clean = Path(folder) / "clean.pdf"
        sheet = Sheet(clean, (595, 230))
        sheet.text(40, 36, "BACKING", "Times-Bold", 8)
        sheet.text(297, 36, "31", "Times-Roman", 8, "center")
        sheet.text(555, 36, "BRAYER", "Times-Bold", 8, "right")
        sheet.line(40, 40, 555, 40, 0.4)
        entry = Style(size=6, leading=7, hanging=6)
        sheet.balance([Par(text, entry) for text in prose.DICTIONARY], _thirds(44, 215))
        sheet.save()
        scan(clean, path, Scanner(150, blur=0.3, noise=4, quality=88))


def hyphens(path: Path) -> None:
    """Narrow columns with many split words and ligatures."""
    sheet = Sheet(path, (595, 320))
    sheet.text(60, 84, ligatures("Final Findings on Reflow"), SANS_BOLD, 18)
    body = Style(SANS, 8.6, 11.4, after=5)
    columns = [Column(60 + 165 * n, 104, 140, 280) for n in range(3)]
    sheet.balance([Par(ligatures(text), body) for text in prose.HYPHENS], columns)
    sheet.text(297, 300, "- 12 -", SANS, 8, "center")
    sheet.save()


def sidebar(path: Path) -> None:
    """A magazine page: a story, and a shaded box beside it that is no part of it."""
    sheet = Sheet(path)
    sheet.text(50, 40, "FIELD & HEDGEROW", SANS_BOLD, 8)
    sheet.text(545, 40, "Autumn 2019", SANS, 8, "right")
    sheet.text(50, 92, "The Patient Keepers of Old Orchards", "Times-Bold", 24)
    sheet.text(50, 112, "By Ines Abernathy", "Times-Italic", 11)
    body = Style(size=10.5, leading=13, indent=12)
    columns = [Column(50, 124, 165, 770), Column(230, 124, 165, 770)]
    sheet.balance([Par(text, body) for text in prose.ORCHARDS], columns)
    sheet.box(412, 124, 138, 200, (0.88, 0.93, 0.86), stroke=False)
    tip = Style("Helvetica", 8.8, 11, after=5, justify=False)
    title = Style("Helvetica-Bold", 11, 14, after=4, justify=False)
    sheet.flow(
        [Par("Five Pears to Try", title), *(Par(text, tip) for text in prose.PEARS)],
        [Column(422, 130, 120, 450)],
    )
    sheet.text(545, 815, "47", SANS_BOLD, 9, "right")
    sheet.save()


DOCUMENTS: dict[str, Callable[[Path], None]] = {
    "newspaper_three.pdf": newspaper_three,
    "newspaper_scan.pdf": newspaper_scan,
    "journal_right.pdf": journal_right,
    "journal_left.pdf": journal_left,
    "dictionary_scan.pdf": dictionary_scan,
    "hyphens.pdf": hyphens,
    "sidebar.pdf": sidebar,
}
