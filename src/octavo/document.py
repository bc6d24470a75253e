"""The report: what was read from one file, page by page, and what failed.

Nothing else is durable. ``report.json`` holds all of it, so ``Report.load(path) == report``;
Markdown, HTML and the ``DoclingDocument`` are views of it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from octavo.errors import InputError, SourceNotFound, UnsupportedFormat
from octavo.files import Fields, atomic_write, broken, decode, encode, to_bytes
from octavo.schema import (
    failure_from_dict,
    failure_to_dict,
    page_from_dict,
    page_to_dict,
    summary_from_dict,
    summary_to_dict,
)
from octavo.types import Box, Element, Failure, PageResult, PageStatus, Summary

if TYPE_CHECKING:
    from docling_core.types.doc.document import DoclingDocument

__all__ = [
    "SCHEMA",
    "Citation",
    "Report",
    "ReportHeader",
    "ReportStatus",
    "page_from_dict",
    "page_to_dict",
    "write_report_json",
]

#: The version of ``report.json``; a reader refuses every other one.
SCHEMA = "octavo.report/1"

Setting: TypeAlias = "str | int | float | bool | tuple[Setting, ...] | None"


class ReportStatus(StrEnum):
    """How a document ended: every page whole, some, or none."""

    OK = "ok"
    PARTIAL = "partial"
    FAILED = "failed"

    @classmethod
    def of(cls, pages: Iterable[PageStatus], failures: tuple[Failure, ...]) -> ReportStatus:
        """The status that follows from the pages' and from the failures of the whole file."""
        count = Counter(pages)
        if not count[PageStatus.OK]:
            return cls.FAILED
        return cls.PARTIAL if count[PageStatus.FAILED] or failures else cls.OK


