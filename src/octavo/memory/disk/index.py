"""What a kept folder holds, on the disk itself, so that the next process finds it.

One line for each value, written after its bytes: a mark, a checksum, JSON. A value is voided by
overwriting the mark of its line with one byte, which needs no new room on the disk and is whole
or not there; its extent is reused after that. A line that was cut short, or damaged, is as if
it had never been written. The file is rewritten as another one that takes its place.

The lines survive the end of the process, ``kill -9`` included. After a power failure lines and
bytes may be older than each other; the checksums of the blocks then tell.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from octavo.errors import CodecError
from octavo.memory.disk.keys import key_from_json, key_to_json
from octavo.memory.disk.sums import checksum
from octavo.memory.ledger import KINDS, Kind

NAME: Final = "index"
_LIVE: Final = b"+"
_VOID: Final = b"-"
_SUM: Final = 16
#: Voided lines are cleared away when they are this much and more than half of the file.
_DEAD_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """A value that is whole on the disk. Fields as in ``Extent``, and what the caller knows."""

    key: Hashable
    header: Mapping[str, Any]
    kind: Kind
    owner: str
    size: int
    slot: int
    nbytes: int
    block: int
    sums: tuple[int, ...]

    @property
    def place(self) -> tuple[int, int]:
        return self.size, self.slot


class Index:
    """The index file of a kept folder. Safe to use from many threads.

    Args:
        folder: locked by this process.

    Attributes:
        found: the sound entries at opening, oldest first: of each key and each extent the
            newest. Call :meth:`keep_only` with those that are used.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._lock = threading.Lock()
        self._fresh.unlink(missing_ok=True)
        self.found = _newest(_read(self._path))
        self._lines: dict[tuple[int, int], tuple[int, int]] = {}
        self._fd = -1
        self._end = 0
        self._dead = 0

    @property
    def _fresh(self) -> Path:
        return self._path.with_suffix(".new")

    def __contains__(self, place: tuple[int, int]) -> bool:
        """Whether a value is entered at this size and slot."""
        with self._lock:
            return place in self._lines

    def keep_only(self, entries: Iterable[Entry]) -> None:
        """Starts with these entries; all others are gone."""
        with self._lock:
            self._rewrite([(entry.place, _line(entry)) for entry in entries])

    def put(self, entry: Entry) -> None:
        """Enters a value whose bytes are written.

        Raises:
            CodecError: the key or the header cannot be written as JSON.
            OSError: the disk refused; the value is not entered.
        """
        line = _line(entry)
        with self._lock:
            # What a failed write leaves is no sound line, and the next one starts at its start.
            _write_whole(self._fd, line, self._end)
            self._lines[entry.place] = (self._end, len(line))
            self._end += len(line)

    def void(self, place: tuple[int, int]) -> None:
        """Takes a value out, if it was entered. The extent may be reused after that.

        Raises:
            OSError: the disk refused; the value is still entered.
        """
        with self._lock:
            line = self._lines.get(place)
            if line is None:
                return
            offset, length = line
            os.lseek(self._fd, offset, os.SEEK_SET)
            os.write(self._fd, _VOID)
            del self._lines[place]
            self._dead += length

    def tidy(self) -> None:
        """Clears voided lines away when there are many.

        Raises:
            OSError: the disk refused; all is as before.
        """
        with self._lock:
            if self._dead < max(_DEAD_BYTES, self._end // 2):
                return
            whole = self._path.read_bytes()
            self._rewrite(
                [
                    (place, whole[offset : offset + length])
                    for place, (offset, length) in self._lines.items()
                ]
            )

    def close(self) -> None:
        with self._lock:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)

    def _rewrite(self, lines: list[tuple[tuple[int, int], bytes]]) -> None:
        places: dict[tuple[int, int], tuple[int, int]] = {}
        end = 0
        for place, line in lines:
            places[place] = (end, len(line))
            end += len(line)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
        fd = os.open(self._fresh, flags, 0o600)
        try:
            _write_whole(fd, b"".join(line for _, line in lines), 0)
            os.fsync(fd)
            self._swap(fd)
        except BaseException:
            os.close(fd)
            self._fresh.unlink(missing_ok=True)
            raise
        self._lines, self._end, self._dead = places, end, 0

    def _swap(self, fd: int) -> None:
        self._fresh.replace(self._path)
        old, self._fd = self._fd, fd
        if old >= 0:
            os.close(old)
        if hasattr(os, "O_DIRECTORY"):
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            with contextlib.suppress(OSError):  # the new name is used either way
                os.fsync(folder)
            os.close(folder)


def _write_whole(fd: int, data: bytes, offset: int) -> None:
    os.lseek(fd, offset, os.SEEK_SET)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _line(entry: Entry) -> bytes:
    try:
        text = json.dumps(
            {
                "key": key_to_json(entry.key),
                "header": dict(entry.header),
                "kind": entry.kind,
                "owner": entry.owner,
                "size": entry.size,
                "slot": entry.slot,
                "nbytes": entry.nbytes,
                "block": entry.block,
                "sums": entry.sums,
            }
        ).encode()
    except (TypeError, ValueError) as error:
        raise CodecError(
            f"the header of a value cannot be kept: {error}",
            where=repr(entry.key),
            next_step="use JSON values only",
        ) from error
    return _LIVE + _sum(text) + b" " + text + b"\n"


def _sum(text: bytes) -> bytes:
    return f"{checksum(text):016x}".encode()


def _read(path: Path) -> list[Entry]:
    """The sound entries of the file, in its order; a last line without its end is left out."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [entry for entry in map(_parsed, lines) if entry is not None]


def _parsed(line: bytes) -> Entry | None:
    text = line[_SUM + 2 :]
    if line[: _SUM + 2] != _LIVE + _sum(text) + b" ":
        return None
    try:
        found = json.loads(text)
        entry = Entry(
            **{
                **found,
                "key": key_from_json(found["key"]),
                "sums": tuple(found["sums"]),
            }
        )
    except (ValueError, TypeError, KeyError, CodecError):
        return None
    return entry if entry.kind in KINDS else None


def _newest(entries: list[Entry]) -> list[Entry]:
    by_place = {entry.place: entry for entry in entries}
    by_key: dict[Hashable, Entry] = {}
    for entry in entries:
        if by_place[entry.place] is entry:
            by_key.pop(entry.key, None)
            by_key[entry.key] = entry
    return list(by_key.values())
