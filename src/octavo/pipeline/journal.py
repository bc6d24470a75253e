"""``journal.sqlite``: every finished page, committed, so that a killed run goes on where it was.

Write-ahead logging makes a commit one append, and a process that is killed between any two
instructions leaves a database that the next one recovers. A page's content is compressed, and the
checksum in that form tells a damaged row from a sound one.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from octavo._version import __version__
from octavo.document import page_from_dict, page_to_dict
from octavo.errors import BrokenFile, JournalError, OutputError
from octavo.files import decode, encode, to_bytes
from octavo.pipeline.frames import PageRead, Picture
from octavo.types import Box, Category, PageStatus

JOURNAL = "journal.sqlite"

#: Raised when the tables change; an older journal is moved aside.
_SCHEMA = 1

_TABLES = """
CREATE TABLE IF NOT EXISTS run (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pages (
    number INTEGER PRIMARY KEY,
    status TEXT NOT NULL,
    content BLOB NOT NULL,
    pictures TEXT NOT NULL,
    timings TEXT NOT NULL
);
"""


_OWN_FILE = re.compile(r"(pages|crops)/[^/\\]*[^/\\.][^/\\]*")

#: What reading JSON of another shape raises.
_NOT_OURS = (ValueError, TypeError, KeyError)


@dataclass(frozen=True, slots=True)
class RunKey:
    """What a finished page depends on. Pages of another key are never reused.

    Attributes:
        sha256: of the source's bytes.
        settings: those that decide the content.
        reader: which reader, for one that the caller handed in.
    """

    sha256: str
    settings: Mapping[str, Any]
    reader: str = ""

    def digest(self) -> str:
        parts = [__version__, self.sha256, self.reader, dict(self.settings)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Journal:
    """The pages of one document's folder, which the caller has locked.

    Raises:
        JournalError: the file cannot be used and cannot be moved aside.
        OutputError: from every method that writes, when the disk is full; what was committed
            before stays.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / JOURNAL
        #: Where a journal that could not be read was moved to, for a warning.
        self.moved_aside: Path | None = None
        try:
            self._db = _connect(self._path)
        except sqlite3.DatabaseError:
            self.moved_aside = _move_aside(self._path)
            try:
                self._db = _connect(self._path)
            except sqlite3.DatabaseError as error:
                raise _unusable(self._path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()

    def holds(self, owner: Path, key: RunKey) -> bool:
        """Whether its pages are of this input and key."""
        wanted = (str(owner.resolve()), key.digest())
        return (self.get("owner"), self.get("key")) == wanted

    def begin(self, owner: Path, key: RunKey) -> None:
        """Drops what there is and takes the journal for this input and key."""
        with self._writing():
            self._db.execute("DELETE FROM pages")
            self._db.execute("DELETE FROM run WHERE name != 'manifest'")
            self._put("owner", str(owner.resolve()))
            self._put("key", key.digest())

    def get(self, name: str) -> str | None:
        """A value that ``put`` left in an earlier run or in this."""
        row = self._db.execute("SELECT value FROM run WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def put(self, name: str, value: str) -> None:
        with self._writing():
            self._put(name, value)

    def add(self, page: PageRead) -> None:
        """Commits a page. Raises ``OutputError`` too where its values are not JSON."""
        result = page.result
        text = encode(page_to_dict(result), f"page {result.number}")
        row = (
            result.number,
            result.status.value,
            zlib.compress(to_bytes(text), 1),
            json.dumps([asdict(picture) for picture in page.pictures]),
            json.dumps(dict(result.timings)),
        )
        with self._writing():
            self._db.execute("INSERT OR REPLACE INTO pages VALUES (?, ?, ?, ?, ?)", row)

    def finished(self, numbers: Iterable[int], folder: Path) -> list[int]:
        """Those of ``numbers`` that need not be read again: ok, sound, and with their pictures."""
        done = []
        for number in numbers:
            try:
                page = self.page(number)
            except JournalError:
                continue
            if page.result.status is PageStatus.OK and all(
                _is_there(folder / picture.file, picture.size) for picture in page.pictures
            ):
                done.append(number)
        return done

    def page(self, number: int) -> PageRead:
        """The page as it was committed. Raises ``JournalError`` where it is not or is damaged."""
        try:
            row = self._db.execute(
                "SELECT content, pictures, timings FROM pages WHERE number = ?", (number,)
            ).fetchone()
            if row is None:
                raise self._lost(number)
            result = page_from_dict(decode(zlib.decompress(row[0]), str(self._path)))
            pictures = tuple(_picture(item) for item in json.loads(row[1]))
            timings = json.loads(row[2])
        except (sqlite3.DatabaseError, zlib.error, BrokenFile, *_NOT_OURS) as error:
            raise self._lost(number) from error
        return PageRead(replace(result, timings=timings), pictures)

    def pictures(self, number: int) -> tuple[Picture, ...]:
        """The pictures of a committed page, without reading its text."""
        try:
            row = self._db.execute(
                "SELECT pictures FROM pages WHERE number = ?", (number,)
            ).fetchone()
            return tuple(_picture(item) for item in json.loads(row[0])) if row else ()
        except (sqlite3.DatabaseError, *_NOT_OURS) as error:
            raise self._lost(number) from error

    def pages(self, numbers: Iterable[int]) -> Iterator[PageRead]:
        """The pages of ``numbers``, one in memory at a time."""
        return map(self.page, numbers)

    def _lost(self, number: int) -> JournalError:
        return JournalError(
            f"page {number} cannot be read from it",
            where=str(self._path),
            next_step="run again: the page is read anew",
        )

    def _put(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO run VALUES (?, ?)", (name, value))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction."""
        try:
            with self._db:
                yield
        except sqlite3.OperationalError as error:
            raise OutputError(
                f"cannot be written: {error}",
                where=str(self._path),
                next_step="free some space and run again: finished pages are kept",
            ) from error
        except sqlite3.DatabaseError as error:
            raise _unusable(self._path, error) from error


def read_owner(path: Path) -> str | None:
    """The input that the journal at ``path`` belongs to; None where there is no journal.

    Raises:
        JournalError: there is one, and it cannot be read.
    """
    if path.is_symlink() or not path.is_file():
        return None
    try:
        with closing(sqlite3.connect(path, timeout=5.0)) as db:
            row = db.execute("SELECT value FROM run WHERE name = 'owner'").fetchone()
    except sqlite3.DatabaseError as error:
        raise _unusable(path, error) from error
    return None if row is None else str(row[0])


def _connect(path: Path) -> sqlite3.Connection:
    """An open journal of this schema. Raises ``sqlite3.DatabaseError`` for any other file."""
    if path.is_symlink():
        raise sqlite3.DatabaseError("a link instead of a file")
    db = sqlite3.connect(path, timeout=5.0, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        # Safe against a killed process; a power cut may lose the last pages, never the file.
        db.execute("PRAGMA synchronous = NORMAL")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (state,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if version not in (0, _SCHEMA) or state != "ok":
            raise sqlite3.DatabaseError(f"version {version}, {state}")
        db.executescript(_TABLES)
        db.execute(f"PRAGMA user_version = {_SCHEMA}")
    except BaseException:
        db.close()
        raise
    return db


def _move_aside(path: Path) -> Path:
    """Renames the journal and its log out of the way; the link and not its target, if it is one."""
    number = 1
    while (aside := path.with_name(f"{path.name}.broken-{number}")).exists():
        number += 1
    try:
        path.rename(aside)
        for tail in ("-wal", "-shm"):
            path.with_name(path.name + tail).unlink(missing_ok=True)
    except OSError as error:
        raise _unusable(path, error) from error
    return aside


def _unusable(path: Path, error: Exception) -> JournalError:
    return JournalError(
        f"cannot be used: {error}", where=str(path), next_step="remove the file and run again"
    )


def _is_there(path: Path, size: int) -> bool:
    try:
        return not path.is_symlink() and path.stat().st_size == size
    except OSError:
        return False


def _picture(item: Mapping[str, Any]) -> Picture:
    box, category = item["box"], item["category"]
    if not _OWN_FILE.fullmatch(item["file"]):
        # A journal may come from elsewhere; it must not have files outside shown in a report.
        raise ValueError(f"a picture {item['file']!r}")
    return Picture(
        **{
            **item,
            "box": Box(**box) if box else None,
            "category": Category(category) if category else None,
        }
    )
