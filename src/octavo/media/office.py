"""DOCX, PPTX, XLSX and HTML as pages of elements, by docling's own backends.

Nothing that a file points to is fetched, no macro and no other program runs. A slide or sheet is
a page; so is a page of a DOCX, where the file says that one begins; an HTML file is one page.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from octavo.errors import BrokenFile, LimitExceeded, MissingDependency, UnsupportedFormat
from octavo.media.files import read_head
from octavo.media.office_archive import OLE_MAGIC, check_archive, ole_error
from octavo.media.office_prepare import (
    BREAK,
    prepare_docx,
    prepare_html,
    prepare_xlsx,
    restored,
)
from octavo.media.open import Kind, sniff
from octavo.types import FURNITURE, Box, Category, Element, PageResult, Table, TextSource

_log = logging.getLogger(__name__)

#: Bytes of an HTML file; its tree takes about thirty times as much memory.
MAX_HTML = 32 << 20
#: Points, A4: the page of a file that knows no size.
_A4 = (595.3, 841.9)
#: Points in one EMU, docling's unit for slides.
_EMU = 1 / 12700
#: Points of a cell as Excel makes it; docling measures sheets in cells.
_CELL = (48.0, 15.0)
_NOWHERE = Box(0.0, 0.0, 0.0, 0.0)
#: What the parsers of XML and of its content raise over damage that they did not foresee.
_DAMAGE = (
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    SyntaxError,
    OSError,
    RuntimeError,
)


@dataclass(frozen=True, slots=True)
class _Route:
    """Where docling reads a kind of file, and how its boxes become points."""

    module: str
    backend: str
    options: str
    settings: dict[str, object]
    scale: tuple[float, float] = (1.0, 1.0)


_ROUTES = {
    Kind.DOCX: _Route("msword", "MsWordDocumentBackend", "MsWordBackendOptions", {}),
    Kind.PPTX: _Route(
        "mspowerpoint",
        "MsPowerpointDocumentBackend",
        "MsPowerpointBackendOptions",
        {},
        (_EMU, _EMU),
    ),
    Kind.XLSX: _Route(
        "msexcel",
        "MsExcelDocumentBackend",
        "MsExcelBackendOptions",
        {"treat_singleton_as_text": True},
        _CELL,
    ),
    # What stands before the first heading is text too.
    Kind.HTML: _Route(
        "html", "HTMLDocumentBackend", "HTMLBackendOptions", {"infer_furniture": False}
    ),
}


def read_office(path: str | Path) -> list[PageResult]:
    """The pages of a DOCX, PPTX, XLSX or HTML file, in order.

    Boxes are in points where the format has places (slides; sheets, at the usual size of a
    cell) and empty where it has none. Hidden slides and sheets are pages without elements.

    Raises:
        MissingDependency: the extra ``office`` is not installed.
        PasswordRequired: encrypted.
        UnsupportedFormat: of the kinds before 2007, or not Office or HTML.
        LimitExceeded: it unpacks to more than ``office_archive`` allows, or is an HTML file of
            more than ``MAX_HTML`` bytes.
        BrokenFile: damaged.
        SourceNotFound: no such file.
    """
    path = Path(path)
    if read_head(path, len(OLE_MAGIC)) == OLE_MAGIC:
        raise ole_error(path)
    kind = sniff(path)
    if kind not in _ROUTES:
        raise UnsupportedFormat(
            f"a file of kind {kind} is not an Office or HTML file",
            where=str(path),
            next_step="read it with octavo.parse",
        )
    if kind is not Kind.HTML:
        check_archive(path)
    elif path.stat().st_size > MAX_HTML:
        raise LimitExceeded(
            f"the HTML file is larger than {MAX_HTML >> 20} MiB",
            where=str(path),
            next_step="split it",
        )
    load = _loader(kind)
    try:
        return load(path)
    except _DAMAGE as error:
        _log.debug("%s", path, exc_info=True)
        deep = isinstance(error, RecursionError)
        cause = error.__cause__ or error
        what = "nested too deeply" if deep else f"{type(cause).__name__}: {cause}"
        raise BrokenFile(
            f"the {kind.upper()} file cannot be read ({what})",
            where=str(path),
            next_step="open and save it in its own program, or convert it to PDF",
        ) from error


def _loader(kind: Kind) -> Callable[[Path], list[PageResult]]:
    """docling's backend for ``kind``, which takes seconds to import, ready to read."""
    route = _ROUTES[kind]
    try:
        module = import_module(f"docling.backend.{route.module}_backend")
        options = import_module("docling.datamodel.backend_options")
        base_models = import_module("docling.datamodel.base_models")
        document = import_module("docling.datamodel.document")
        noop = import_module("docling.backend.noop_backend").NoOpBackend
        for name in ("docx", "pptx", "openpyxl", "bs4"):
            import_module(name)
    except ImportError as error:
        raise MissingDependency(
            f"Office files need a library that is not installed: {error.name or error}",
            next_step="pip install 'octavo[office]'",
        ) from error

    def load(path: Path) -> list[PageResult]:
        # The backend is made by hand: InputDocument would log its errors and swallow them.
        described = document.InputDocument(path, base_models.InputFormat(kind.value), noop)
        settings = getattr(options, route.options)(**route.settings)
        backend = getattr(module, route.backend)(described, path, settings)
        for name in ("docx", "pptx", "xlsx"):
            # Else LibreOffice, where it is installed, would draw pictures of old kinds.
            if hasattr(backend, f"{name}_to_pdf_converter_init"):
                setattr(backend, f"{name}_to_pdf_converter_init", True)
                setattr(backend, f"{name}_to_pdf_converter", None)
        try:
            return _read(kind, backend, route.scale)
        finally:
            backend.unload()

    return load


