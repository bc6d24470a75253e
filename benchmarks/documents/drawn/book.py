"""A long book for runs in which memory must stay flat."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.documents.drawn import prose
from benchmarks.documents.drawn.sheet import Column, Par, Sheet, Style


def draw_book(folder: Path, pages: int) -> Path:
    """``pages`` pages, each with a number of its own in its first words."""
    place = folder / f"book-{pages}.pdf"
    if place.exists():
        return place
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{os.getpid()}-{place.name}"
    sheet = Sheet(part)
    body = Style(size=11, leading=14, indent=14)
    texts = (*prose.ORCHARDS, *prose.PASTE, *prose.PRESS)
    for number in range(1, pages + 1):
        start = number % len(texts)
        chosen = [*texts[start:], *texts[:start]][:5]
        sheet.text(297, 50, "Notes from several workshops", "Times-Italic", 9, "center")
        pars = [Par(f"Note {number} of {pages}.", body), *(Par(text, body) for text in chosen)]
        sheet.flow(pars, [Column(80, 80, 435, 780)])
        sheet.text(297, 815, str(number), "Times-Roman", 9, "center")
        sheet.canvas.showPage()
    sheet.save()
    part.replace(place)
    return place
