"""What ``--json`` prints: one object for each event. Keys are only ever added."""

from __future__ import annotations

from collections import Counter
from typing import Any

from octavo.cli._errors import NOTHING, OK, PARTIAL
from octavo.cli._tally import Tally, report_path
from octavo.pipeline.events import DocumentOpened, Event, Outcome, PageDone, Warned
from octavo.types import Failure


def event_facts(event: Event) -> dict[str, Any]:
    match event:
        case DocumentOpened():
            return {
                "event": "document_started",
                "source": str(event.source),
                "folder": str(event.folder),
                "pages": event.pages,
                "resumed": event.resumed,
            }
        case PageDone():
            return {
                "event": "page_done",
                "source": str(event.source),
                "page": event.number,
                "status": event.status.value,
                "seconds": round(event.seconds, 4),
                "failure": failure_facts(event.failure),
            }
        case Warned():
            return {"event": "warning", "where": event.where, "message": event.message}
        case Outcome():
            return {"event": "document_done", **outcome_facts(event)}


def outcome_facts(outcome: Outcome) -> dict[str, Any]:
    """A document's outcome for ``--json``: paths as text, null where there is none."""
    report = report_path(outcome)
    return {
        "source": str(outcome.source),
        "status": outcome.status,
        "folder": None if outcome.folder is None else str(outcome.folder),
        "report": None if report is None else str(report),
        "pages": outcome.pages,
        "failed": outcome.failed,
        "resumed": outcome.resumed,
        "seconds": round(outcome.seconds, 3),
        "failure": failure_facts(outcome.failure),
    }


def failure_facts(failure: Failure | None) -> dict[str, Any] | None:
    if failure is None:
        return None
    return {"error": failure.error, "what": failure.what, "next_step": failure.next_step}


def summary_facts(tally: Tally) -> dict[str, Any]:
    """The last line of a run."""
    status = {OK: "ok", PARTIAL: "partial", NOTHING: "failed"}[tally.exit_code]
    counted = Counter(outcome.status for outcome in tally.outcomes)
    return {
        "event": "summary",
        "status": status,
        "exit_code": tally.exit_code,
        "documents": len(tally.outcomes),
        "ok": counted["ok"],
        "partial": counted["partial"],
        "failed": counted["failed"],
        "pages": tally.pages,
        "failed_pages": tally.failed_pages,
        "seconds": round(tally.seconds, 3),
    }