def _read(kind: Kind, backend: Any, scale: tuple[float, float]) -> list[PageResult]:
    match kind:
        case Kind.DOCX:
            section = backend.docx_obj.sections[0]
            size = _A4
            if section.page_width and section.page_height:
                size = (section.page_width.pt, section.page_height.pt)
            prepare_docx(backend.docx_obj)
            pages = list(_split(_convert(backend, scale)))
            return [replace(page, width=size[0], height=size[1]) for page in pages]
        case Kind.PPTX:
            slides = [slide.element.get("show") != "0" for slide in backend.pptx_obj.slides]
            return _shown(_convert(backend, scale), slides, "slide")
        case Kind.XLSX:
            prepare_xlsx(backend.workbook)
            sheets = [(sheet.title, sheet.sheet_state) for sheet in backend.workbook]
            pages = _convert(backend, scale)
            pages = _shown(pages, [state == "visible" for _, state in sheets], "sheet")
            return [_titled(page, sheets[page.number - 1][0]) for page in pages]
        case _:
            prepare_html(backend.soup)
            return [
                replace(page, elements=tuple(map(_restored, page.elements)))
                for page in _convert(backend, scale)
            ]


def _convert(backend: Any, scale: tuple[float, float]) -> list[PageResult]:
    from octavo.docling import from_docling

    document = backend.convert()
    _settle(document)
    _, pages = from_docling(document)
    out: list[PageResult] = []
    for page in pages:
        wide, high = page.width * scale[0], page.height * scale[1]
        width, height = (wide, high) if wide > 0 < high else _A4
        elements = tuple(_scaled(element, scale) for element in page.elements)
        reason = "the file's own text and structure"
        out.append(PageResult(page.number, width, height, elements, TextSource.OFFICE, reason))
    return out


def _settle(document: Any) -> None:
    """Says in labels what docling says by layers and groups, which pages do not have."""
    from docling_core.types.doc import ContentLayer, DocItemLabel

    for item in document.texts:
        if item.content_layer is ContentLayer.NOTES:
            item.label = DocItemLabel.FOOTNOTE
    for group in document.groups:
        if group.name in ("page footer", "footer"):
            for reference in group.children:
                item = reference.resolve(document)
                if hasattr(item, "text"):
                    item.label = DocItemLabel.PAGE_FOOTER
    for picture in document.pictures:
        # The numbers behind a chart are its text.
        chart = picture.meta.tabular_chart if picture.meta else None
        if chart is not None:
            place = picture.prov[0] if picture.prov else None
            document.add_table(chart.chart_data, prov=place, parent=picture)


def _scaled(element: Element, scale: tuple[float, float]) -> Element:
    box = element.box
    return replace(
        element,
        box=Box(
            box.left * scale[0], box.top * scale[1], box.right * scale[0], box.bottom * scale[1]
        ),
        children=tuple(_scaled(child, scale) for child in element.children),
    )


def _shown(pages: list[PageResult], shown: list[bool], name: str) -> list[PageResult]:
    return [
        page
        if shown[page.number - 1]
        else replace(page, elements=(), reason=f"a hidden {name}, left out")
        for page in pages
    ]


def _titled(sheet: PageResult, title: str) -> PageResult:
    """A sheet under its name."""
    if not sheet.elements:
        return sheet
    heading = Element("title", Category.SECTION_HEADER, _NOWHERE, title, level=1)
    return _renumbered(sheet, [heading, *sheet.elements])


def _split(pages: list[PageResult]) -> Iterator[PageResult]:
    """The one page of a DOCX, cut where its text has marks; heads and feet go to the first."""
    parts: list[list[Element]] = [[]]
    for element in (element for page in pages for element in page.elements):
        if element.category in FURNITURE:
            parts[0].append(element)
            continue
        texts = element.text.split(BREAK)
        table = _unmarked(element.table) if element.table else None
        begun = False
        for at, text in enumerate(texts):
            if at:
                parts.append([])
            if text.strip():
                marker = None if begun else element.marker
                part = replace(element, text=text.strip(), marker=marker, continues=begun)
                parts[-1].append(replace(part, table=table))
                begun = True
        if not element.text:
            parts[-1].append(replace(element, table=table))
    for number, elements in enumerate(parts, 1):
        yield _renumbered(replace(pages[0], number=number), elements)


def _restored(element: Element) -> Element:
    table = element.table
    if table is not None:
        cells = tuple(replace(cell, text=restored(cell.text)) for cell in table.cells)
        table = replace(table, cells=cells)
    children = tuple(map(_restored, element.children))
    return replace(element, text=restored(element.text), table=table, children=children)


def _unmarked(table: Table) -> Table:
    cells = tuple(replace(cell, text=cell.text.replace(BREAK, "")) for cell in table.cells)
    return replace(table, cells=cells)


def _renumbered(page: PageResult, elements: list[Element]) -> PageResult:
    """The page with these elements, their ids in order and captions led to the new ones."""
    names = {old.id: f"p{page.number}-{at}" for at, old in enumerate(elements, 1)}
    out = []
    for at, element in enumerate(elements, 1):
        caption_of = names.get(element.caption_of) if element.caption_of else None
        new = replace(element, id=f"p{page.number}-{at}", caption_of=caption_of)
        out.append(_children_renamed(new))
    return replace(page, elements=tuple(out))


def _children_renamed(element: Element) -> Element:
    children = (
        _children_renamed(replace(child, id=f"{element.id}.{at}"))
        for at, child in enumerate(element.children, 1)
    )
    return replace(element, children=tuple(children))
