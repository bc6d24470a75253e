"""What the system says of memory: limits, use, stalls. Unknown is None, never guessed.

Linux: ``/proc/meminfo``, control groups of versions 1 and 2, and pressure stall information
(Documentation/accounting/psi.rst, Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/).
Elsewhere psutil.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from octavo.hardware.probe import NO_LIMIT, control_groups, whole_number

#: More than any of these files has.
_READ_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Bound:
    """A limit on memory and how near it is.

    Attributes:
        limit: bytes; passing it means reclaim, then a kill.
        used: bytes in use that the kernel cannot simply drop.
    """

    limit: int
    used: int

    @property
    def share(self) -> float:
        return self.used / self.limit if self.limit else 1.0

    @property
    def free(self) -> int:
        return max(self.limit - self.used, 0)


@dataclass(frozen=True, slots=True)
class Reading:
    """Memory at one moment.

    Attributes:
        machine: its memory.
        groups: the limits of this process's control groups, innermost first.
        psi_some_avg10: percent of the last 10 s in which some task waited for memory.
        limit_hits: how often limited groups have hit their limit so far.
    """

    machine: Bound
    groups: tuple[Bound, ...] = ()
    psi_some_avg10: float | None = None
    limit_hits: int | None = None

    @property
    def bounds(self) -> tuple[Bound, ...]:
        return (self.machine, *self.groups)


class MemoryReader:
    """Takes readings of this process's memory, fast: a few system calls each.

    The files stay open. Beside a busy thread each call that gives up Python's lock costs up to a
    switch interval (5 ms) until it comes back, and opening dozens of files would take longer
    than a program needs to fill its group. Which groups there are is found out once.

    Args:
        root: where ``proc`` and ``sys`` are mounted.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._machine = _File(root / "proc/meminfo")
        stalls = pressure_file(root)
        self._stalls = None if stalls is None else _File(stalls)
        self.control_groups = [_Group(group) for group in control_groups(root, "memory")]

    def read(self) -> Reading:
        seen = [group.look() for group in self.control_groups]
        hits = [hits for _, hits in seen if hits is not None]
        return Reading(
            machine=self._read_machine(),
            groups=tuple(bound for bounds, _ in seen for bound in bounds),
            psi_some_avg10=self._read_stalls(),
            limit_hits=sum(hits) if hits else None,
        )

    def _read_machine(self) -> Bound:
        total = self._machine.field("MemTotal:")
        available = self._machine.field("MemAvailable:", again=False)
        if total is not None and available is not None:
            return Bound(total * 1024, max(total - available, 0) * 1024)
        memory = psutil.virtual_memory()
        return Bound(int(memory.total), int(memory.total - memory.available))

    def _read_stalls(self) -> float | None:
        for line in (self._stalls.text() or "").splitlines() if self._stalls else ():
            kind, *pairs = line.split()
            values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
            if kind == "some":
                return _float(values.get("avg10", ""))
        return None


def read_memory(root: Path = Path("/")) -> Reading:
    """Looks at memory once."""
    return MemoryReader(root).read()


def pressure_file(root: Path = Path("/")) -> Path | None:
    """Pressure stall information of the innermost group that has it, else of the machine."""
    candidates = [group / "memory.pressure" for group in control_groups(root, "memory")]
    candidates.append(root / "proc/pressure/memory")
    return next((path for path in candidates if path.is_file()), None)


class _File:
    """A small file of the kernel's, kept open; one that is not there has no text."""

    def __init__(self, path: Path) -> None:
        self._last = ""
        self._file: int | None = None
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError:
            return
        weakref.finalize(self, os.close, self._file)

    def text(self) -> str | None:
        if self._file is None:
            return None
        try:
            # Such files are made anew by each read from their start.
            self._last = os.pread(self._file, _READ_BYTES, 0).decode("utf-8", "replace")
        except OSError:
            return None  # the group is gone
        return self._last

    def number(self) -> int | None:
        """A file that is one number; None for ``max``."""
        return whole_number(self.text())

    def field(self, name: str, *, again: bool = True) -> int | None:
        """The number after ``name`` in a line of its own; of the text last read if not again."""
        text = self.text() if again else self._last
        for line in (text or "").splitlines():
            words = line.split()
            if len(words) > 1 and words[0] == name:
                return whole_number(words[1])
        return None


class _Group:
    """A control group's limits, of either version."""

    def __init__(self, folder: Path) -> None:
        limits = ["memory.max", "memory.high"]
        used, cache, hits = "memory.current", "inactive_file", "memory.events"
        if (folder / "memory.limit_in_bytes").is_file():
            limits = ["memory.limit_in_bytes"]
            used, cache, hits = "memory.usage_in_bytes", "total_inactive_file", "memory.failcnt"
        # From memory.high on, the kernel slows a group down; version 1 has no such thing.
        self._limits = [_File(folder / name) for name in limits]
        self._used = _File(folder / used)
        self._stat = _File(folder / "memory.stat")
        self._cache = cache
        self._hits = _File(folder / hits)

    def look(self) -> tuple[list[Bound], int | None]:
        """Its bounds, and how often it hit them; nothing more is read where there is no limit."""
        limits = [file.number() for file in self._limits]
        real = [limit for limit in limits if limit is not None and limit < NO_LIMIT]
        used = self._used.number() if real else None
        if used is None:
            return [], None
        used = max(used - (self._stat.field(self._cache) or 0), 0)
        return [Bound(limit, used) for limit in real], self._read_hits()

    def _read_hits(self) -> int | None:
        """One number in version 1; in version 2 lines of which three count."""
        counts = list(_hits(self._hits.text() or ""))
        return sum(counts) if counts else None


def _hits(text: str) -> Iterator[int]:
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        count = whole_number(value)
        if count is not None and name in ("", "high", "max", "oom"):
            yield count


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
