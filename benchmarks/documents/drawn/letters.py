"""Old letters and turned scans."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.documents.drawn import prose
from benchmarks.documents.drawn.scan import Scanner, scan
from benchmarks.documents.drawn.sheet import Column, Par, Sheet, Style

_TYPED = Style("Courier", 11, 14, indent=33, after=9, justify=False)


def typed_letter(path: Path) -> None:
    """A typewritten letter on yellowed paper with stains."""
    with tempfile.TemporaryDirectory() as folder:
        clean = Path(folder) / "clean.pdf"
        sheet = Sheet(clean)
        sheet.text(297, 66, "WHITLOCK & SONS, MAP ENGRAVERS", "Times-Bold", 14, "center")
        sheet.text(297, 82, "22 Pilot Street, Dunmere", "Times-Roman", 10, "center")
        sheet.text(535, 130, "November 17th, 1931", "Courier", 11, "right")
        for n, words in enumerate(prose.LETTER_ADDRESS):
            sheet.text(70, 165 + 14 * n, words, "Courier", 11)
        sheet.text(70, 230, "Dear Miss Calloway,", "Courier", 11)
        sheet.flow([Par(text, _TYPED) for text in prose.LETTER], [Column(70, 240, 465, 640)])
        for n, words in enumerate(("Yours faithfully,", "", "", "Tobias Whitlock")):
            sheet.text(330, 520 + 14 * n, words, "Courier", 11)
        sheet.save()
        scan(
            clean,
            path,
            Scanner(
                150, skew=-0.7, blur=0.9, noise=11, paper=(0.93, 0.86, 0.68), stains=9, fade=0.25
            ),
        )


def memo_faint(path: Path) -> None:
    """A faint carbon copy with a list, at a low resolution."""
    with tempfile.TemporaryDirectory() as folder:
        clean = Path(folder) / "clean.pdf"
        sheet = Sheet(clean)
        sheet.text(70, 80, "MEMORANDUM", "Courier-Bold", 13)
        for n, words in enumerate(prose.MEMO_HEAD):
            sheet.text(70, 112 + 16 * n, words, "Courier", 10.5)
        sheet.line(70, 172, 520, 172, 0.7)
        style = Style("Courier", 10.5, 14, hanging=28, after=7, justify=False)
        sheet.flow([Par(text, style) for text in prose.MEMO], [Column(70, 180, 450, 700)])
        sheet.save()
        scan(clean, path, Scanner(130, skew=0.5, blur=0.7, noise=9, fade=0.45, quality=70))


def turned_scan(path: Path) -> None:
    """Two columns, laid down a quarter turn wrong."""
    with tempfile.TemporaryDirectory() as folder:
        clean = Path(folder) / "clean.pdf"
        sheet = Sheet(clean)
        sheet.text(60, 44, "Chapter 6. Paste and patience", "Times-Italic", 9)
        sheet.text(535, 44, "141", "Times-Roman", 9, "right")
        sheet.text(60, 86, "On the Making of Wheat Paste", "Times-Bold", 17)
        body = Style(size=11, leading=13.6, indent=12)
        columns = [Column(60, 100, 228, 440), Column(307, 100, 228, 440)]
        sheet.balance([Par(text, body) for text in prose.PASTE], columns)
        sheet.save()
        scan(clean, path, Scanner(170, turn=90, blur=0.4, noise=4))


DOCUMENTS: dict[str, Callable[[Path], None]] = {
    "typed_letter.pdf": typed_letter,
    "memo_faint.pdf": memo_faint,
    "turned_scan.pdf": turned_scan,
}
