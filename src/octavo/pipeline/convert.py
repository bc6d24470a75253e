"""The main job: documents in, one report each, whatever single pages and files do.

For every document: open it, take its folder, read the pages that the journal does not have, and
compose the report from the journal. The report depends on the journal alone, so a run that was
killed and continued gives the same bytes as one that was not.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from octavo.document import Report, ReportHeader
from octavo.errors import InputError, OctavoError, OutputError
from octavo.media.files import check_file
from octavo.media.page import Page
from octavo.pipeline.compose import compose, finished_pages
from octavo.pipeline.config import PipelineConfig, select_pages
from octavo.pipeline.events import DocumentOpened, Event, Outcome, PageDone, Warned
from octavo.pipeline.frames import PageRead
from octavo.pipeline.inputs import find_inputs
from octavo.pipeline.journal import Journal, RunKey
from octavo.pipeline.outputs import Outputs, clear
from octavo.pipeline.session import failure_of
from octavo.pipeline.supervise import Inline, Isolated, Reading, failed_page
from octavo.types import Failure, Reader

_log = logging.getLogger(__name__)

StrPath = str | os.PathLike[str]


def parse(
    path: StrPath,
    *,
    out: StrPath | None = None,
    reader: Reader[Page] | None = None,
    **settings: Any,
) -> Report:
    """One document as a ``Report`` with all its pages in memory.

    Args:
        out: a folder that keeps the report and its pictures; without one only the report is left.
        reader: reads the pages instead of the embedded reader, in this process and so without
            protection from a crash or hang in it. The caller closes it.
        settings: fields of ``PipelineConfig``, such as ``pdf_dpi=200``.

    Raises:
        InputError: the file cannot be opened.
        ConfigError: an unknown setting or wrong value.
        OutputError, JournalError: the results cannot be written.
    """
    with Converter(PipelineConfig.build(**settings), reader=reader) as converter:
        return converter.parse(path, out=out)


def convert(
    inputs: Iterable[StrPath],
    out: StrPath,
    config: PipelineConfig | None = None,
    *,
    reader: Reader[Page] | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Iterator[Outcome]:
    """Reads files, folders and patterns into ``out``; one ``Outcome`` each, as they end.

    Nothing is held in memory but the page at hand. A file that cannot be read is an outcome with
    a failure and never ends the iteration.

    Raises:
        OutputError: ``out`` cannot be made.
    """
    with Converter(config, reader=reader, on_event=on_event) as converter:
        yield from converter.convert(inputs, out)


class Converter:
    """Engines that are loaded once for many documents; a context manager.

    Not for several threads at once. ``close`` ends the worker process and so frees all that the
    engines held; the next document would start another.
    """

    def __init__(
        self,
        config: PipelineConfig | None = None,
        *,
        reader: Reader[Page] | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self.config = config or PipelineConfig()
        self._reading: Reading = Isolated() if reader is None else Inline(reader)
        self._reader_name = "" if reader is None else _name_of(reader)
        self._on_event = on_event
        self._telling = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def worker_pid(self) -> int | None:
        """The process that reads pages, while there is one."""
        return self._reading.pid if isinstance(self._reading, Isolated) else None

    def close(self) -> None:
        self._reading.close()

    def parse(self, path: StrPath, *, out: StrPath | None = None) -> Report:
        """See ``octavo.parse``."""
        if out is not None:
            return self._run(Path(path), Outputs(Path(out)), keep=True)[1]
        with tempfile.TemporaryDirectory(prefix="octavo-") as folder:
            quiet = replace(
                self.config, html=False, save_pages=False, save_crops=False, save_manifest=False
            )
            return self._run(Path(path), Outputs(Path(folder)), keep=True, config=quiet)[1]

    def convert(self, inputs: Iterable[StrPath], out: StrPath) -> Iterator[Outcome]:
        """See ``octavo.pipeline.convert.convert``."""
        outputs = Outputs(Path(out))
        for source in find_inputs(inputs, outputs.root):
            started = time.monotonic()
            if isinstance(source, OctavoError):
                outcome = Outcome(Path(source.where or ""), "failed", None)
                outcome = replace(outcome, failure=failure_of(source))
            else:
                try:
                    outcome = self._run(source, outputs, keep=False)[0]
                except OctavoError as error:
                    outcome = Outcome(source, "failed", None, failure=failure_of(error))
                except Exception as error:
                    # The one place that isolates a file; what the caller's own callback raises
                    # is the caller's.
                    if self._telling:
                        raise
                    _log.exception("%s failed", source)
                    outcome = Outcome(source, "failed", None, failure=_fault(error))
            outcome = replace(outcome, seconds=time.monotonic() - started)
            self._tell(outcome)
            yield outcome

    def _run(
        self, source: Path, outputs: Outputs, *, keep: bool, config: PipelineConfig | None = None
    ) -> tuple[Outcome, Report]:
        """Reads one document into its folder. The report has pages only where ``keep``."""
        config = config or self.config
        check_file(source)
        stamp = _stamp(source)
        settings = config.content_settings()
        key = RunKey(_sha256(source), settings, self._reader_name)
        count = self._reading.open(source, config)
        numbers = select_pages(config.pages, count)
        with outputs.claim(source) as folder, Journal(folder) as journal:
            if journal.moved_aside:
                self._tell(
                    Warned(
                        str(folder),
                        "the journal was damaged; it was moved to "
                        f"{journal.moved_aside.name} and all pages are read anew",
                    )
                )
            if not journal.holds(source, key):
                clear(folder)
                journal.begin(source, key)
            done = set(journal.finished(numbers, folder))
            self._tell(DocumentOpened(source, folder, len(numbers), len(done)))
            todo = tuple(number for number in numbers if number not in done)
            for page in self._reading.read(todo, folder):
                self._commit(source, journal, page)
            if _stamp(source) != stamp:
                raise InputError(
                    "the file changed while it was read",
                    where=str(source),
                    next_step="run again when it is complete",
                )
            header = ReportHeader(
                source=source.name, sha256=key.sha256, settings=settings, page_count=count
            )
            composed = compose(journal, numbers, header, config, folder)
            pages = finished_pages(journal, numbers, config) if keep else iter(())
            report = Report.of(composed.header, pages)
        status = composed.status
        return (
            Outcome(
                source,
                status.value,
                folder,
                pages=len(numbers),
                failed=composed.failed,
                resumed=len(done),
            ),
            report,
        )

    def _tell(self, event: Event) -> None:
        if self._on_event is not None:
            self._telling = True
            self._on_event(event)
            self._telling = False

    def _commit(self, source: Path, journal: Journal, page: PageRead) -> None:
        try:
            journal.add(page)
        except OutputError as error:
            if error.where != f"page {page.result.number}":
                raise
            # The reader gave what no report can hold, such as a box that is not a number.
            page = PageRead(failed_page(page.result.number, failure_of(error)))
            journal.add(page)
        result = page.result
        seconds = sum(result.timings.values())
        self._tell(PageDone(source, result.number, result.status, seconds, result.failure))


def _fault(error: Exception) -> Failure:
    return Failure(
        type(error).__name__, f"a fault in Octavo: {error}", "please report it with the file"
    )


def _name_of(reader: Reader[Page]) -> str:
    """What tells this reader's pages from another's. A reader says so itself, by an attribute
    ``fingerprint``; of one that does not, no page is ever reused."""
    kind = type(reader)
    fingerprint = getattr(reader, "fingerprint", None) or uuid.uuid4().hex
    return f"{kind.__module__}.{kind.__qualname__}:{fingerprint}"


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror}", where=str(path), next_step="check its permissions"
        ) from error