@dataclass(frozen=True, slots=True)
class Citation:
    """A span of an element's text, word for word.

    Attributes:
        page: 1-based number of the page.
        box: the element's box in page units.
        quote: a part of the element's text, not empty.
    """

    element_id: str
    page: int
    box: Box
    quote: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportHeader:
    """What a report says of its file, without the pages.

    Attributes:
        source: the file's name, without its folder.
        sha256: of the bytes of the file, in hexadecimal; empty where there was no file.
        settings: those that decide the content, by their names in ``PipelineConfig``.
        page_count: pages of the file; the report may hold fewer.
        failures: of the whole file.
    """

    source: str
    sha256: str = ""
    settings: Mapping[str, Setting] = field(default_factory=dict)
    page_count: int
    summary: Summary | None = None
    failures: tuple[Failure, ...] = ()

    def __post_init__(self) -> None:
        frozen = {key: _freeze(self.settings[key]) for key in sorted(self.settings)}
        object.__setattr__(self, "settings", frozen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report(ReportHeader):
    """One file as pages of elements.

    Raises:
        InputError: two pages have one number.
    """

    pages: tuple[PageResult, ...] = ()

    def __post_init__(self) -> None:
        # A slotted dataclass is made anew by its decorator, so the bare super() finds the old one.
        ReportHeader.__post_init__(self)
        seen: set[int] = set()
        for page in self.pages:
            if page.number in seen:
                raise InputError(f"page {page.number} is there twice", where=self.source)
            seen.add(page.number)

    @classmethod
    def of(cls, header: ReportHeader, pages: Iterable[PageResult]) -> Report:
        """The header and its pages as one."""
        return cls(**_header_fields(header), pages=tuple(pages))

    @property
    def header(self) -> ReportHeader:
        return ReportHeader(**_header_fields(self))

    @property
    def status(self) -> ReportStatus:
        """``ok`` only if no page and nothing of the file failed; ``failed`` if no page is ok."""
        return ReportStatus.of((page.status for page in self.pages), self.failures)

    def elements(self) -> Iterator[Element]:
        """Every element in reading order, each followed by its children."""
        for page in self.pages:
            yield from _walk(page.elements)

    def element(self, element_id: str) -> Element:
        """The element of this id.

        Raises:
            InputError: there is none.
        """
        return self._find(element_id)[1]

    def cite(self, element_id: str, quote: str) -> Citation:
        """A citation of ``quote``, checked.

        Raises:
            InputError: no such element, or ``quote`` is no span of its text.
        """
        page, element = self._find(element_id)
        citation = Citation(element_id, page.number, element.box, quote)
        self.check(citation)
        return citation

    def check(self, citation: Citation) -> None:
        """Whether the citation stands in the document, word for word.

        Raises:
            InputError: its element, page, box or words are not those of this report.
        """
        page, element = self._find(citation.element_id)
        where = f"{self.source}, {citation.element_id}"
        if (citation.page, citation.box) != (page.number, element.box):
            raise InputError(
                f"the citation points to page {citation.page}, the element is elsewhere",
                where=where,
                next_step="cite it again from this report",
            )
        if not citation.quote.strip() or not any(
            citation.quote in text for text in _citable(element)
        ):
            raise InputError(
                f"{citation.quote[:80]!r} is no span of the element's text",
                where=where,
                next_step="quote the text as it stands in the report, without changes",
            )

    def markdown(self, page: int | None = None, *, furniture: bool = False) -> str:
        """The text in reading order as Markdown, of one page (1-based) or of all.

        Running heads, feet and page numbers are left out unless ``furniture`` is asked for.

        Raises:
            InputError: the report has no such page.
        """
        from octavo.markdown import page_markdown, render

        if page is None:
            return "".join(render(self.pages, furniture=furniture))
        for result in self.pages:
            if result.number == page:
                return page_markdown(result, furniture=furniture)
        raise InputError(
            f"the report has no page {page}",
            where=self.source,
            next_step=f"the file has {self.page_count}, the report holds {len(self.pages)} of them",
        )

    @property
    def document(self) -> DoclingDocument:
        """A new ``DoclingDocument`` of all pages. Failed pages are there, empty."""
        from octavo.docling import to_docling

        return to_docling(self.source, self.sha256, self.pages)

    @classmethod
    def from_docling(cls, document: DoclingDocument) -> Report:
        """A report of any valid ``DoclingDocument``.

        An item without a place on a page (a DOCX has no pages) goes to page 1 with an empty box.
        """
        from octavo.docling import from_docling

        source, pages = from_docling(document)
        return cls(source=source, page_count=len(pages), pages=pages)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes ``report.json`` as one step: the old file stays until the new one is whole.

        Raises:
            OutputError: the disk is full, or the folder is not there or not writable.
        """
        write_report_json(path, self.header, self.pages)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Report:
        """The report that ``save`` wrote.

        Raises:
            SourceNotFound: no such file.
            UnsupportedFormat: another version of the schema.
            BrokenFile: not JSON, or a key or value that the schema does not have.
        """
        where = os.fspath(path)
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise SourceNotFound(
                f"cannot be read: {error.strerror}", where=where, next_step="check the path"
            ) from error
        return _report_from_value(decode(data, where), where)

    def _find(self, element_id: str) -> tuple[PageResult, Element]:
        for page in self.pages:
            for element in _walk(page.elements):
                if element.id == element_id:
                    return page, element
        raise InputError(
            f"no element {element_id!r}",
            where=self.source,
            next_step="ids stand in report.json, as p<page>-<n>",
        )


def write_report_json(
    path: str | os.PathLike[str], header: ReportHeader, pages: Iterable[PageResult]
) -> ReportStatus:
    """Writes ``report.json`` page by page, holding one page at a time, and returns the status.

    The bytes depend on the header and the pages only. The file appears whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    where = os.fspath(path)
    seen: Counter[PageStatus] = Counter()
    with atomic_write(path) as file:
        # The header's closing brace is left off: pages and status follow.
        file.write(to_bytes(encode(_header_to_dict(header), where)[:-1] + ',"pages":['))
        for at, page in enumerate(pages):
            line = encode(page_to_dict(page), f"{where}, page {page.number}")
            file.write(to_bytes((",\n" if at else "\n") + line))
            seen[page.status] += 1
        status = ReportStatus.of(seen.elements(), header.failures)
        file.write(to_bytes(f'\n],"status":"{status}"}}\n'))
    return status


def _header_fields(header: ReportHeader) -> dict[str, Any]:
    return {item.name: getattr(header, item.name) for item in fields(ReportHeader)}


def _header_to_dict(header: ReportHeader) -> dict[str, object]:
    out: dict[str, object] = {"schema": SCHEMA, "source": header.source, "sha256": header.sha256}
    out["page_count"] = header.page_count
    out["settings"] = header.settings
    if header.summary:
        out["summary"] = summary_to_dict(header.summary)
    if header.failures:
        out["failures"] = [failure_to_dict(failure) for failure in header.failures]
    return out


def _report_from_value(value: object, where: str) -> Report:
    found = value.get("schema") if isinstance(value, dict) else None
    if isinstance(found, str) and found != SCHEMA:
        raise UnsupportedFormat(
            f"the report is of the schema {found!r}, this version reads {SCHEMA!r}",
            where=where,
            next_step="read it with the version that wrote it, or run `octavo parse` again",
        )
    top = Fields(value, f"{where}: $")
    top.text("schema")
    report = Report(
        source=top.text("source"),
        sha256=top.text("sha256"),
        page_count=top.integer("page_count"),
        settings=_settings_from_value(top.take("settings"), top.at("settings")),
        summary=top.optional("summary", summary_from_dict),
        failures=top.many("failures", failure_from_dict),
        pages=top.many("pages", page_from_dict),
    )
    # Written for readers of the file; it cannot be set, and so must agree with the pages.
    if (status := top.text("status")) != report.status:
        raise broken(f"says {status!r}, its pages say {str(report.status)!r}", top.at("status"))
    top.done()
    return report


def _settings_from_value(value: object, path: str) -> dict[str, Setting]:
    if not isinstance(value, dict):
        raise broken("expected an object", path)
    for key, item in value.items():
        if isinstance(item, dict):
            raise broken("a setting cannot be an object", f"{path}.{key}")
    return value


def _walk(elements: Iterable[Element]) -> Iterator[Element]:
    for element in elements:
        yield element
        yield from _walk(element.children)


def _citable(element: Element) -> Iterator[str]:
    """The texts that a quote may come from: the element's own, or one cell of its table."""
    yield element.text
    if element.table is not None:
        yield from (cell.text for cell in element.table.cells)


def _freeze(value: object) -> Setting:
    if isinstance(value, list | tuple):
        return tuple(_freeze(item) for item in value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise InputError(f"a setting cannot be a {type(value).__name__}")
