"""One run of ``octavo parse``: joins the pipeline to a display and says how it ended."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from octavo.cli._errors import printable
from octavo.cli._json import summary_facts
from octavo.cli._tally import Tally, report_path
from octavo.cli.progress import Display, JsonLines, choose, count, duration, shortened
from octavo.pipeline.config import PipelineConfig
from octavo.pipeline.convert import convert
from octavo.pipeline.events import Event, Outcome
from octavo.pipeline.inputs import find_inputs

#: Documents that the closing table names; when there are more, those that are whole are left out.
MAX_ROWS = 20

_STYLES = {"ok": "green", "partial": "yellow", "failed": "red"}


class Run:
    """Call it once; the answer is the exit code."""

    def __init__(
        self,
        inputs: Sequence[str],
        out: Path,
        config: PipelineConfig,
        *,
        json_lines: bool,
        quiet: bool,
        verbose: bool,
    ) -> None:
        self._inputs = inputs
        self._out = out
        self._config = config
        self._quiet = quiet
        self._tally = Tally()
        self._told = False
        self._display: Display = choose(
            documents=sum(1 for _ in find_inputs(inputs, out)),
            json_lines=json_lines,
            quiet=quiet,
            verbose=verbose,
        )

    def __call__(self) -> int:
        with self._display as display:

            def show(event: Event) -> None:
                self._tally.add(event)
                display.show(event, self._tally)

            for _ in convert(self._inputs, self._out, self._config, on_event=show):
                pass
        if isinstance(display, JsonLines):
            display.write(summary_facts(self._tally))
        elif not self._quiet:
            print_summary(self._tally, self._out)
        return self._tally.exit_code

    def say_how_to_go_on(self) -> None:
        """After Ctrl-C; once, though the run and its watcher may both ask."""
        if self._told:
            return
        self._told = True
        if isinstance(self._display, JsonLines):
            self._display.write({"event": "interrupted", "pages": self._tally.pages})
        if self._tally.pages:
            kept = f"{count(self._tally.pages, 'page')} of this run kept in {printable(self._out)}"
            text = f"stopped; {kept}. The same command goes on from there."
        else:
            text = "stopped before a page was read; the same command starts again."
        print(f"\n{text}", file=sys.stderr, flush=True)


def print_summary(tally: Tally, out: Path) -> None:
    """The documents with their status, the sum of them, and where to look."""
    console = Console(highlight=False)
    outcomes = tally.outcomes
    shown = outcomes
    if len(outcomes) > MAX_ROWS:
        shown = [outcome for outcome in outcomes if outcome.status != "ok"][:MAX_ROWS]
    if shown:
        console.print(_table(shown) if console.is_terminal else _lines(shown), soft_wrap=True)
    if len(outcomes) > 1:
        numbers = {status: sum(o.status == status for o in outcomes) for status in _STYLES}
        found = ", ".join(f"{number} {status}" for status, number in numbers.items() if number)
        pages = f"{count(tally.pages, 'page')} in {duration(tally.seconds)}"
        console.print(Text(f"{count(len(outcomes), 'document')}: {found}; {pages}"), soft_wrap=True)
    reports = [path for outcome in outcomes if (path := report_path(outcome)) is not None]
    if len(reports) == 1:
        console.print(Text(f"Report: {near(reports[0])}", style="bold"), soft_wrap=True)
    elif reports:
        place = f"{printable(out)}/*/{reports[0].name}"
        console.print(Text(f"Reports: {place}", style="bold"), soft_wrap=True)


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("status")
    table.add_column("document", overflow="fold")
    table.add_column("pages", justify="right")
    table.add_column("failed", justify="right")
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("folder", overflow="fold")
    for outcome in outcomes:
        status, name, *rest = _cells(outcome)
        cells = (Text(cell) for cell in (shortened(name), *rest))
        table.add_row(Text(status, style=_STYLES[status]), *cells)
    return table


def _lines(outcomes: Sequence[Outcome]) -> Text:
    """The table without a terminal: nothing is folded, columns stay apart."""
    rows = [_cells(outcome) for outcome in outcomes]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return Text("\n".join(padded))


def _cells(outcome: Outcome) -> tuple[str, ...]:
    return (
        outcome.status,
        printable(outcome.source.name),
        str(outcome.pages),
        str(outcome.failed or "-"),
        duration(outcome.seconds),
        "-" if outcome.folder is None else near(outcome.folder),
    )


def near(path: Path) -> str:
    """``path`` as one would type it here: without the working folder where it is inside."""
    here = Path.cwd()
    return printable(path.relative_to(here) if path.is_relative_to(here) else path)
