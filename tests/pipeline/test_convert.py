"""Whole runs: faults cost what they must and no more, and a killed run gives the same bytes."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from doubles import (
    DOUBLE_WORKER,
    DoubleReader,
    draw_pdf,
    draw_picture,
    is_running,
    tree,
)

import octavo
from octavo.document import Report, ReportStatus
from octavo.errors import BrokenFile, ConfigError, JournalError, OutputError, SourceNotFound
from octavo.media.page import Page
from octavo.pipeline import process
from octavo.pipeline.config import PipelineConfig
from octavo.pipeline.convert import convert
from octavo.pipeline.events import DocumentOpened, Event, Outcome, PageDone, Warned
from octavo.pipeline.journal import Journal
from octavo.types import PageResult

CONFIG = PipelineConfig(pdf_dpi=72, save_manifest=True)


class Fingerprinted(DoubleReader):
    fingerprint = "1"


def run(
    source: Path, out: Path, config: PipelineConfig = CONFIG, reader: DoubleReader | None = None
) -> tuple[Outcome, list[int]]:
    """The outcome, and the numbers of the pages that were read and not reused."""
    reader = reader or Fingerprinted()
    (outcome,) = convert([source], out, config, reader=reader)
    return outcome, reader.read_numbers


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return draw_pdf(tmp_path / "book.pdf", 5)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_writes_everything_that_the_report_names(book: Path, out: Path) -> None:
    outcome, _ = run(book, out)
    assert (outcome.status, outcome.pages, outcome.failed) == ("ok", 5, 0)
    assert outcome.folder == out / "book"
    numbers = range(1, 6)
    assert set(tree(out)) == {
        *(f"book/report.{kind}" for kind in ("json", "md", "html")),
        "book/manifest.json",
        *(f"book/pages/000{n}.jpg" for n in numbers),
        *(f"book/crops/p{n}-e2.png" for n in numbers),
    }
    report = Report.load(out / "book" / "report.json")
    assert report.status is ReportStatus.OK
    assert [page.elements[0].text for page in report.pages] == [
        f"Folio {n} of the book." for n in numbers
    ]
    assert "Folio 3 of the book." in (out / "book" / "report.md").read_text()
    assert "crops/p3-e2.png" in (out / "book" / "report.md").read_text()
    manifest = json.loads((out / "book" / "manifest.json").read_text())
    assert manifest["crops"][2] == {
        "id": "p3-e2",
        "page": 3,
        "category": "Picture",
        "box": [100, 200, 200, 300],
        "file": "crops/p3-e2.png",
        "width": 248,
        "height": 248,
        "caption": "p3-e3",
    }


def test_a_second_run_reads_nothing_and_changes_nothing(book: Path, out: Path) -> None:
    run(book, out)
    before = tree(out)
    outcome, read = run(book, out)
    assert (outcome.resumed, read) == (5, [])
    assert tree(out) == before


def test_a_failed_page_is_in_the_report_and_tried_again(book: Path, out: Path) -> None:
    outcome, _ = run(book, out, reader=Fingerprinted("2:raise"))
    assert (outcome.status, outcome.failed) == ("partial", 1)
    report = Report.load(out / "book" / "report.json")
    assert report.status is ReportStatus.PARTIAL
    failure = report.pages[1].failure
    assert failure is not None
    assert failure.error == "ZeroDivisionError"
    outcome, read = run(book, out)
    assert (outcome.status, read) == ("ok", [2])


def test_a_page_that_json_cannot_hold_is_a_failed_page(book: Path, out: Path) -> None:
    outcome, _ = run(book, out, reader=Fingerprinted("2:nan"))
    assert (outcome.status, outcome.failed) == ("partial", 1)


def test_nothing_read_is_failed(book: Path, out: Path) -> None:
    faults = ",".join(f"{n}:raise" for n in range(1, 6))
    outcome, _ = run(book, out, reader=Fingerprinted(faults))
    assert outcome.status == "failed"
    assert Report.load(out / "book" / "report.json").status is ReportStatus.FAILED


def test_changed_settings_reuse_nothing_and_leave_nothing(book: Path, out: Path) -> None:
    run(book, out)
    outcome, read = run(book, out, PipelineConfig(pdf_dpi=72, save_pages=False))
    assert (outcome.resumed, read) == (0, [1, 2, 3, 4, 5])
    assert not list((out / "book" / "pages").iterdir())
    assert not (out / "book" / "manifest.json").exists()


def test_settings_that_touch_no_page_reuse_all(book: Path, out: Path) -> None:
    run(book, out)
    config = PipelineConfig(
        pdf_dpi=72, summaries=False, html=False, save_manifest=True, manifest_filename="crops.json"
    )
    outcome, read = run(book, out, config)
    assert (outcome.resumed, read) == (5, [])
    names = {path.name for path in (out / "book").iterdir()}
    assert "crops.json" in names
    assert not names & {"manifest.json", "report.html"}


def test_a_journal_does_not_have_files_outside_removed(book: Path, out: Path) -> None:
    run(book, out)
    precious = out / "precious"
    precious.touch()
    with Journal(out / "book") as journal:
        journal.put("manifest", "../precious")
    run(book, out)
    assert precious.exists()


def test_a_changed_source_reuses_nothing(book: Path, out: Path) -> None:
    run(book, out)
    draw_pdf(book, 3, word="Sheet")
    outcome, read = run(book, out)
    assert (outcome.resumed, read) == (0, [1, 2, 3])
    assert sorted(os.listdir(out / "book" / "pages")) == ["0001.jpg", "0002.jpg", "0003.jpg"]
    assert "Folio" not in (out / "book" / "report.md").read_text()


def test_another_reader_reuses_nothing(book: Path, out: Path) -> None:
    run(book, out)
    other = Fingerprinted()
    other.fingerprint = "2"
    assert run(book, out, reader=other)[1] == [1, 2, 3, 4, 5]
    assert run(book, out, reader=DoubleReader())[1] == [1, 2, 3, 4, 5]
    assert run(book, out, reader=DoubleReader())[1] == [1, 2, 3, 4, 5]


def test_pages_chosen_later_join_those_that_are_there(book: Path, out: Path) -> None:
    pages = PipelineConfig(pdf_dpi=72, pages="2-3")
    assert run(book, out, pages)[1] == [2, 3]
    assert [p.number for p in Report.load(out / "book" / "report.json").pages] == [2, 3]
    assert run(book, out)[1] == [1, 4, 5]


@pytest.mark.parametrize("loss", ["pages/0002.jpg", "crops/p2-e2.png"])
def test_a_lost_or_cut_picture_is_drawn_again(book: Path, out: Path, loss: str) -> None:
    run(book, out)
    before = tree(out)
    (out / "book" / loss).write_bytes(b"cut")
    assert run(book, out)[1] == [2]
    (out / "book" / loss).unlink()
    assert run(book, out)[1] == [2]
    assert tree(out) == before


def test_one_bad_file_stops_nothing(tmp_path: Path, book: Path, out: Path) -> None:
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 and no more")
    events: list[Event] = []
    inputs = ["missing.pdf", tmp_path / "broken.pdf", book]
    outcomes = list(convert(inputs, out, CONFIG, reader=DoubleReader(), on_event=events.append))
    assert [outcome.status for outcome in outcomes] == ["failed", "failed", "ok"]
    assert [o.failure.error if o.failure else None for o in outcomes] == [
        SourceNotFound.__name__,
        BrokenFile.__name__,
        None,
    ]
    assert os.listdir(out) == ["book"], "a file that cannot be opened leaves no folder"
    assert [type(event) for event in events] == [
        Outcome, Outcome, DocumentOpened, *[PageDone] * 5, Outcome,
    ]  # fmt: skip


def test_what_a_callback_raises_is_the_callers(book: Path, out: Path) -> None:
    def listener(event: Event) -> None:
        if isinstance(event, PageDone):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(convert([book], out, CONFIG, reader=DoubleReader(), on_event=listener))


def test_a_fault_of_ours_costs_one_file(
    book: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("octavo.pipeline.convert.compose", fail)
    (outcome,) = convert([book], out, CONFIG, reader=DoubleReader())
    assert outcome.failure is not None
    assert outcome.failure.error == "KeyError"


def test_two_inputs_of_one_name(tmp_path: Path, out: Path) -> None:
    for folder, word in (("one", "Recto"), ("two", "Verso")):
        (tmp_path / folder).mkdir()
        draw_pdf(tmp_path / folder / "a.pdf", 1, word)
    inputs = [tmp_path / "one", tmp_path / "two"]
    folders = [o.folder for o in convert(inputs, out, CONFIG, reader=Fingerprinted())]
    assert folders == [out / "a", out / "a-2"]
    assert "Recto" in (out / "a" / "report.md").read_text()
    assert "Verso" in (out / "a-2" / "report.md").read_text()
    again = list(convert(inputs[::-1], out, CONFIG, reader=Fingerprinted()))
    assert [(o.folder, o.resumed) for o in again] == [(out / "a-2", 1), (out / "a", 1)]


def test_a_damaged_journal_is_moved_aside(book: Path, out: Path) -> None:
    run(book, out)
    before = tree(out)
    journal = out / "book" / "journal.sqlite"
    journal.write_bytes(b"not a database at all" * 500)
    events: list[Event] = []
    (outcome,) = convert([book], out, CONFIG, reader=Fingerprinted(), on_event=events.append)
    assert (outcome.status, outcome.resumed, outcome.folder) == ("ok", 0, out / "book")
    assert any(isinstance(event, Warned) and "damaged" in event.message for event in events)
    assert (out / "book" / "journal.sqlite.broken-1").read_bytes().startswith(b"not a database")
    (out / "book" / "journal.sqlite.broken-1").unlink()
    assert tree(out) == before


def test_another_run_on_the_same_folder_is_refused(book: Path, out: Path) -> None:
    def meanwhile(event: Event) -> None:
        if isinstance(event, PageDone) and event.number == 2:
            (outcome,) = convert([book], out, CONFIG, reader=Fingerprinted())
            seen.append(outcome)

    seen: list[Outcome] = []
    first = convert([book], out, CONFIG, reader=Fingerprinted(), on_event=meanwhile)
    assert next(first).status == "ok"
    assert seen[0].failure is not None
    assert seen[0].failure.error == JournalError.__name__


def test_a_source_that_changes_while_it_is_read_is_refused(book: Path, out: Path) -> None:
    def meddle(event: Event) -> None:
        if isinstance(event, PageDone):
            os.utime(book, (1, 1))

    (outcome,) = convert([book], out, CONFIG, reader=DoubleReader(), on_event=meddle)
    assert outcome.failure is not None
    assert "changed" in outcome.failure.what


# Full disks.


def test_a_full_disk_while_drawing_keeps_finished_pages(
    book: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = os.replace

    def full(old: Path, new: Path) -> None:
        if Path(new).name == "0004.jpg":
            raise OSError(errno.ENOSPC, "No space left on device")
        move(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        outcome, _ = run(book, out)
    assert outcome.failure is not None
    assert outcome.failure.error == OutputError.__name__
    assert "finished pages are kept" in (outcome.failure.next_step or "")
    assert run(book, out)[1] == [4, 5]
    assert not [name for name in tree(out) if ".tmp" in name]


# The Python interface.


def test_parse_gives_a_report_and_leaves_no_files(
    book: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    report = octavo.parse(book, reader=DoubleReader(), pages="2-")
    assert [page.number for page in report.pages] == [2, 3, 4, 5]
    assert report.page_count == 5
    assert "read" in report.pages[0].timings
    assert not list(scratch.iterdir())


def test_parse_with_out_is_what_is_on_disk(book: Path, out: Path) -> None:
    report = octavo.parse(book, out=out, reader=DoubleReader(), pdf_dpi=72)
    assert Report.load(out / "book" / "report.json") == report


def test_parse_raises_where_nothing_can_be_read(tmp_path: Path, book: Path) -> None:
    with pytest.raises(SourceNotFound):
        octavo.parse(tmp_path / "none.pdf", reader=DoubleReader())
    with pytest.raises(ConfigError, match="did you mean 'pdf_dpi'"):
        octavo.parse(book, pdf_dip=3)
    with pytest.raises(ConfigError, match="no page"):
        octavo.parse(book, reader=DoubleReader(), pages="90")


def test_a_converter_shares_its_engines_and_frees_them(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "COMMAND", DOUBLE_WORKER)
    with octavo.Converter() as converter:
        first = converter.parse(book)
        pid = converter.worker_pid
        second = converter.parse(draw_picture(tmp_path / "page.png"))
        assert pid is not None
        assert converter.worker_pid == pid
        assert is_running(pid)
    assert not is_running(pid)
    assert (len(first.pages), len(second.pages)) == (5, 1)


def test_the_password_is_in_no_file(tmp_path: Path, out: Path) -> None:
    from reportlab.lib.pdfencrypt import StandardEncryption
    from reportlab.pdfgen.canvas import Canvas

    path = tmp_path / "locked.pdf"
    canvas = Canvas(str(path), encrypt=StandardEncryption("sesame-7391", canPrint=1))
    canvas.drawString(72, 700, "Inside.")
    canvas.save()
    outcome, _ = run(path, out, PipelineConfig(pdf_dpi=72))
    assert outcome.failure is not None
    assert outcome.failure.error == "PasswordRequired"
    outcome, _ = run(path, out, PipelineConfig(pdf_dpi=72, password="sesame-7391"))
    assert outcome.status == "ok"
    for file in out.rglob("*"):
        assert file.is_dir() or b"sesame-7391" not in file.read_bytes()
    assert "sesame" not in repr(PipelineConfig(password="sesame-7391"))


def test_import_is_light() -> None:
    code = (
        "import sys, time; t = time.perf_counter(); import octavo; d = time.perf_counter() - t\n"
        "heavy = {'numpy', 'PIL', 'pypdfium2', 'onnxruntime', 'sqlite3', 'docling_core', 'rich'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert d < 0.3, d\n"
        "assert octavo.parse and 'Report' in dir(octavo)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_page_is_held_in_memory(tmp_path: Path, out: Path) -> None:
    """While composing, twenty pages need no more than five."""

    def peak(pages: int) -> int:
        book = draw_pdf(tmp_path / f"book{pages}.pdf", pages)
        config = PipelineConfig(save_pages=False, save_crops=False, html=False)
        run(book, out, config, Large())
        tracemalloc.start()
        run(book, out, config, Large())
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(1)
    assert peak(20) - peak(5) < 15 * 5_000


class Large(Fingerprinted):
    """A page is 50 000 letters."""

    def _one(self, page: Page) -> PageResult:
        result = super()._one(page)
        text = replace(result.elements[0], text=f"X{'x' * 50_000}.")
        return replace(result, elements=(text,))
