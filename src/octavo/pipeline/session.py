"""One open document: its pages through a reader, and their pictures to disk.

The same code runs inside the worker and, for a reader that the caller hands in, in the caller's
own process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from octavo.errors import OctavoError, OutputError, PageError
from octavo.media.page import Page, Source
from octavo.pipeline.config import PipelineConfig
from octavo.pipeline.crops import draw_pictures
from octavo.pipeline.frames import PageRead, Picture
from octavo.types import Failure, PageResult, Reader

if TYPE_CHECKING:
    from octavo.readers.embedded import ReaderSettings

_log = logging.getLogger(__name__)


class BatchLost(Exception):
    """Reading stopped before every page had its result. Never leaves the pipeline.

    Attributes:
        failure: what the page that caused it is to be recorded with.
        fleeting: another try may end well, even with the same page.
    """

    def __init__(self, failure: Failure, *, fleeting: bool = False) -> None:
        super().__init__(failure.what)
        self.failure = failure
        self.fleeting = fleeting


class ReaderShelf:
    """The embedded reader for a configuration; its engines are loaded once and kept until other
    settings are asked for or the shelf is closed."""

    def __init__(self) -> None:
        self._reader: Reader[Page] | None = None
        self._settings: ReaderSettings | None = None

    def get(self, config: PipelineConfig) -> Reader[Page]:
        from octavo.readers.embedded import EmbeddedReader, ReaderSettings

        settings = ReaderSettings(
            mode=config.mode,
            pdf_dpi=config.pdf_dpi,
            max_long_edge_px=config.max_long_edge_px,
            ocr=config.ocr,
            layout_model=config.layout_model,
        )
        if self._reader is None or settings != self._settings:
            self.close()
            self._reader = EmbeddedReader(settings)
            self._settings = settings
        return self._reader

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Given:
    """A shelf that holds the caller's reader, which the caller closes."""

    def __init__(self, reader: Reader[Page]) -> None:
        self._reader = reader

    def get(self, config: PipelineConfig) -> Reader[Page]:
        del config
        return self._reader


class Session:
    """An open document.

    Raises:
        InputError: the file cannot be opened; see ``octavo.media.open``.
        MissingDependency: its kind needs a library that is not installed.
    """

    def __init__(self, path: Path, config: PipelineConfig, shelf: ReaderShelf | Given) -> None:
        from octavo.media.open import Kind, open_source, sniff

        self._config = config
        self._source: Source | None = None
        self._results: dict[int, PageResult] = {}
        if sniff(path) not in (Kind.PDF, Kind.IMAGE):
            from octavo.media.office import read_office

            self._results = {result.number: result for result in read_office(path)}
        else:
            self._source = open_source(path, password=config.password)
            self._shelf = shelf

    def __len__(self) -> int:
        return len(self._results) if self._source is None else len(self._source)

    def close(self) -> None:
        if self._source is not None:
            self._source.close()

    def read(
        self, numbers: tuple[int, ...], folder: Path, on_start: Callable[[int], None]
    ) -> Iterator[PageRead]:
        """The pages of ``numbers``, read and drawn, as the reader finishes them.

        Raises:
            OutputError: a picture cannot be written.
            BatchLost: the reader raised; what it had not given is lost.
        """
        if self._source is None:
            for number in numbers:
                on_start(number)
                yield PageRead(self._results[number])
            return
        source, taken = self._source, dict[int, Page]()

        def pages() -> Iterator[Page]:
            for page in source.pages(numbers):
                taken[page.number] = page
                on_start(page.number)
                yield page

        results = iter(self._shelf.get(self._config).read(pages()))
        while (result := _next(results)) is not None:
            page = taken.pop(result.number, None)
            if page is None:
                raise BatchLost(
                    Failure("PageError", f"the reader gave a page {result.number} unasked")
                )
            yield PageRead(result, self._draw(page, result, folder))

    def _draw(self, page: Page, result: PageResult, folder: Path) -> tuple[Picture, ...]:
        if result.failure is not None:
            return ()
        try:
            return draw_pictures(page, result, self._config, folder)
        except PageError as error:
            # The text is whole; a report without this picture is better than none.
            _log.warning("page %d has no pictures: %s", page.number, error)
            return ()


def _next(results: Iterator[PageResult]) -> PageResult | None:
    """The one place that isolates a page: whatever a reader raises costs its pages only."""
    try:
        return next(results, None)
    except OutputError:
        raise
    except OctavoError as error:
        raise BatchLost(failure_of(error)) from error
    except Exception as error:
        _log.exception("the reader raised")
        failure = Failure(
            type(error).__name__,
            f"the reader raised: {error}",
            "please report this with the file",
        )
        raise BatchLost(failure) from error


def failure_of(error: OctavoError) -> Failure:
    return Failure(type(error).__name__, error.what, error.next_step)
