"""Files that appear whole or not at all, and JSON that is read without trust."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, TypeVar

from octavo.errors import BrokenFile, OutputError

T = TypeVar("T")
EnumT = TypeVar("EnumT", bound=StrEnum)

_REMAKE = "make the report again with `octavo parse`"


def broken(what: str, where: str) -> BrokenFile:
    return BrokenFile(what, where=where, next_step=_REMAKE)


class Fields:
    """The fields of one JSON object, each taken once; ``done`` refuses what is left over."""

    __slots__ = ("_left", "path")

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise broken(f"expected an object, found {_kind(value)}", path)
        self._left: dict[str, object] = dict(value)
        self.path = path

    def has(self, key: str) -> bool:
        return key in self._left

    def take(self, key: str) -> object:
        if key not in self._left:
            raise broken(f"the key {key!r} is missing", self.path)
        return self._left.pop(key)

    def text(self, key: str, default: str | None = None) -> str:
        if default is not None and key not in self._left:
            return default
        return as_text(self.take(key), self.at(key))

    def integer(self, key: str, default: int | None = None) -> int:
        if default is not None and key not in self._left:
            return default
        value = self.take(key)
        if type(value) is not int:
            raise broken(f"expected a whole number, found {_kind(value)}", self.at(key))
        return value

    def number(self, key: str, default: float | None = None) -> float:
        if default is not None and key not in self._left:
            return default
        return as_number(self.take(key), self.at(key))

    def flag(self, key: str) -> bool:
        if key not in self._left:
            return False
        value = self.take(key)
        if not isinstance(value, bool):
            raise broken(f"expected true or false, found {_kind(value)}", self.at(key))
        return value

    def word(self, key: str, kind: type[EnumT], default: EnumT | None = None) -> EnumT:
        if default is not None and key not in self._left:
            return default
        value = self.text(key)
        try:
            return kind(value)
        except ValueError as error:
            known = ", ".join(kind)
            raise broken(f"{value!r} is none of {known}", self.at(key)) from error

    def optional(self, key: str, read: Callable[[object, str], T]) -> T | None:
        return read(self.take(key), self.at(key)) if key in self._left else None

    def many(self, key: str, read: Callable[[object, str], T]) -> tuple[T, ...]:
        """The items of a list; an absent list is an empty one."""
        if key not in self._left:
            return ()
        value = self.take(key)
        if not isinstance(value, list):
            raise broken(f"expected a list, found {_kind(value)}", self.at(key))
        return tuple(read(item, f"{self.at(key)}[{at}]") for at, item in enumerate(value))

    def done(self) -> None:
        if self._left:
            raise broken(f"unknown key {min(self._left)!r}", self.path)

    def at(self, key: str) -> str:
        return f"{self.path}.{key}"


def as_text(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise broken(f"expected text, found {_kind(value)}", path)
    return value


def as_number(value: object, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise broken(f"expected a number, found {_kind(value)}", path)
    return float(value)


def encode(value: Mapping[str, object], where: str) -> str:
    """One line of JSON.

    Raises:
        OutputError: a number that is not finite, or a value that JSON does not have.
    """
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        step = "this is a fault of the reader that made it; please report it"
        raise OutputError(
            f"cannot be written as JSON: {error}", where=where, next_step=step
        ) from error


def to_bytes(text: str) -> bytes:
    """UTF-8. A lone surrogate becomes ``\\udXXX``, which is how JSON spells it."""
    return text.encode("utf-8", errors="backslashreplace")


def decode(data: bytes, where: str) -> object:
    """Any JSON value.

    Raises:
        BrokenFile: not UTF-8 or not JSON; says at which line.
    """
    try:
        return json.loads(data, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise broken(f"not a JSON file: {error}", where) from error


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` when the block ends well, and is gone otherwise.

    Raises:
        OutputError: the disk is full, or the folder is not there or not writable.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name[:80]}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        raise OutputError(
            f"cannot be written: {error.strerror or error}",
            where=os.fspath(path),
            next_step="free some space or choose another folder with -o",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "true or false", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")
