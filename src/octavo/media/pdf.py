"""PDF files, by pdfium: pages lazily, their text layer, and their pixels.

pdfium is not thread safe, so its calls are made one at a time (``pdfium.LOCK``); the long ones
let other Python threads run meanwhile. A source keeps only the pages used last parsed.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pypdfium2 import raw

from octavo.errors import (
    BrokenFile,
    LimitExceeded,
    PageError,
    PasswordRequired,
    UnsupportedFormat,
)
from octavo.media.files import check_file
from octavo.media.page import Pixels, TextLayer
from octavo.media.pdf_shapes import MAX_PATHS, read_shapes
from octavo.media.pdf_text import read_words
from octavo.media.pdfium import LOCK, Matrix, Placement, address_of, clip
from octavo.types import Box

__all__ = ["MAX_PATHS", "MAX_PIXELS", "PdfPage", "PdfSource", "open_pdf"]

#: Pixels of one picture of a page; three bytes each. A page of 200 inches would take gigabytes.
MAX_PIXELS = 48_000_000
#: Pages that stay parsed: reading a page's text and drawing it should parse it once.
OPEN_PAGES = 3
#: Points (350 m). Acrobat stops at 14 400; what is over this is a damaged number.
MAX_EDGE = 1_000_000.0

_POINTS_PER_INCH = 72.0


def open_pdf(path: str | Path, password: str | None = None) -> PdfSource:
    """Opens a PDF.

    Args:
        path: of the file.
        password: user's or owner's, where the file is encrypted.

    Raises:
        SourceNotFound: there is no such file, or it is a folder.
        PasswordRequired: encrypted, and no password or a wrong one was given.
        UnsupportedFormat: encrypted in a way that pdfium does not know.
        BrokenFile: not a PDF, or damaged beyond what pdfium mends.
    """
    return PdfSource(Path(path), password)


class PdfSource:
    """An open PDF: a ``media.page.Source``. Also a context manager."""

    def __init__(self, path: Path, password: str | None = None) -> None:
        self.name = path.name
        self._open: OrderedDict[int, _OpenPage] = OrderedDict()
        self._closed = False
        check_file(path)
        with LOCK:
            self._document = _load_document(path, password)
            self._count = int(raw.FPDF_GetPageCount(self._document))
            if self._count < 1:
                raw.FPDF_CloseDocument(self._document)
                raise BrokenFile(
                    "the PDF has no page that can be found",
                    where=str(path),
                    next_step="it may be cut short; get the file again",
                )

    def __len__(self) -> int:
        return self._count

    def __enter__(self) -> PdfSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def pages(self, numbers: range | tuple[int, ...]) -> Iterator[PdfPage]:
        """The pages of these 1-based numbers. They hold nothing; see ``OPEN_PAGES``."""
        return (PdfPage(self, number) for number in numbers)

    def close(self) -> None:
        """Closes the file and all its pages. May be called again."""
        with LOCK:
            if not self._closed:
                self._closed = True
                self._close_pages(0)
                raw.FPDF_CloseDocument(self._document)

    def parsed(self, number: int) -> _OpenPage:
        """The parsed page; call under the lock, and use it before the lock is given back."""
        where = f"{self.name}, page {number}"
        if self._closed:
            raise PageError("the file is closed", where=where, next_step="open it again")
        if not 1 <= number <= self._count:
            raise PageError(
                f"there is no such page; the file has {self._count}",
                where=where,
                next_step="ask for a page of the file",
            )
        known = self._open.get(number)
        if known is not None:
            self._open.move_to_end(number)
            return known
        self._close_pages(OPEN_PAGES - 1)
        page = self._open[number] = _OpenPage.load(self._document, number, where)
        return page

    def _close_pages(self, keep: int) -> None:
        while len(self._open) > keep:
            _, page = self._open.popitem(last=False)
            page.close()


class _OpenPage:
    """A page that pdfium has parsed. All methods are called under the lock."""

    def __init__(self, handle: Any, placement: Placement) -> None:
        self.handle = handle
        self.placement = placement

    @classmethod
    def load(cls, document: Any, number: int, where: str) -> _OpenPage:
        handle = raw.FPDF_LoadPage(document, number - 1)
        if not handle:
            raise PageError(
                "pdfium cannot read this page",
                where=where,
                next_step="the file is damaged here; the other pages are not concerned",
            )
        box = raw.FS_RECTF()
        if not raw.FPDF_GetPageBoundingBox(handle, box):
            raw.FPDF_ClosePage(handle)
            raise PageError("the page has no size", where=where, next_step="leave this page out")
        rotation = 90 * int(raw.FPDFPage_GetRotation(handle))
        placement = Placement.around(box.left, box.bottom, box.right, box.top, rotation)
        if not (placement.width > 0 and placement.height > 0):
            raw.FPDF_ClosePage(handle)
            raise PageError("the page has no area", where=where, next_step="leave this page out")
        if max(placement.width, placement.height) > MAX_EDGE:
            raw.FPDF_ClosePage(handle)
            raise PageError(
                f"the page says that it is {placement.width:.6g} × {placement.height:.6g} points",
                where=where,
                next_step="its size is damaged; leave this page out",
            )
        return cls(handle, placement)

    def close(self) -> None:
        raw.FPDF_ClosePage(self.handle)

    def text_layer(self, where: str) -> TextLayer:
        text = raw.FPDFText_LoadPage(self.handle)
        if not text:
            raise PageError(
                "pdfium cannot read the text of this page",
                where=where,
                next_step="read it by OCR",
            )
        try:
            words = read_words(address_of(text), self.placement)
        finally:
            raw.FPDFText_ClosePage(text)
        found = read_shapes(address_of(self.handle), self.placement)
        return TextLayer(
            words=words,
            rulings=tuple(found.rulings),
            images=tuple(found.images),
            shapes=tuple(found.shapes),
            shapes_cut=found.cut,
        )

    def render(self, scale: float, region: Box, wide: int, high: int) -> Pixels:
        # pdfium draws straight into the array: RGB, no padding, on white paper.
        pixels = np.full((high, wide, 3), 255, dtype=np.uint8)
        bitmap = raw.FPDFBitmap_CreateEx(
            wide, high, raw.FPDFBitmap_BGR, pixels.ctypes.data, wide * 3
        )
        matrix = Matrix(scale, 0, 0, scale, -region.left * scale, -region.top * scale)
        try:
            raw.FPDF_RenderPageBitmapWithMatrix(
                bitmap,
                self.handle,
                raw.FS_MATRIX(matrix.a, matrix.b, matrix.c, matrix.d, matrix.e, matrix.f),
                raw.FS_RECTF(0, 0, wide, high),
                raw.FPDF_ANNOT | raw.FPDF_REVERSE_BYTE_ORDER | raw.FPDF_RENDER_LIMITEDIMAGECACHE,
            )
        finally:
            raw.FPDFBitmap_Destroy(bitmap)
        return pixels


class PdfPage:
    """One page: a ``media.page.Page``. Page units are points; /UserUnit is not applied."""

    def __init__(self, source: PdfSource, number: int) -> None:
        self._source = source
        self._number = number
        self._placement: Placement | None = None

    @property
    def number(self) -> int:
        return self._number

    @property
    def width(self) -> float:
        return self._placed().width

    @property
    def height(self) -> float:
        return self._placed().height

    @property
    def _where(self) -> str:
        return f"{self._source.name}, page {self._number}"

    def _placed(self) -> Placement:
        if self._placement is None:
            with LOCK:
                self._placement = self._source.parsed(self._number).placement
        return self._placement

    def text_layer(self) -> TextLayer:
        """Words, rulings, pictures and drawings of the page, invisible text included.

        Form fields and comments are drawn by ``render`` but have no words here.

        Raises:
            PageError: pdfium cannot read the page, or the source is closed.
        """
        with LOCK:
            return self._source.parsed(self._number).text_layer(self._where)

    def render(self, scale: float, region: Box | None = None) -> Pixels:
        """The page, or the part of ``region`` on it, at ``scale`` pixels a point.

        Only the region is drawn and held. Its size is rounded to whole pixels.

        Raises:
            PageError: pdfium cannot read the page, or the region does not touch it.
            LimitExceeded: over ``MAX_PIXELS``; ``natural_scale`` never asks for so many.
        """
        with LOCK:
            page = self._source.parsed(self._number)
            part = page.placement.box if region is None else clip(region, page.placement.box)
            if part is None or not scale > 0:
                raise PageError(
                    f"nothing to draw: region {region}, scale {scale}",
                    where=self._where,
                    next_step="ask for a region of the page",
                )
            wide = max(1, round(part.width * scale))
            high = max(1, round(part.height * scale))
            if wide * high > 1.01 * MAX_PIXELS:
                raise LimitExceeded(
                    f"a picture of {wide} × {high} pixels is over the limit of {MAX_PIXELS}",
                    where=self._where,
                    next_step="lower the scale, or draw the page by regions",
                )
            return page.render(scale, part, wide, high)

    def natural_scale(self, dpi: float, max_long_edge_px: int | None) -> float:
        """Pixels a point for ``dpi``, lowered to fit the long edge and ``MAX_PIXELS``."""
        scale = dpi / _POINTS_PER_INCH
        if max_long_edge_px is not None:
            scale = min(scale, max_long_edge_px / max(self.width, self.height))
        return min(scale, math.sqrt(MAX_PIXELS / (self.width * self.height)))


def _load_document(path: Path, password: str | None) -> Any:
    """A document handle; call under the lock."""
    secret = password.encode() if password is not None else None
    document = raw.FPDF_LoadDocument(str(path).encode(), secret)
    if document:
        return document
    code = raw.FPDF_GetLastError()
    if code == raw.FPDF_ERR_PASSWORD:
        given = password is not None and password != ""
        raise PasswordRequired(
            "the password is wrong" if given else "the file is encrypted and needs a password",
            where=str(path),
            next_step="give its password (password=, or --password-file)",
        )
    if code == raw.FPDF_ERR_SECURITY:
        raise UnsupportedFormat(
            "the file is encrypted in a way that pdfium does not know",
            where=str(path),
            next_step="save it without protection and try again",
        )
    raise BrokenFile(
        "pdfium cannot open this file as a PDF",
        where=str(path),
        next_step="check that it opens in a viewer; if not, get the file again",
    )
