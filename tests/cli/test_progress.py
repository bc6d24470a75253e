"""Bars in a terminal and lines without one."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from octavo.cli import progress
from octavo.cli._tally import Tally
from octavo.cli.progress import Bars, Display, Lines, choose, duration, shortened
from octavo.pipeline.events import DocumentOpened, Event, Outcome, PageDone, Warned
from octavo.types import Failure, PageStatus

SOURCE = Path("a.pdf")


def page(number: int, failure: Failure | None = None) -> PageDone:
    status = PageStatus.FAILED if failure else PageStatus.OK
    return PageDone(SOURCE, number, status, 0.5, failure)


def play(display: Display, events: list[Event]) -> None:
    tally = Tally()
    with display:
        for event in events:
            tally.add(event)
            display.show(event, tally)


def drawn(events: list[Event], documents: int, *, verbose: bool = False) -> list[str]:
    """The lines that a terminal received, without their colours."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100)
    play(Bars(console, documents, verbose=verbose), events)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue()).splitlines()


def test_bars_count_pages_and_documents_from_where_the_run_goes_on() -> None:
    opened = DocumentOpened(SOURCE, Path("out/a"), 12, 4)
    lines = drawn([opened, page(5), page(6)], documents=3)
    assert "a.pdf: 12 pages, 4 of them from an earlier run" in "".join(lines)
    assert any(re.match(r"a\.pdf .* 6/12 ", line) for line in lines)
    assert any(re.match(r"documents .* 0/3 ", line) for line in lines)
    ended = drawn([opened, page(5), Outcome(SOURCE, "ok", None)], documents=3)
    assert any(re.match(r"documents .* 1/3 ", line) for line in ended)


def test_one_document_has_one_bar() -> None:
    lines = drawn([DocumentOpened(SOURCE, Path("out/a"), 2, 0), page(1)], documents=1)
    assert not any("documents" in line for line in lines)


def test_failures_and_warnings_stand_above_the_bars() -> None:
    failure = Failure("PageTimeout", "too slow [bold]", "wait")
    events = [DocumentOpened(SOURCE, Path("out/a"), 2, 0), page(1, failure), Warned("a.pdf", "odd")]
    text = "\n".join(drawn(events, documents=1))
    assert "error: too slow [bold], a.pdf page 1; wait" in text
    assert "warning: odd, a.pdf" in text
    assert "page 1 in 0.50 s" not in text
    assert "page 1 in 0.50 s" in "\n".join(drawn(events, documents=1, verbose=True))


def test_lines_tell_of_pages_only_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    stream = io.StringIO()
    display, tally = Lines(stream), Tally(started=100.0)
    display.show(DocumentOpened(SOURCE, Path("out/a"), 100, 20), tally)
    for number in range(21, 61):
        now[0] += 0.25
        tally.add(page(number))
        display.show(page(number), tally)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "a.pdf: 100 pages, 20 of them from an earlier run"
    assert len(lines) == 1 + 40 * 0.25 / progress.PLAIN_INTERVAL_S
    assert lines[-1] == "a.pdf: 60 of 100 pages, 4.0 pages/s, 10 s left"


def test_without_a_terminal_there_are_no_bars() -> None:
    assert isinstance(choose(documents=1, json_lines=False, quiet=False, verbose=False), Lines)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (3.14, "3.1 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (3840, "1 h 4 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_long_name_keeps_its_ends() -> None:
    name = shortened("a-very-long-name-of-a-scanned-document-0017.pdf")
    assert len(name) <= 28
    assert name.startswith("a-very")
    assert name.endswith("-0017.pdf")
