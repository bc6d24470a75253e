"""Where the results of an input go: one folder each, nothing outside ``out``."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from octavo.errors import JournalError, OutputError
from octavo.pipeline.journal import JOURNAL, read_owner

PAGES = "pages"
CROPS = "crops"
MAX_NAME_BYTES = 100

_RESERVED = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{port}{n}" for port in ("com", "lpt") for n in "0123456789¹²³"]
)


def safe_name(name: str) -> str:
    """``name`` as the name of a folder on any system: no separators, leading dots, control
    characters or reserved names, at most ``MAX_NAME_BYTES`` bytes of UTF-8."""
    name = unicodedata.normalize("NFC", name)
    name = "".join("_" if unicodedata.category(c)[0] == "C" else c for c in name)
    name = re.sub(r'[<>:"/\\|?*]', "_", name).strip(" ").lstrip(".")
    name = name.encode()[:MAX_NAME_BYTES].decode("utf-8", "ignore").rstrip(" .")
    if not name:
        return "document"
    return f"_{name[: MAX_NAME_BYTES - 1]}" if name.split(".")[0].lower() in _RESERVED else name


class Outputs:
    """The folders below ``out``. An input gets the folder that an earlier run gave it, known by
    the path in its journal; two inputs of one name get ``name`` and ``name-2``."""

    def __init__(self, out: Path) -> None:
        try:
            out.mkdir(parents=True, exist_ok=True)
            self.root = out.resolve()
            self._names = {entry.name.casefold(): entry.name for entry in os.scandir(self.root)}
        except OSError as error:
            raise unwritable(out, error) from error

    @contextmanager
    def claim(self, source: Path) -> Iterator[Path]:
        """The folder of ``source``, locked against other runs while the block lasts.

        Raises:
            JournalError: another run is at work on this very input.
            OutputError: the folder cannot be made.
        """
        owner = str(source.resolve())
        base = safe_name(source.stem)
        for folder in self._candidates(base, owner):
            with _locked(folder) as lock:
                taken = _owner_or_none(folder) not in (None, owner)
                if lock and not taken and _usable(folder):
                    self._names[folder.name.casefold()] = folder.name
                    _prepare(folder)
                    yield folder
                    return
                if not lock and _owner_or_none(folder) == owner:
                    raise JournalError(
                        "another run is reading this file into the same folder",
                        where=str(folder),
                        next_step="wait for it, or choose another folder with -o",
                    )

    def _candidates(self, base: str, owner: str) -> Iterator[Path]:
        """Folders to try: the one that is the owner's already, then free ones in order."""
        pattern = re.compile(re.escape(base.casefold()) + r"(-\d+)?")
        known = [name for key, name in self._names.items() if pattern.fullmatch(key)]
        for name in sorted(known, key=lambda name: (len(name), name)):
            if _owner_or_none(self.root / name) == owner:
                yield self.root / name
        number = 1
        while True:
            suffix = "" if number == 1 else f"-{number}"
            name = base.encode()[: MAX_NAME_BYTES - len(suffix)].decode("utf-8", "ignore") + suffix
            yield self.root / self._names.get(name.casefold(), name)
            number += 1


def clear(folder: Path) -> None:
    """Removes what an earlier run of other settings or another source left."""
    for name in ("report.json", "report.md", "report.html"):
        try:
            (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(folder / name, error) from error
    for name in (PAGES, CROPS):
        shutil.rmtree(folder / name, ignore_errors=True)
    _prepare(folder)


def unwritable(path: Path, error: OSError) -> OutputError:
    """An ``OutputError`` that says what the system said."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    step = "free some space and run again: finished pages are kept" if full else None
    return OutputError(
        f"cannot be written: {error.strerror or error}",
        where=str(path),
        next_step=step or "check the permissions or choose another folder with -o",
    )


def _prepare(folder: Path) -> None:
    """The subfolders, as folders and not as links to elsewhere; what a kill left is removed."""
    try:
        for name in (PAGES, CROPS):
            below = folder / name
            if below.is_symlink() or (below.exists() and not below.is_dir()):
                below.unlink()
            below.mkdir(exist_ok=True)
        for place in (folder, folder / PAGES, folder / CROPS):
            for left_over in place.glob(".*.tmp"):
                left_over.unlink()
    except OSError as error:
        raise unwritable(folder, error) from error


def _owner_or_none(folder: Path) -> str | None:
    """The input whose folder this is; None where there is no journal that says so."""
    if folder.is_symlink():
        return None
    try:
        return read_owner(folder / JOURNAL)
    except JournalError:
        return None


def _usable(folder: Path) -> bool:
    """A folder of ours (it has a journal, sound or not) or an empty one; never someone else's."""
    ours = {PAGES, CROPS, ".lock"}
    names = set(os.listdir(folder))
    return JOURNAL in names or names <= ours


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Makes the folder and takes its lock, which the system drops when the process dies.

    Gives False where another process has it, or where ``folder`` is not a folder of its own.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        yield False
        return
    try:
        folder.mkdir(exist_ok=True)
        handle = _open_lock(folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        yield _try_lock(handle)
    finally:
        os.close(handle)


if sys.platform == "win32":
    import msvcrt

    def _open_lock(folder: Path) -> int:
        return os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)

    def _try_lock(handle: int) -> bool:
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _open_lock(folder: Path) -> int:
        return os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)

    def _try_lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
