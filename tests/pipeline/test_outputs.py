"""Folders: names that are safe, owners that are kept, and nothing written outside."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from octavo.errors import JournalError, OutputError
from octavo.pipeline.journal import Journal, RunKey
from octavo.pipeline.outputs import Outputs, clear, safe_name

KEY = RunKey("0" * 64, {})


def claim(out: Path, source: Path) -> Path:
    """As a run does: the folder, with the journal that says whose it is."""
    with Outputs(out).claim(source) as folder, Journal(folder) as journal:
        journal.begin(source, KEY)
        return folder


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("paper", "paper"),
        ("../x", "_x"),
        ("..", "document"),
        ("", "document"),
        (" . ", "document"),
        (".hidden", "hidden"),
        ("a/b\\c:d", "a_b_c_d"),
        ("tab\tnull\0bell\a", "tab_null_bell_"),
        ("turn\u202egnp", "turn_gnp"),
        ("ends. . ", "ends"),
        ("CON", "_CON"),
        ("nul.tar", "_nul.tar"),
        ("com1", "_com1"),
        ("common", "common"),
        ("é" * 80, "é" * 50),
        ("a" + "é" * 80, "a" + "é" * 49),
        ("bad\udc80byte", "bad_byte"),
        ("e\u0301", "é"),
    ],
)
def test_safe_names(name: str, safe: str) -> None:
    assert safe_name(name) == safe
    assert len(safe.encode()) <= 100
    assert safe_name(safe) == safe


def test_an_input_keeps_its_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    sources = [tmp_path / folder / "a.pdf" for folder in ("x", "y", "z")]
    folders = [claim(out, source) for source in sources]
    assert [folder.name for folder in folders] == ["a", "a-2", "a-3"]
    assert [claim(out, source) for source in reversed(sources)] == folders[::-1]


def test_an_input_keeps_its_folder_when_others_are_gone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    claim(out, tmp_path / "x" / "a.pdf")
    second = claim(out, tmp_path / "y" / "a.pdf")
    (out / "a" / "journal.sqlite").unlink()
    for name in ("pages", "crops", ""):
        (out / "a" / name).rmdir()
    assert claim(out, tmp_path / "y" / "a.pdf") == second


def test_names_that_differ_in_case_only_do_not_meet(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert claim(out, tmp_path / "A.pdf").name == "A"
    assert claim(out, tmp_path / "a.pdf").name == "a-2"


def test_a_folder_of_someone_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out" / "a").mkdir(parents=True)
    (tmp_path / "out" / "a" / "diary.txt").write_text("mine")
    assert claim(tmp_path / "out", tmp_path / "a.pdf").name == "a-2"
    assert os.listdir(tmp_path / "out" / "a") == ["diary.txt"]
    (tmp_path / "out" / "b").write_text("a file")
    assert claim(tmp_path / "out", tmp_path / "b.pdf").name == "b-2"


def test_what_a_kill_left_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "out" / "a" / "pages").mkdir(parents=True)
    folder = claim(tmp_path / "out", tmp_path / "a.pdf")
    assert folder.name == "a"
    (folder / "pages" / ".0123.tmp").touch()
    (folder / ".report.json.0123.tmp").touch()
    claim(tmp_path / "out", tmp_path / "a.pdf")
    assert not list(folder.rglob("*.tmp"))


def test_one_input_is_not_read_twice_at_once(tmp_path: Path) -> None:
    source = tmp_path / "a.pdf"
    out = tmp_path / "out"
    claim(out, source)
    with (
        Outputs(out).claim(source),
        pytest.raises(JournalError, match="another run"),
        Outputs(out).claim(source),
    ):
        pass


def test_two_runs_at_once_get_two_folders(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with ExitStack() as stack:
        names = [
            stack.enter_context(Outputs(out).claim(tmp_path / folder / "a.pdf")).name
            for folder in ("x", "y", "z")
        ]
    assert names == ["a", "a-2", "a-3"]


# Links that lead outside.


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "precious").write_text("precious")
    return folder


def test_a_linked_folder_is_not_entered(tmp_path: Path, outside: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a").symlink_to(outside)
    (out / "a-2").symlink_to(tmp_path / "nowhere")
    assert claim(out, tmp_path / "a.pdf").name == "a-3"
    assert os.listdir(outside) == ["precious"]
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", ["pages", "crops"])
def test_a_linked_subfolder_becomes_a_folder(tmp_path: Path, outside: Path, name: str) -> None:
    out = tmp_path / "out"
    folder = claim(out, tmp_path / "a.pdf")
    (folder / name).rmdir()
    (folder / name).symlink_to(outside)
    assert claim(out, tmp_path / "a.pdf") == folder
    assert not (folder / name).is_symlink()
    clear(folder)
    assert os.listdir(outside) == ["precious"]


def test_a_linked_journal_is_not_followed(tmp_path: Path, outside: Path) -> None:
    out = tmp_path / "out"
    folder = claim(out, tmp_path / "a.pdf")
    (folder / "journal.sqlite").rename(outside / "journal.sqlite")
    (folder / "journal.sqlite").symlink_to(outside / "journal.sqlite")
    before = (outside / "journal.sqlite").read_bytes()
    assert claim(out, tmp_path / "a.pdf") == folder
    assert not (folder / "journal.sqlite").is_symlink()
    assert (outside / "journal.sqlite").read_bytes() == before


def test_out_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        Outputs(tmp_path / "file")
