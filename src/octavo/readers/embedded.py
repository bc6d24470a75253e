"""The reader that needs no GPU and no download: text layer, OCR, layout and tables.

Everything it uses ships in wheels. For every page it decides whether the text layer is sound,
otherwise it reads the pixels, and says which it did and why.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from octavo.errors import OctavoError
from octavo.media.page import Page, TextLayer, Word
from octavo.media.turn import turn, turned_size
from octavo.readers.blocks import body_size
from octavo.readers.compose import Parts, Picture, compose
from octavo.readers.figures import find_pictures
from octavo.readers.lines import Line, build_lines
from octavo.readers.regions import LONG_EDGE_PX, LayoutModel
from octavo.readers.repair import mend_words
from octavo.readers.scan import ScanReader
from octavo.readers.sheet import Sheet, main_turn, turn_sheet
from octavo.readers.soundness import (
    Judgement,
    Verdict,
    agreement,
    judge,
    provable,
    without_hidden,
)
from octavo.readers.tables import FoundTable, find_tables
from octavo.types import Attempt, Box, Failure, PageResult, TextSource

_PROOF_LINES = 6
_PROVEN = 0.8
_AS_GOOD = 0.97
_AHEAD = 2  # pages prepared while one is read


@dataclass(frozen=True, slots=True)
class ReaderSettings:
    """What the embedded reader does.

    Attributes:
        mode: ``quality`` reads text in pictures too; ``fast`` leaves that and the layout model
            out for pages with a sound text layer; ``small-memory`` holds one page at a time.
        pdf_dpi: resolution at which scanned pages are read.
        max_long_edge_px: cap for it, pixels.
        ocr: ``auto`` where the text layer is not sound, ``always``, or ``never``.
        layout_model: use the layout model at all.
    """

    mode: str = "quality"
    pdf_dpi: float = 200
    max_long_edge_px: int | None = None
    ocr: str = "auto"
    layout_model: bool = True


class EmbeddedReader:
    """Reads pages in order; the engines load at first use and serve until ``close``."""

    def __init__(self, settings: ReaderSettings | None = None) -> None:
        self.settings = settings or ReaderSettings()
        self._layout: LayoutModel | None = None
        self._scans = ScanReader(self.settings.pdf_dpi, self.settings.max_long_edge_px)

    def close(self) -> None:
        """Free the models."""
        if self._layout is not None:
            self._layout.close()
            self._layout = None
        self._scans.close()

    def read(self, pages: Iterable[Page]) -> Iterator[PageResult]:
        """One result per page, in order. While one page is read the next are drawn.

        A page that fails is a result with a failure.
        """
        ahead = 0 if self.settings.mode == "small-memory" else _AHEAD
        with (
            ThreadPoolExecutor(1, "octavo-draw") as draw,
            ThreadPoolExecutor(1, "octavo-see") as see,
        ):
            queue: deque[tuple[Page, Future[Sheet]]] = deque()
            try:
                for page in pages:
                    drawn = draw.submit(self._draw, page)
                    queue.append((page, see.submit(self._see_drawn, drawn)))
                    if len(queue) > ahead:
                        yield self._finish(*queue.popleft())
                while queue:
                    yield self._finish(*queue.popleft())
            finally:
                for _, future in queue:
                    future.cancel()

    def _finish(self, page: Page, future: Future[Sheet]) -> PageResult:
        try:
            return self._compose(future.result())
        except OctavoError as error:
            failure = Failure(type(error).__name__, error.what, error.next_step)
        except Exception as error:  # noqa: BLE001 - the place that isolates a page
            step = "the other pages are whole; please report the file that shows this"
            failure = Failure(type(error).__name__, str(error) or repr(error), step)
        return _failed(page, failure)

    def _draw(self, page: Page) -> Sheet:
        """Everything that asks the file itself: words, and a small picture for a first look."""
        start = time.perf_counter()
        layer = page.text_layer()
        read = time.perf_counter()
        width, height = page.width, page.height
        scale = min(LONG_EDGE_PX / max(width, height, 1.0), page.natural_scale(200, None))
        look = page.render(scale)
        timings = {"text": read - start, "render": time.perf_counter() - read}
        return Sheet(page, layer, look, scale, timings, width, height)

    def _see_drawn(self, drawn: Future[Sheet]) -> Sheet:
        return self._see(drawn.result())

    def _see(self, sheet: Sheet) -> Sheet:
        """Decide where the text comes from, read it, and look at the layout."""
        start = time.perf_counter()
        self._choose(sheet)
        chosen = time.perf_counter()
        sheet.timings["ocr" if sheet.source is TextSource.OCR else "judge"] = chosen - start
        if self._wants_layout(sheet.source):
            sheet.regions = self._model().read(sheet.look, sheet.scale)
        sheet.timings["layout"] = time.perf_counter() - chosen
        return sheet

    def _wants_layout(self, source: TextSource) -> bool:
        if not self.settings.layout_model or source is TextSource.NONE:
            return False
        return source is TextSource.OCR or self.settings.mode != "fast"

    def _model(self) -> LayoutModel:
        if self._layout is None:
            self._layout = LayoutModel()
        return self._layout

    def _choose(self, sheet: Sheet) -> None:
        page = Box(0.0, 0.0, sheet.width, sheet.height)
        sheet.layer, left_out = without_hidden(sheet.layer)
        if left_out:
            sheet.attempts.append(Attempt("invisible text", False, f"{left_out} words left out"))
        judgement = judge(sheet.layer, page, sheet.look, sheet.scale)
        if self.settings.ocr == "always":
            judgement = Judgement(Verdict.UNSOUND, "OCR was asked for")
        elif self.settings.ocr == "never" and judgement.verdict is not Verdict.BLANK:
            judgement = Judgement(Verdict.SOUND, "OCR was ruled out")
        if judgement.verdict is Verdict.PROVE:
            judgement = self._prove(sheet, judgement)
        sheet.reason = judgement.reason
        if judgement.verdict is Verdict.BLANK:
            sheet.source = TextSource.NONE
            return
        sound = judgement.verdict is Verdict.SOUND
        sheet.attempts.append(Attempt("text-layer", sound, judgement.reason))
        if sound:
            self._keep_layer(sheet)
        else:
            self._read_pixels(sheet)

    def _prove(self, sheet: Sheet, doubt: Judgement) -> Judgement:
        """Read a few lines from the pixels and compare them with the layer."""
        words = [w for w in sheet.layer.words if abs(w.angle) < 5]
        if not provable(words):
            return Judgement(Verdict.SOUND, f"{doubt.reason}; its script cannot be proved")
        lines = sorted((x for x in build_lines(words) if x.letters >= 8), key=lambda x: x.box.top)
        step = max(1, len(lines) // _PROOF_LINES)
        scores = []
        for line in lines[step // 2 :: step][:_PROOF_LINES]:
            seen = self._scans.read_region(sheet.page, line.box.expand(0.4 * line.font_size))
            scores.append(agreement(line.text, " ".join(word.text for word in seen)))
        if not scores:
            return Judgement(Verdict.UNSOUND, doubt.reason)
        scores.sort()
        share = scores[len(scores) // 2]
        # The text under a scan is somebody's OCR: it is kept when it is as good as ours.
        hidden = sum(w.invisible for w in words) > 0.5 * len(words)
        verdict = Verdict.SOUND if share >= (_AS_GOOD if hidden else _PROVEN) else Verdict.UNSOUND
        return Judgement(verdict, f"{doubt.reason}; {share:.0%} of it agrees with the pixels")

    def _keep_layer(self, sheet: Sheet) -> None:
        sheet.words = list(sheet.layer.words)
        if self.settings.mode == "quality" and self.settings.ocr == "auto":
            sheet.words = mend_words(sheet.words, partial(self._scans.read_boxes, sheet.page))
        rotation = main_turn(sheet.words)
        if rotation:
            turn_sheet(sheet, rotation)

    def _read_pixels(self, sheet: Sheet) -> None:
        sheet.source = TextSource.OCR
        scan = self._scans.read(sheet.page)
        sheet.scan = scan
        sheet.rotation, sheet.skew = scan.rotation, scan.skew
        sheet.width, sheet.height = turned_size(sheet.width, sheet.height, scan.rotation)
        sheet.look = turn(sheet.look, scan.rotation, scan.skew)
        sheet.lines = list(scan.lines)
        sheet.words = [word for line in scan.lines for word in line.words]
        # A picture of the page itself says nothing about where its figures are.
        sheet.layer = TextLayer(rulings=scan.rulings, shapes=scan.shapes)
        sheet.attempts.append(Attempt("ocr", True, f"{len(scan.lines)} lines"))

    def _find_solid(
        self, sheet: Sheet, lines: list[Line], page: Box, body: float
    ) -> tuple[list[Picture], list[FoundTable]]:
        """Pictures and tables. A picture that turns out to lie in a table is given up."""
        pictures = find_pictures(sheet.layer, lines, sheet.words, sheet.regions, page, body)
        hints = [r.box for r in sheet.regions if r.label == "table" and r.score > 0.5]
        while True:
            tables = find_tables(
                _free(sheet.words, pictures, ()),
                sheet.layer.rulings,
                page=page,
                hints=hints,
                exclude=[picture.box for picture in pictures],
            )
            tables = [found for found in tables if not _is_prose(found)]
            kept = [p for p in pictures if all(p.box.covered_by(t.box) < 0.6 for t in tables)]
            if len(kept) == len(pictures):
                break
            pictures = kept
        if self.settings.mode == "quality" and sheet.scan is None and not sheet.rotation:
            pictures = [self._read_picture(sheet, picture, body) for picture in pictures]
        return pictures, tables

    def _read_picture(self, sheet: Sheet, picture: Picture, body: float) -> Picture:
        """A picture with the words that its pixels show, where the text layer has none."""
        box = picture.box
        if self.settings.ocr == "never" or picture.words or min(box.width, box.height) < 4 * body:
            return picture
        start = time.perf_counter()
        words = self._scans.read_region(sheet.page, box)
        sheet.timings["ocr"] = sheet.timings.get("ocr", 0.0) + time.perf_counter() - start
        return replace(picture, words=tuple(words))

    def _compose(self, sheet: Sheet) -> PageResult:
        start = time.perf_counter()
        page = Box(0.0, 0.0, sheet.width, sheet.height)
        lines = sheet.lines
        if lines is None:
            level = [word for word in sheet.words if abs(word.angle) < 15]
            lines = build_lines(level, sheet.layer.rulings)
        body = body_size(lines)
        pictures, tables = self._find_solid(sheet, lines, page, body)
        rest = _free(sheet.words, pictures, tables)
        elements = compose(
            Parts(
                number=sheet.page.number,
                width=sheet.width,
                height=sheet.height,
                words=rest,
                lines=_keep_lines(lines, rest),
                pictures=pictures,
                tables=tables,
                rulings=sheet.layer.rulings,
                regions=sheet.regions,
                measured=sheet.source is TextSource.TEXT_LAYER,
            )
        )
        sheet.timings["compose"] = time.perf_counter() - start
        return PageResult(
            number=sheet.page.number,
            width=round(sheet.width, 2),
            height=round(sheet.height, 2),
            elements=elements,
            source=sheet.source,
            reason=sheet.reason,
            rotation=sheet.rotation,
            skew=sheet.skew,
            attempts=tuple(sheet.attempts),
            timings={name: round(value, 4) for name, value in sheet.timings.items()},
        )


def _failed(page: Page, failure: Failure) -> PageResult:
    try:
        width, height = page.width, page.height
    except OctavoError:
        width, height = 0.0, 0.0
    return PageResult(page.number, width, height, failure=failure)


def _is_prose(found: FoundTable) -> bool:
    """A grid that holds paragraphs arranges a page; it is no table."""
    lengths = sorted(len(cell.text) for cell in found.table.cells if cell.text)
    return bool(lengths) and (lengths[len(lengths) // 2] > 160 or lengths[-1] > 900)


def _free(
    words: Iterable[Word], pictures: Iterable[Picture], tables: Iterable[FoundTable]
) -> list[Word]:
    """The words that neither a picture nor a table holds."""
    held = {id(word) for picture in pictures for word in picture.words}
    boxes = [table.box for table in tables]
    return [
        w for w in words if id(w) not in held and not any(b.contains_center(w.box) for b in boxes)
    ]


def _keep_lines(lines: Iterable[Line], words: Iterable[Word]) -> list[Line]:
    """Lines without the words that went into tables and pictures."""
    kept = {id(word) for word in words}
    out = []
    for line in lines:
        inside = tuple(word for word in line.words if id(word) in kept)
        if inside:
            out.append(line if len(inside) == len(line.words) else Line(inside))
    return out
