"""How a run is shown while it goes on: bars, plain lines, JSON lines, or only what went wrong.

Progress goes to stderr, so that stdout carries results only.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
)
from rich.text import Text

from octavo.cli._errors import failure_line, line, printable
from octavo.cli._json import event_facts
from octavo.cli._tally import Tally
from octavo.pipeline.events import DocumentOpened, Event, Outcome, PageDone, Warned
from octavo.types import Failure

#: Seconds between two plain lines about pages that went well.
PLAIN_INTERVAL_S = 2.0
_NAME_WIDTH = 28


class Display(Protocol):
    """Shows events as they come; entered before the first and left after the last."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, event: Event, tally: Tally) -> None: ...


def choose(*, documents: int, json_lines: bool, quiet: bool, verbose: bool) -> Display:
    """The display that fits the options and the terminal."""
    if json_lines:
        return JsonLines(sys.stdout)
    if quiet:
        return Errors(sys.stderr)
    if sys.stderr.isatty():
        return Bars(Console(stderr=True), documents, verbose=verbose)
    return Lines(sys.stderr, verbose=verbose)


def problem(event: Event) -> str | None:
    """The line for an event that is a failure or a warning, else None."""
    match event:
        case PageDone(failure=Failure() as failure):
            return failure_line(failure, f"{event.source.name} page {event.number}")
        case Outcome(failure=Failure() as failure):
            return failure_line(failure, str(event.source))
        case Warned():
            return line(event.message, event.where).replace("error:", "warning:", 1)
        case _:
            return None


def page_line(event: PageDone) -> str:
    return f"{printable(event.source.name)}: page {event.number} in {event.seconds:.2f} s"


class _Plain:
    """Writes to one stream and needs nothing at its ends."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.flush()

    def _write(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class Errors(_Plain):
    """``--quiet``: failures, one line each."""

    def show(self, event: Event, tally: Tally) -> None:
        del tally
        text = None if isinstance(event, Warned) else problem(event)
        if text:
            self._write(text)


class Lines(_Plain):
    """Without a terminal: a line for each document, failures, and now and then for pages."""

    def __init__(self, stream: TextIO, *, verbose: bool = False) -> None:
        super().__init__(stream)
        self._verbose = verbose
        self._total = 0
        self._done = 0
        self._written = time.perf_counter()

    def show(self, event: Event, tally: Tally) -> None:
        if text := problem(event):
            self._write(text)
        match event:
            case DocumentOpened():
                self._total, self._done = event.pages, event.resumed
                self._write(opened_line(event))
            case PageDone():
                self._done += 1
                due = time.perf_counter() - self._written >= PLAIN_INTERVAL_S
                if self._verbose:
                    self._write(page_line(event))
                elif due and self._done < self._total:
                    self._write(self._pages_line(event, tally))
                    self._written = time.perf_counter()
            case Outcome(folder=Path()):
                self._write(f"{printable(event.source.name)}: {ended(event)}")
            case _:
                pass

    def _pages_line(self, event: PageDone, tally: Tally) -> str:
        text = f"{printable(event.source.name)}: {self._done} of {self._total} pages"
        if tally.rate > 0:
            left = (self._total - self._done) / tally.rate
            text += f", {tally.rate:.1f} pages/s, {duration(left)} left"
        return text


class JsonLines(_Plain):
    """``--json``: one object a line. Keys are only ever added."""

    def show(self, event: Event, tally: Tally) -> None:
        del tally
        self.write(event_facts(event))

    def write(self, facts: dict[str, Any]) -> None:
        self._write(json.dumps(facts, ensure_ascii=False))


class Bars:
    """In a terminal: a bar over the pages of the document, and one over the documents."""

    def __init__(self, console: Console, documents: int, *, verbose: bool = False) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            _Left(),
            console=self._console,
            transient=True,
        )
        self._verbose = verbose
        self._pages: TaskID | None = None
        self._documents: TaskID | None = None
        if documents > 1:
            self._documents = self._progress.add_task(
                f"{'documents':{_NAME_WIDTH}}", total=documents
            )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, event: Event, tally: Tally) -> None:
        del tally
        if text := problem(event):
            self._above(text, "yellow" if isinstance(event, Warned) else "red")
        match event:
            case DocumentOpened():
                self._pages = self._progress.add_task(
                    f"{shortened(event.source.name):{_NAME_WIDTH}}",
                    total=event.pages,
                    completed=event.resumed,
                    unit="pages",
                )
                if event.resumed:
                    self._above(opened_line(event), "dim")
            case PageDone():
                if self._pages is not None:
                    self._progress.advance(self._pages)
                if self._verbose:
                    self._above(page_line(event), "dim")
            case Outcome():
                if self._pages is not None:
                    self._progress.remove_task(self._pages)
                    self._pages = None
                if self._documents is not None:
                    self._progress.advance(self._documents)
            case Warned():
                pass

    def _above(self, text: str, style: str) -> None:
        self._console.print(Text(text, style=style), soft_wrap=True)


class _Rate(ProgressColumn):
    """Pages a second, or seconds a page where that reads better."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if "unit" not in task.fields or not speed:
            return Text("")
        return Text(f"{speed:.1f} pages/s" if speed >= 1 else f"{1 / speed:.1f} s/page")


class _Left(ProgressColumn):
    """The time left, or until that can be told the time gone."""

    def render(self, task: Task) -> Text:
        if task.time_remaining is None:
            return Text(duration(task.elapsed or 0), style="dim")
        return Text(f"{duration(task.time_remaining)} left")


def opened_line(event: DocumentOpened) -> str:
    text = f"{printable(event.source.name)}: {count(event.pages, 'page')}"
    return f"{text}, {event.resumed} of them from an earlier run" if event.resumed else text


def ended(outcome: Outcome) -> str:
    """``ok, 12 pages in 3.1 s``, with what failed."""
    text = f"{outcome.status}, {count(outcome.pages, 'page')} in {duration(outcome.seconds)}"
    return f"{text}, {outcome.failed} failed" if outcome.failed else text


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def duration(seconds: float) -> str:
    """``3.1 s``, ``42 s``, ``2 min 5 s``, ``1 h 4 min``."""
    if round(seconds) < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def shortened(name: str) -> str:
    """A file name that leaves room for the bar, its end kept: that is where names differ."""
    name = printable(name)
    if len(name) <= _NAME_WIDTH:
        return name
    return name[: _NAME_WIDTH // 2 - 1] + "…" + name[-(_NAME_WIDTH // 2) :]
