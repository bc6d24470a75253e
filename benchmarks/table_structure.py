"""Are the cells of a table next to the cells that they are printed next to?

Tables are drawn from known grids (``tests/readers/tables``), written as PDF files and read by
each tool; some once more from a noisy picture of the page. The score of a table is the share of
the true statements "the cell above / below / left of / right of T says X" that hold in the best
of the tables that the tool found on its page; spaces and the kinds of dash do not count.
``drawn`` are the pages that the code was built with, ``various`` those drawn later.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from reportlab.pdfgen.canvas import Canvas
from tests.readers.tables.held_out import held_out
from tests.readers.tables.table_cases import PAGE, Case, Grid, cases, expanded, score

from benchmarks.documents.drawn.scan import Scanner, render, spoil
from octavo.media import Pixels, Ruling, Word, open_source
from octavo.readers.ocr import OcrEngine
from octavo.readers.tables import find_tables, rulings_from_pixels
from octavo.types import Box

#: Pages for the scanned part: alternately at these resolutions.
_SCANNERS = (Scanner(dpi=150, blur=0.5, noise=7), Scanner(dpi=200, blur=0.7, noise=9))
#: ``--fast`` takes the first pages of each set only.
_FAST_PAGES = 3


class Finder(Protocol):
    """One tool: the grids, spans expanded, of the tables on a page."""

    def __call__(self, sheet: Sheet) -> list[Grid]: ...


@dataclass(frozen=True, slots=True)
class Sheet:
    """A page to be read: its PDF file, or the picture that a scanner made of it."""

    pdf: Path
    pixels: Pixels | None = None
    scale: float = 1.0


@dataclass(slots=True)
class Tally:
    """Scores by table and seconds by page of one tool."""

    scores: dict[str, float] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("table structure")
    group.add_argument("--no-scans", action="store_true", help="born-digital pages only")


def run(options: argparse.Namespace) -> Mapping[str, object]:
    sets = {"drawn": cases(), "various": held_out()}
    if options.fast:
        sets = {name: pages[:_FAST_PAGES] for name, pages in sets.items()}
    out: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, pages in sets.items():
            files = [_written(case, Path(folder) / f"{at}.pdf") for at, case in enumerate(pages)]
            sheets = [Sheet(file) for file in files]
            digital = {tool: _measure(find, pages, sheets) for tool, find in _tools().items()}
            out[f"{name}, born-digital"] = _shown(f"{name}, born-digital", digital)
            if options.no_scans:
                continue
            sheets = [
                _scan(at, file, case)
                for at, (file, case) in enumerate(zip(files, pages, strict=True))
            ]
            scanned = {"octavo": _measure(_Scans(), pages, sheets)}
            out[f"{name}, scanned"] = _shown(f"{name}, scanned", scanned)
    return {"sets": out}


# -- drawing --------------------------------------------------------------------------------


def _written(case: Case, path: Path) -> Path:
    """The page as a PDF file."""
    sheet = case.sheet
    wide, high = PAGE.width, PAGE.height
    size = (high, wide) if sheet.turned else (wide, high)
    canvas = Canvas(str(path), pagesize=size, invariant=1)
    canvas.setFillColorRGB(0.87, 0.91, 0.97)
    for box in sheet.bands:
        canvas.rect(box.left, size[1] - box.bottom, box.width, box.height, stroke=0, fill=1)
    canvas.setFillColorRGB(0, 0, 0)
    for ruling in sheet.rulings:
        box = ruling.box
        canvas.rect(box.left, size[1] - box.bottom, box.width, box.height, stroke=0, fill=1)
    if sheet.turned == 90:
        canvas.transform(0, 1, -1, 0, high, 0)
    elif sheet.turned == 270:
        canvas.transform(0, -1, 1, 0, 0, wide)
    for x, y, text, font, points in sheet.texts:
        canvas.setFont(font, points)
        canvas.drawString(x, high - y, text)
    canvas.save()
    return path


def _scan(at: int, pdf: Path, case: Case) -> Sheet:
    """A picture of the page, upright: Octavo turns pages before it looks for tables."""
    how = _SCANNERS[at % len(_SCANNERS)]
    packed = io.BytesIO()
    picture = spoil(render(pdf, how.dpi), how).rotate(-case.sheet.turned, expand=True)
    picture.save(packed, "JPEG", quality=how.quality)
    with Image.open(packed) as spoilt:
        return Sheet(pdf, np.asarray(spoilt.convert("RGB")), how.dpi / 72)


# -- tools ----------------------------------------------------------------------------------


def _tools() -> dict[str, Finder]:
    """Octavo and the rivals that are installed."""
    tools: dict[str, Finder] = {"octavo": _from_layer}
    makers: list[Callable[[], dict[str, Finder]]] = [_pdfplumber, _img2table]
    for make in makers:
        try:
            tools |= make()
        except ImportError as error:
            print(f"left out: {error.name} is not installed")
    return tools


def _grids(words: Sequence[Word], rulings: Sequence[Ruling], page: Box) -> list[Grid]:
    return [
        expanded(
            found.table.rows,
            found.table.cols,
            [(c.row, c.col, c.row_span, c.col_span, c.text) for c in found.table.cells],
        )
        for found in find_tables(words, rulings, page=page)
    ]


def _from_layer(sheet: Sheet) -> list[Grid]:
    source = open_source(sheet.pdf)
    try:
        (page,) = source.pages((1,))
        layer = page.text_layer()
        return _grids(layer.words, layer.rulings, Box(0, 0, page.width, page.height))
    finally:
        source.close()


class _Scans:
    """Octavo on a picture: its OCR, its lines and its tables."""

    def __init__(self) -> None:
        self._engine = OcrEngine()

    def __call__(self, sheet: Sheet) -> list[Grid]:
        if sheet.pixels is None:
            return []
        high, wide = sheet.pixels.shape[:2]
        lines = self._engine.read(sheet.pixels, sheet.scale)
        return _grids(
            [word for line in lines for word in line.words],
            rulings_from_pixels(sheet.pixels, sheet.scale),
            Box(0, 0, wide / sheet.scale, high / sheet.scale),
        )


def _pdfplumber() -> dict[str, Finder]:
    # Untyped, and not needed to install Octavo.
    pdfplumber: Any = importlib.import_module("pdfplumber")

    def finder(strategy: str) -> Finder:
        settings = {"vertical_strategy": strategy, "horizontal_strategy": strategy}

        def find(sheet: Sheet) -> list[Grid]:
            with pdfplumber.open(sheet.pdf) as document:
                found: list[list[list[str | None]]] = document.pages[0].extract_tables(settings)
            return [[[_plain(text) for text in row] for row in grid] for grid in found]

        return find

    version = importlib.metadata.version("pdfplumber")
    return {f"pdfplumber {version}, {how}": finder(how) for how in ("lines", "text")}


def _img2table() -> dict[str, Finder]:
    import cv2

    document: Any = importlib.import_module("img2table.document")
    if not hasattr(cv2, "ximgproc"):
        # Without it each page would fail, which says nothing about img2table.
        raise ImportError("img2table needs OpenCV with contrib", name="opencv-contrib-python")

    def find(sheet: Sheet) -> list[Grid]:
        tables: Mapping[int, Sequence[Any]] = document.PDF(str(sheet.pdf)).extract_tables(
            implicit_rows=True, implicit_columns=True, borderless_tables=True
        )
        return [
            [[_plain(cell.value) for cell in row] for row in table.content.values()]
            for table in tables.get(0, ())
        ]

    return {f"img2table {importlib.metadata.version('img2table')}": find}


def _plain(text: str | None) -> str:
    return " ".join((text or "").split())


# -- measuring ------------------------------------------------------------------------------


def _measure(find: Finder, pages: Sequence[Case], sheets: Sequence[Sheet]) -> Tally:
    tally = Tally()
    for case, sheet in zip(pages, sheets, strict=True):
        start = time.perf_counter()
        try:
            found = [grid for grid in find(sheet) if grid]
        except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
            # A rival that fails on a page has found nothing on it.
            tally.errors.append(f"{case.name}: {type(error).__name__}: {error}")
            found = []
        tally.seconds.append(time.perf_counter() - start)
        for at, wanted in enumerate(case.grids):
            name = case.name if len(case.grids) == 1 else f"{case.name} ({at + 1})"
            tally.scores[name] = round(score(found, wanted), 4)
    return tally


def _shown(title: str, tallies: Mapping[str, Tally]) -> dict[str, object]:
    print(f"\n{title}")
    out: dict[str, object] = {}
    for tool, tally in tallies.items():
        mean = statistics.mean(tally.scores.values())
        seconds = statistics.median(tally.seconds)
        print(f"  {tool:<28}{mean:8.3f}  {len(tally.scores)} tables  {seconds:8.3f} s a page")
        out[tool] = {
            "mean": round(mean, 4),
            "tables": len(tally.scores),
            "whole": sum(one == 1 for one in tally.scores.values()),
            "median_seconds_a_page": round(seconds, 4),
            "below_one": {name: one for name, one in tally.scores.items() if one < 1},
            "errors": tally.errors,
        }
    return out
