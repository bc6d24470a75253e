"""Recorded accesses: one JSON object a line, so that a trace can be read while it grows."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self

from octavo.errors import BrokenFile, SourceNotFound

Op = Literal["get", "put", "delete"]


@dataclass(frozen=True, slots=True)
class Access:
    """One use of a value.

    Attributes:
        op: ``get`` reads, ``put`` stores a new value, ``delete`` drops it for good.
        key: as text.
        nbytes: of the value.
        cost: of making the value again, in seconds where it is known; else 1.0 for every key.
        phase: what the program was doing (``prefill``, ``page 3``); empty where it did not say.
    """

    op: Op
    key: str
    nbytes: int
    cost: float = 1.0
    phase: str = ""


class TraceWriter:
    """Appends accesses to a file. Safe to use from many threads.

    A writer that fails (disk full) stops recording and keeps the error in ``error``: a trace is
    never worth a failed computation.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._file: IO[str] | None = path.open("a", encoding="utf-8")
        self.error: OSError | None = None

    def record(self, access: Access) -> None:
        line = json.dumps(asdict(access)) + "\n"
        with self._lock:
            if self._file is None:
                return
            try:
                self._file.write(line)
            except OSError as error:
                self.error = error
                self._drop()

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        file, self._file = self._file, None
        if file is None:
            return
        try:
            file.close()
        except OSError as error:
            self.error = self.error or error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def write_trace(path: Path, accesses: Iterable[Access]) -> None:
    """Writes a whole trace."""
    with path.open("w", encoding="utf-8") as file:
        for access in accesses:
            file.write(json.dumps(asdict(access)) + "\n")


def read_trace(path: Path) -> Iterator[Access]:
    """The accesses of a file, one by one. A last line cut short (a killed process) is left out.

    Raises:
        SourceNotFound: no such file.
        BrokenFile: a line that is not an access, with its number.
    """
    if not path.is_file():
        raise SourceNotFound("there is no such trace", where=str(path), next_step="check the path")
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            access = _parse(line)
            if access is not None:
                yield access
            elif line.endswith("\n"):
                raise BrokenFile(
                    f"line {number} is not an access",
                    where=str(path),
                    next_step='a line looks like {"op": "get", "key": "layer.3", "nbytes": 4096}',
                )


def _finite(cost: float) -> bool:
    return math.isfinite(cost) and cost >= 0


def _parse(line: str) -> Access | None:
    try:
        given = json.loads(line)
        access = Access(
            op=given["op"],
            key=str(given["key"]),
            nbytes=int(given["nbytes"]),
            cost=float(given.get("cost", 1.0)),
            phase=str(given.get("phase", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    if access.op not in ("get", "put", "delete") or access.nbytes < 0 or not _finite(access.cost):
        return None
    return access
