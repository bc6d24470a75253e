"""What a run has brought so far, and the exit code that follows from it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from octavo.cli._errors import NOTHING, OK, PARTIAL
from octavo.pipeline.events import DocumentOpened, Event, Outcome, PageDone, Warned
from octavo.types import PageStatus


@dataclass(slots=True)
class Tally:
    """Counts events. ``pages`` are those read in this run, whole or failed."""

    started: float = field(default_factory=time.perf_counter)
    pages: int = 0
    failed_pages: int = 0
    warnings: int = 0
    outcomes: list[Outcome] = field(default_factory=list)

    def add(self, event: Event) -> None:
        match event:
            case PageDone():
                self.pages += 1
                self.failed_pages += event.status is PageStatus.FAILED
            case Warned():
                self.warnings += 1
            case Outcome():
                self.outcomes.append(event)
            case DocumentOpened():
                pass

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    @property
    def rate(self) -> float:
        """Pages a second over the whole run, start-up included."""
        return self.pages / self.seconds if self.seconds > 0 else 0.0

    @property
    def exit_code(self) -> int:
        """``OK`` when all is whole, ``NOTHING`` when no document gave a page, else ``PARTIAL``."""
        if not self.outcomes or all(outcome.status == "failed" for outcome in self.outcomes):
            return NOTHING
        return OK if all(outcome.status == "ok" for outcome in self.outcomes) else PARTIAL


def report_path(outcome: Outcome) -> Path | None:
    """The file to open: ``report.html``, or ``report.md`` where no HTML was asked for."""
    if outcome.folder is None:
        return None
    for name in ("report.html", "report.md", "report.json"):
        path = outcome.folder / name
        if path.is_file():
            return path
    return None
