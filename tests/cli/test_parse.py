"""``octavo parse``: its options, what it prints for people and machines, and its exit codes."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from octavo.errors import OutputError
from octavo.pipeline.config import PipelineConfig
from octavo.pipeline.events import DocumentOpened, Event, Outcome, PageDone, Warned
from octavo.types import Failure, PageStatus

from .conftest import Program, Script

TIMEOUT = Failure("PageTimeout", "over its time limit of 120 s", "raise page_timeout_s")


def document(name: str, folder: Path, *, pages: int = 2, bad: int = 0) -> list[Event]:
    """The events of a document whose last ``bad`` pages fail."""
    source = Path(name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.html").write_text("<html>")
    done: list[Event] = [DocumentOpened(source, folder, pages, 0)]
    for number in range(1, pages + 1):
        failed = number > pages - bad
        status = PageStatus.FAILED if failed else PageStatus.OK
        done.append(PageDone(source, number, status, 0.25, TIMEOUT if failed else None))
    status_word = "partial" if bad else "ok"
    done.append(Outcome(source, status_word, folder, pages=pages, failed=bad, seconds=0.5))
    return done


def lost(name: str) -> list[Event]:
    failure = Failure("BrokenFile", "the file is damaged", "get it again")
    return [Outcome(Path(name), "failed", None, failure=failure)]


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


EXAMPLES: dict[str, tuple[list[str], object]] = {
    "mode": (["--mode", "fast"], "fast"),
    "pages": (["--pages", "1-20,33"], "1-20,33"),
    "password": (["--password", "secret"], "secret"),
    "pdf_dpi": (["--pdf-dpi", "150"], 150),
    "max_long_edge_px": (["--max-long-edge-px", "1800"], 1800),
    "ocr": (["--ocr", "always"], "always"),
    "layout_model": (["--no-layout-model"], False),
    "batch_size": (["--batch-size", "3"], 3),
    "page_timeout_s": (["--page-timeout-s", "7.5"], 7.5),
    "worker_memory_mb": (["--worker-memory-mb", "900"], 900),
    "padding": (["--padding", "5"], 5),
    "crop_upscale": (["--crop-upscale", "1.5"], 1.5),
    "save_pages": (["--no-save-pages"], False),
    "save_crops": (["--no-save-crops"], False),
    "save_manifest": (["--save-manifest"], True),
    "manifest_filename": (["--manifest-filename", "crops.json"], "crops.json"),
    "summaries": (["--no-summaries"], False),
    "html": (["--no-html"], False),
}


@pytest.mark.parametrize("name", [field.name for field in fields(PipelineConfig)])
def test_every_setting_has_its_option(name: str, program: Program, script: Script) -> None:
    arguments, value = EXAMPLES[name]
    program("parse", "a.pdf", *arguments)
    assert script.config is not None
    assert getattr(script.config, name) == value
    assert getattr(PipelineConfig(), name) != value


def test_settings_that_are_not_given_come_from_the_mode(program: Program, script: Script) -> None:
    program("parse", "a.pdf", "--mode", "small-memory")
    assert script.config == PipelineConfig.build(mode="small-memory")


def test_the_names_of_the_settings_are_options_too(program: Program, script: Script) -> None:
    program("parse", "a.pdf", "--pdf_dpi", "111", "--no-save_pages")
    assert script.config is not None
    assert (script.config.pdf_dpi, script.config.save_pages) == (111, False)


def test_options_win_over_the_settings_file(
    program: Program, script: Script, tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_text('pdf_dpi = 100\nocr = "never"\n')
    program("parse", "a.pdf", "--config", "mine.toml", "--pdf-dpi", "120")
    assert script.config is not None
    assert (script.config.pdf_dpi, script.config.ocr) == (120, "never")


def test_inputs_and_out_reach_the_pipeline(program: Program, script: Script) -> None:
    program("parse", "a.pdf", "scans/*.png", "-o", "there")
    assert (script.inputs, script.out) == (["a.pdf", "scans/*.png"], Path("there"))


@pytest.mark.parametrize("ending", ["\n", "\r\n", "", "\nanother line\n"])
def test_the_password_is_the_first_line_of_its_file(
    ending: str, program: Program, script: Script, tmp_path: Path
) -> None:
    (tmp_path / "secret.txt").write_bytes(f"  pass wörd {ending}".encode())
    program("parse", "a.pdf", "--password-file", "secret.txt")
    assert script.config is not None
    assert script.config.password == "  pass wörd "


def test_exit_codes(program: Program, script: Script, tmp_path: Path) -> None:
    whole, partial = document("a.pdf", tmp_path / "a"), document("b.pdf", tmp_path / "b", bad=1)
    for events, code in [
        (whole, 0),
        (whole + partial, 1),
        (partial, 1),
        (whole + lost("c.pdf"), 1),
        (lost("c.pdf"), 2),
        ([], 2),
    ]:
        script.events = events
        assert program("parse", "x").code == code


def test_says_where_the_report_is(program: Program, script: Script, tmp_path: Path) -> None:
    script.events = document("a.pdf", tmp_path / "out" / "a")
    ended = program("parse", "a.pdf")
    assert f"Report: {Path('out', 'a', 'report.html')}" in ended.out


def test_lists_documents_and_their_status(program: Program, script: Script, tmp_path: Path) -> None:
    script.events = [*document("a.pdf", tmp_path / "a", bad=1), *lost("c.pdf")]
    ended = program("parse", "a.pdf", "c.pdf")
    rows = [line.split() for line in ended.out.splitlines()]
    assert rows[0][:4] == ["partial", "a.pdf", "2", "1"]
    assert rows[1][:3] == ["failed", "c.pdf", "0"]
    assert "2 documents: 1 partial, 1 failed; 2 pages" in ended.out
    assert "error: over its time limit of 120 s, a.pdf page 2; raise page_timeout_s" in ended.err
    assert "error: the file is damaged, c.pdf; get it again" in ended.err


def test_many_whole_documents_are_counted_not_listed(
    program: Program, script: Script, tmp_path: Path
) -> None:
    script.events = [e for n in range(30) for e in document(f"{n}.pdf", tmp_path / str(n))]
    script.events += lost("bad.pdf")
    ended = program("parse", "x")
    assert len(ended.out.splitlines()) == 3
    assert "31 documents: 30 ok, 1 failed; 60 pages" in ended.out


def test_json_lines(program: Program, script: Script, tmp_path: Path) -> None:
    script.events = [
        *document("a.pdf", tmp_path / "a", bad=1),
        Warned("a.pdf", "the journal was damaged"),
        *lost("c.pdf"),
    ]
    ended = program("parse", "x", "--json")
    found = objects(ended.out)
    assert [o["event"] for o in found] == [
        "document_started",
        "page_done",
        "page_done",
        "document_done",
        "warning",
        "document_done",
        "summary",
    ]
    assert found[0] == {
        "event": "document_started",
        "source": "a.pdf",
        "folder": str(tmp_path / "a"),
        "pages": 2,
        "resumed": 0,
    }
    assert found[1]["failure"] is None
    assert (found[2]["page"], found[2]["status"]) == (2, "failed")
    assert found[2]["failure"] == {
        "error": "PageTimeout",
        "what": TIMEOUT.what,
        "next_step": TIMEOUT.next_step,
    }
    assert found[3]["status"] == "partial"
    assert found[3]["report"] == str(tmp_path / "a" / "report.html")
    assert found[5]["failure"]["error"] == "BrokenFile"
    assert (found[6]["status"], found[6]["exit_code"], ended.code) == ("partial", 1, 1)
    assert (found[6]["documents"], found[6]["partial"], found[6]["failed"]) == (2, 1, 1)


def test_quiet_prints_only_errors(program: Program, script: Script, tmp_path: Path) -> None:
    script.events = [*document("a.pdf", tmp_path / "a", bad=1), Warned("a.pdf", "odd")]
    ended = program("parse", "x", "--quiet")
    assert ended.out == ""
    assert ended.err == (
        "error: over its time limit of 120 s, a.pdf page 2; raise page_timeout_s\n"
    )


def test_verbose_names_every_page(program: Program, script: Script, tmp_path: Path) -> None:
    script.events = document("a.pdf", tmp_path / "a")
    assert "a.pdf: page 2 in 0.25 s" in program("parse", "x", "--verbose").err
    assert "page 2" not in program("parse", "x").err


def test_a_name_cannot_write_to_the_terminal(
    program: Program, script: Script, tmp_path: Path
) -> None:
    script.events = [*document("[red]a\x1b[31m\n.pdf", tmp_path / "a", bad=1), *lost("\x07")]
    ended = program("parse", "x")
    assert not {"\x1b", "\x07"} & set(ended.out + ended.err)
    assert "[red]a\\x1b[31m" in ended.out


def test_an_error_is_one_line_with_the_next_step(program: Program, script: Script) -> None:
    script.error = OutputError("the disk is full", where="out", next_step="free some space")
    ended = program("parse", "a.pdf")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "error: the disk is full, out; free some space\n"


def test_an_error_is_an_object_for_machines(program: Program, script: Script) -> None:
    script.error = OutputError("the disk is full", where="out", next_step="free some space")
    found = objects(program("parse", "a.pdf", "--json").out)
    assert found == [
        {
            "event": "error",
            "error": "OutputError",
            "what": "the disk is full",
            "where": "out",
            "next_step": "free some space",
        }
    ]


@pytest.mark.parametrize("flag", ["--verbose", "-v"])
def test_a_traceback_only_with_verbose(flag: str, program: Program, script: Script) -> None:
    script.error = ZeroDivisionError("a bug")
    plain = program("parse", "a.pdf")
    assert plain.code == 2
    assert plain.err == (
        "error: unexpected ZeroDivisionError: a bug; --verbose shows where; please report it\n"
    )
    assert "Traceback" in program("parse", "a.pdf", flag).err


def test_ctrl_c_says_how_to_go_on(program: Program, script: Script, tmp_path: Path) -> None:
    script.events = document("a.pdf", tmp_path / "a")[:3]
    script.error = KeyboardInterrupt()
    ended = program("parse", "a.pdf", "-o", "there")
    assert ended.code == 130
    assert "2 pages of this run kept in there. The same command goes on from there." in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["parse", "--pdf-dip", "3", "x"], "no such option: --pdf-dip; did you mean --pdf-dpi?"),
        (["prase"], "no such command 'prase'; did you mean 'parse'?"),
        (["parse"], "missing argument 'INPUTS...'; see octavo parse --help"),
        (["parse", "x", "--pdf-dpi", "a"], "'a' is not a valid integer; see octavo parse --help"),
        (["parse", "x", "--mode", "fats"], "'fats' is not one of quality, fast, small-memory"),
        (["parse", "x", "--pages", "9-2"], "'9-2' is no range of page numbers"),
        (["parse", "x", "--config", "none.toml"], "none.toml; check the path"),
        (["parse", "x", "--password-file", "no.txt"], "the password file cannot be read, no.txt"),
        (
            ["parse", "x", "--password", "a", "--password-file", "b"],
            "--password and --password-file exclude each other",
        ),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], message: str, program: Program, script: Script
) -> None:
    ended = program(*arguments)
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert script.config is None


def test_quiet_and_verbose_exclude_each_other(program: Program, script: Script) -> None:
    ended = program("parse", "x", "--quiet", "--verbose")
    assert ended.code == 2
    assert "error: --quiet and --verbose exclude each other; give one of them" in ended.err
    assert script.config is None


def test_an_unknown_key_names_the_nearest(program: Program, script: Script, tmp_path: Path) -> None:
    (tmp_path / "octavo.toml").write_text("pdf_dip = 100\n")
    ended = program("parse", "a.pdf")
    assert "unknown setting 'pdf_dip'" in ended.err
    assert "did you mean 'pdf_dpi'?" in ended.err
    assert script.config is None
