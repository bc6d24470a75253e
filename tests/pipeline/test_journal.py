"""The journal: what was committed comes back, what is damaged does not."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from octavo.errors import JournalError, OutputError
from octavo.pipeline.frames import PageRead, Picture
from octavo.pipeline.journal import Journal, RunKey, read_owner
from octavo.types import Box, Category, Element, Failure, PageResult, Table, TableCell

SOURCE = Path("/books/a.pdf")
KEY = RunKey("0" * 64, {"pdf_dpi": 200})
PAGE = PageRead(
    PageResult(
        3,
        612.0,
        792.0,
        (
            Element(
                "p3-1", Category.TEXT, Box(0.1, 0.2, 30, 40), "ligature ﬁ, \udc80, 🙂", rtl=True
            ),
            Element(
                "p3-2",
                Category.TABLE,
                Box(1, 2, 3, 4),
                table=Table(1, 1, (TableCell(0, 0, "x"),)),
                children=(Element("p3-2.1", Category.TEXT, Box(1, 2, 3, 4)),),
            ),
        ),
        timings={"read": 0.25},
    ),
    (
        Picture("pages/0003.jpg", 3, 10, 20),
        Picture("crops/p3-2.png", 4, 5, 6, "p3-2", Category.TABLE, Box(1, 2, 3, 4)),
    ),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pages").mkdir()
    (tmp_path / "crops").mkdir()
    (tmp_path / "pages" / "0003.jpg").write_bytes(b"123")
    (tmp_path / "crops" / "p3-2.png").write_bytes(b"1234")
    with Journal(tmp_path) as journal:
        journal.begin(SOURCE, KEY)
        journal.add(PAGE)
    return tmp_path


def change(folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(folder / "journal.sqlite")) as db, db:
        db.execute(statement)


def test_a_page_comes_back_as_it_was(folder: Path) -> None:
    with Journal(folder) as journal:
        page = journal.page(3)
        assert page == PAGE
        assert page.result.timings == {"read": 0.25}
        assert journal.pictures(3) == PAGE.pictures
        assert journal.holds(SOURCE, KEY)
        assert journal.moved_aside is None
    assert read_owner(folder / "journal.sqlite") == str(SOURCE)


@pytest.mark.parametrize(
    ("source", "key"),
    [
        (SOURCE, RunKey("1" * 64, {"pdf_dpi": 200})),
        (SOURCE, RunKey("0" * 64, {"pdf_dpi": 201})),
        (SOURCE, RunKey("0" * 64, {"pdf_dpi": 200}, "mine")),
        (Path("/books/b.pdf"), KEY),
    ],
)
def test_pages_of_another_key_are_dropped(folder: Path, source: Path, key: RunKey) -> None:
    with Journal(folder) as journal:
        assert not journal.holds(source, key)
        journal.begin(source, key)
        assert journal.holds(source, key)
        assert journal.finished([3], folder) == []
        with pytest.raises(JournalError):
            journal.page(3)


def test_another_version_of_octavo_reuses_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octavo.pipeline.journal.__version__", "0.0.0")
    with Journal(folder) as journal:
        assert not journal.holds(SOURCE, KEY)


def test_finished_are_whole_pages_with_their_pictures(folder: Path) -> None:
    failed = PageResult(4, 0.0, 0.0, failure=Failure("PageTimeout", "too long"))
    with Journal(folder) as journal:
        journal.add(PageRead(failed))
        assert journal.finished([1, 3, 4], folder) == [3]
        assert journal.page(4).result == failed
        (folder / "crops" / "p3-2.png").write_bytes(b"12345")
        assert journal.finished([1, 3, 4], folder) == []


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE pages SET content = substr(content, 1, 40)",
        "UPDATE pages SET content = X'00'",
        "UPDATE pages SET content = 'text'",
        "UPDATE pages SET pictures = '{'",
        "UPDATE pages SET pictures = '[{\"unknown\": 1}]'",
        "UPDATE pages SET timings = 'x'",
        "UPDATE pages SET pictures = replace(pictures, 'pages/0003.jpg', '/etc/hostname')",
        "UPDATE pages SET pictures = replace(pictures, 'pages/0003.jpg', 'pages/../../x')",
        "UPDATE pages SET pictures = replace(pictures, 'pages/0003.jpg', 'pages/..')",
    ],
)
def test_a_damaged_row_is_read_anew(folder: Path, damage: str) -> None:
    change(folder, damage)
    with Journal(folder) as journal:
        assert journal.finished([3], folder) == []
        with pytest.raises(JournalError, match="page 3"):
            journal.page(3)
        journal.add(PAGE)
        assert journal.finished([3], folder) == [3]


@pytest.mark.parametrize("damage", ["text", "cut", "schema"])
def test_what_is_no_journal_is_moved_aside(folder: Path, damage: str) -> None:
    path = folder / "journal.sqlite"
    if damage == "text":
        path.write_bytes(b"nothing of the kind" * 300)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[: 4096 + 100])
    else:
        change(folder, "PRAGMA user_version = 99")
    before = path.read_bytes()
    with Journal(folder) as journal:
        aside = journal.moved_aside
        assert aside == folder / "journal.sqlite.broken-1"
        assert aside.read_bytes() == before
        assert not journal.holds(SOURCE, KEY)
        journal.begin(SOURCE, KEY)
        journal.add(PAGE)
        assert journal.page(3) == PAGE


def test_an_uncommitted_log_is_recovered(folder: Path, tmp_path: Path) -> None:
    """The files as a killed process leaves them: the commit is in the log only."""
    left = tmp_path / "left"
    left.mkdir()
    with Journal(folder) as journal:
        journal.add(PageRead(PageResult(9, 1.0, 1.0)))
        for name in ("journal.sqlite", "journal.sqlite-wal"):
            (left / name).write_bytes((folder / name).read_bytes())
    assert (left / "journal.sqlite-wal").stat().st_size > 0
    with Journal(left) as journal:
        assert journal.page(9).result.number == 9


def test_a_log_cut_in_the_middle_of_a_commit_loses_that_page_only(
    folder: Path, tmp_path: Path
) -> None:
    left = tmp_path / "left"
    left.mkdir()
    with Journal(folder) as journal:
        journal.add(PageRead(PageResult(8, 1.0, 1.0)))
        size = (folder / "journal.sqlite-wal").stat().st_size
        journal.add(PageRead(PageResult(9, 1.0, 1.0)))
        (left / "journal.sqlite").write_bytes((folder / "journal.sqlite").read_bytes())
        log = (folder / "journal.sqlite-wal").read_bytes()
        (left / "journal.sqlite-wal").write_bytes(log[: size + 200])
    with Journal(left) as journal:
        assert journal.finished([8, 9], left) == [8]


def test_a_full_disk_is_an_output_error_and_loses_nothing(folder: Path) -> None:
    with Journal(folder) as journal:
        (pages,) = journal._db.execute("PRAGMA page_count").fetchone()
        journal._db.execute(f"PRAGMA max_page_count = {pages}")
        noise = random.Random(7).randbytes(100_000).hex()
        large = PageResult(5, 1.0, 1.0, (Element("p5-1", Category.TEXT, Box(0, 0, 1, 1), noise),))
        with pytest.raises(OutputError, match="full"):
            journal.add(PageRead(large))
        assert journal.finished([3, 5], folder) == [3]


def test_a_number_that_json_does_not_have_names_its_page(folder: Path) -> None:
    with Journal(folder) as journal, pytest.raises(OutputError) as caught:
        journal.add(PageRead(PageResult(5, float("nan"), 1.0)))
    assert caught.value.where == "page 5"
