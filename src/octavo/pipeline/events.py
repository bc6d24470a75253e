"""What a run says while it goes on: small frozen facts for a progress bar or a JSON line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from octavo.types import Failure, PageStatus

#: ``ok``: all pages; ``partial``: some pages failed; ``failed``: nothing could be read.
DocumentStatus = Literal["ok", "partial", "failed"]


@dataclass(frozen=True, slots=True)
class DocumentOpened:
    """Before its first page. ``resumed`` of the ``pages`` were finished by an earlier run."""

    source: Path
    folder: Path
    pages: int
    resumed: int


@dataclass(frozen=True, slots=True)
class PageDone:
    """A page was read and is in the journal; ``seconds`` is what the reader spent on it."""

    source: Path
    number: int
    status: PageStatus
    seconds: float
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Warned:
    """Something that the reader of the log should know and that stops nothing."""

    where: str
    message: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one document ended; also the last event of it.

    Attributes:
        folder: where its files are; None when it could not be opened.
        pages, failed: how many were asked for, and how many of them failed.
        seconds: wall clock of this run, resumed pages not included.
        failure: why the document as a whole failed.
    """

    source: Path
    status: DocumentStatus
    folder: Path | None
    pages: int = 0
    failed: int = 0
    resumed: int = 0
    seconds: float = 0.0
    failure: Failure | None = None


Event = DocumentOpened | PageDone | Warned | Outcome
