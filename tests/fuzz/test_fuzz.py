"""Damaged and hostile files through the real worker: each ends in a report or a clear error.

``FUZZ_CASES=500`` sets the number of files; every file depends on its place in the order alone.
A file that is not survived stays in pytest's temporary folder, under the name in the message.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import psutil
import pytest
from crafted import bombs, crafted
from mutate import BYTES, PDF, PICTURE
from seeds import pdf_seeds, picture_seeds

from octavo import errors
from octavo.document import Report
from octavo.errors import OctavoError
from octavo.pipeline import supervise
from octavo.pipeline.config import PipelineConfig
from octavo.pipeline.convert import Converter
from octavo.pipeline.events import Event, Outcome, PageDone
from octavo.types import Failure

QUICK = 64
COUNT = int(os.environ.get("FUZZ_CASES", str(QUICK)))

#: Low, so that a page is quick to draw; the paths are those of every other resolution.
CONFIG = PipelineConfig.build(
    mode="fast" if COUNT <= QUICK else "quality",
    pdf_dpi=60,
    max_long_edge_px=700,
    page_timeout_s=15,
    worker_memory_mb=2048,
)
#: Seconds beyond the limits of its pages that a file may take: a worker starts in two.
SLACK_S = 10.0
#: Bytes that the parent may gain over a run, and that the worker may ever hold.
PARENT_GROWTH = 48 << 20
WORKER_RSS = CONFIG.worker_memory_mb << 20

OUR_ERRORS = {
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and kind is not OctavoError
}


def files(count: int) -> Iterator[tuple[str, bytes]]:
    """Crafted files, mutants for the rest, and in a long run the bombs before them."""
    made = crafted() if count <= QUICK else {**crafted(), **bombs()}
    half = list(made.items())[:: 2 if count <= QUICK else 1]
    yield from half
    yield from islice(mutants(), count - len(half))


def mutants() -> Iterator[tuple[str, bytes]]:
    """Without end, PDFs and pictures in turn."""
    pdfs, pictures = list(pdf_seeds().items()), list(picture_seeds().items())
    for number in range(1_000_000):
        chance = random.Random(number)
        # The drawn ones are small, and most of what can go wrong can go wrong in them.
        weights = (4, 4, 1, 1) if number % 2 else (1,) * len(pictures)
        ((name, data),) = chance.choices(pdfs if number % 2 else pictures, weights)
        mutation = chance.choice((*BYTES, *(PDF if number % 2 else PICTURE)))
        stem, _, ending = name.partition(".")
        yield f"{number:04}-{mutation.__name__}-{stem}.{ending}", mutation(data, chance)


@dataclass
class Watch:
    """What the run told, and what was wrong with it."""

    complaints: list[str] = field(default_factory=list)
    page_failures: list[Failure] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        if isinstance(event, PageDone) and event.failure:
            self.page_failures.append(event.failure)

    def judge(self, outcome: Outcome, seconds: float) -> None:
        failures = [*self.page_failures, *([outcome.failure] if outcome.failure else [])]
        for failure in failures:
            if failure.error not in OUR_ERRORS or not failure.what or not failure.next_step:
                self._complain(outcome, f"{failure}")
        if outcome.status not in ("ok", "partial", "failed") or (
            outcome.status != "ok" and not failures
        ):
            self._complain(outcome, f"{outcome.status} without a reason")
        # A page whose worker was lost is tried once more, alone.
        limit = 2 * CONFIG.page_timeout_s * max(len(self.page_failures), 1) + SLACK_S
        if seconds > limit + outcome.pages * CONFIG.page_timeout_s:
            self._complain(outcome, f"took {seconds:.0f} s")
        if outcome.folder and outcome.failure is None:
            report = Report.load(outcome.folder / "report.json")
            if len(report.pages) != outcome.pages or report.status.value != outcome.status:
                self._complain(outcome, "the report says otherwise")
            report.markdown()
        self.page_failures.clear()

    def _complain(self, outcome: Outcome, text: str) -> None:
        self.complaints.append(f"{outcome.source.name}: {text}")


def test_no_file_brings_it_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.setattr(supervise, "GRACE_S", SLACK_S)
    caplog.set_level(logging.DEBUG, logger="octavo")
    me, watch, tally = psutil.Process(), Watch(), dict[str, int]()
    with Converter(CONFIG, on_event=watch) as converter:
        # The second loads the engines of OCR, as files after it would.
        _convert(converter, tmp_path, "whole.pdf", pdf_seeds()["plain.pdf"])
        _convert(converter, tmp_path, "whole.png", picture_seeds()["page.png"])
        before = me.memory_info().rss, me.num_fds(), me.num_threads()
        for name, data in files(COUNT):
            started = time.monotonic()
            outcome = _convert(converter, tmp_path, name, data)
            watch.judge(outcome, time.monotonic() - started)
            tally[outcome.status] = tally.get(outcome.status, 0) + 1
            if _worker_rss(converter) > WORKER_RSS:
                watch.complaints.append(f"{name}: the worker holds {_worker_rss(converter)} bytes")
        last = _convert(converter, tmp_path, "whole-again.pdf", pdf_seeds()["plain.pdf"])
        assert last.status == "ok", "good files are read after bad ones"
        assert {child.pid for child in me.children(recursive=True)} == {converter.worker_pid}
        assert me.num_fds() <= before[1]
        assert me.num_threads() <= before[2]
        assert me.memory_info().rss - before[0] < PARENT_GROWTH
    assert not watch.complaints, "\n".join(watch.complaints)
    assert not me.children(recursive=True)
    assert not list(scratch.iterdir()), "no leftovers, and no telemetry's session file"
    assert not list((tmp_path / "out").rglob("*.tmp*"))
    traces = [r.getMessage() for r in caplog.records if "Traceback" in r.getMessage() or r.exc_info]
    assert not traces
    assert min(tally.get(status, 0) for status in ("ok", "failed")) > COUNT // 10, tally


def _convert(converter: Converter, folder: Path, name: str, data: bytes) -> Outcome:
    path = folder / name
    path.write_bytes(data)
    (outcome,) = converter.convert([path], folder / "out")
    return outcome


def _worker_rss(converter: Converter) -> int:
    pid = converter.worker_pid
    return psutil.Process(pid).memory_info().rss if pid else 0
