"""From the journal to the report's files, streaming: no more than one page is in memory."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from octavo.document import ReportHeader, ReportStatus, write_report_json
from octavo.files import atomic_write, encode, to_bytes
from octavo.markdown import render
from octavo.pipeline.config import PipelineConfig, is_plain_name
from octavo.pipeline.frames import Picture
from octavo.pipeline.journal import Journal
from octavo.pipeline.summaries import summarize_document, summarize_page
from octavo.readers.finish import DocumentPass
from octavo.types import Category, PageResult, PageStatus, Summary

MANIFEST_SCHEMA = "octavo.manifest/1"


@dataclass(frozen=True, slots=True)
class Composed:
    """What was written; ``failed`` is the number of pages that failed."""

    header: ReportHeader
    status: ReportStatus
    failed: int


def finished_pages(
    journal: Journal, numbers: tuple[int, ...], config: PipelineConfig
) -> Iterator[PageResult]:
    """The pages as they stand in the report, in the order of ``numbers``."""
    return _Pages(journal, numbers, config).stream()


def compose(
    journal: Journal,
    numbers: tuple[int, ...],
    header: ReportHeader,
    config: PipelineConfig,
    folder: Path,
) -> Composed:
    """Writes the report's files into ``folder``, each as one step.

    Raises:
        JournalError: a page is not in the journal.
        OutputError: a file cannot be written.
    """
    pages = _Pages(journal, numbers, config)
    if config.summaries:
        header = replace(header, summary=summarize_document(pages.stream()))
    status = write_report_json(folder / "report.json", header, pages.stream())
    with atomic_write(folder / "report.md") as file:
        crops = {element_id: crop.file for element_id, crop in pages.crops().items()}
        for piece in render(pages.stream(), crops=crops):
            file.write(to_bytes(piece))
    _write_html(folder, header, pages, config)
    _drop_old_manifest(journal, folder, config.manifest_filename if config.save_manifest else "")
    if config.save_manifest:
        _write_manifest(folder / config.manifest_filename, header, pages)
    return Composed(header, status, pages.failed)


class _Pages:
    """The journal's pages with the document's view of them, to be streamed several times."""

    def __init__(self, journal: Journal, numbers: tuple[int, ...], config: PipelineConfig) -> None:
        self._journal = journal
        self._numbers = numbers
        # Each is made once and kept: a few sentences a page.
        self._summaries: dict[int, Summary | None] | None = {} if config.summaries else None
        self._observed = DocumentPass()
        self.failed = 0
        for page in journal.pages(numbers):
            self._observed.observe(page.result)
            self.failed += page.result.status is PageStatus.FAILED

    def stream(self) -> Iterator[PageResult]:
        # Finishing carries text over from page to page, so every stream starts from a copy.
        document = copy.deepcopy(self._observed)
        for page in self._journal.pages(self._numbers):
            result = document.finish(page.result)
            if self._summaries is not None:
                if result.number not in self._summaries:
                    self._summaries[result.number] = summarize_page(result)
                result = replace(result, summary=self._summaries[result.number])
            yield result

    def page_pictures(self) -> dict[int, Picture]:
        """By page number."""
        return {
            number: picture
            for number in self._numbers
            for picture in self._journal.pictures(number)
            if picture.element_id is None
        }

    def crops(self) -> dict[str, Picture]:
        """By element id."""
        return {
            picture.element_id: picture
            for number in self._numbers
            for picture in self._journal.pictures(number)
            if picture.element_id
        }


def _write_html(folder: Path, header: ReportHeader, pages: _Pages, config: PipelineConfig) -> None:
    path = folder / "report.html"
    if not config.html:
        path.unlink(missing_ok=True)
        return
    from octavo.pipeline.html import write_html

    pictures = {n: folder / picture.file for n, picture in pages.page_pictures().items()}
    write_html(path, header, pages.stream(), pictures)


def _write_manifest(path: Path, header: ReportHeader, pages: _Pages) -> None:
    crops = pages.crops()
    head = {"schema": MANIFEST_SCHEMA, "source": header.source, "sha256": header.sha256}
    with atomic_write(path) as file:
        file.write(to_bytes(encode(head, str(path))[:-1] + ',"crops":['))
        comma = ""
        for page in pages.stream():
            for entry in _entries(page, crops):
                file.write(to_bytes(f"{comma}\n{encode(entry, str(path))}"))
                comma = ","
        file.write(b"\n]}\n")


def _entries(page: PageResult, crops: Mapping[str, Picture]) -> Iterator[dict[str, object]]:
    captions = {e.caption_of: e.id for e in page.elements if e.category is Category.CAPTION}
    for element in page.elements:
        if crop := crops.get(element.id):
            box = element.box
            yield {
                "id": element.id,
                "page": page.number,
                "category": element.category.value,
                "box": [box.left, box.top, box.right, box.bottom],
                "file": crop.file,
                "width": crop.width,
                "height": crop.height,
                "caption": captions.get(element.id),
            }


def _drop_old_manifest(journal: Journal, folder: Path, wanted: str) -> None:
    """Removes the list that an earlier run wrote under another name."""
    before = journal.get("manifest") or ""
    if before != wanted:
        # A journal may come from elsewhere; it must not name a file outside.
        if is_plain_name(before):
            (folder / before).unlink(missing_ok=True)
        journal.put("manifest", wanted)
