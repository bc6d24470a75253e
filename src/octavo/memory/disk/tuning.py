"""How a disk likes to be used: block size and depth, measured once and kept."""

from __future__ import annotations

import json
import operator
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from octavo.errors import TierError
from octavo.hardware.home import octavo_home
from octavo.memory.buffers import PAGE
from octavo.memory.disk.flight import MOST


@dataclass(frozen=True, slots=True)
class Trial:
    """One measurement; rates in bytes per second."""

    block: int
    depth: int
    read_bytes_per_s: float
    write_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Tuning:
    """How to use a disk.

    Attributes:
        block: bytes of one read or write.
        depth: how many at once.
        direct: whether it was measured past the page cache.
        read_bytes_per_s, write_bytes_per_s: at this block and depth; 0.0 if never measured.
        device: the disk's name, where the system tells it.
        note: what to know about the figures.
        measured: everything that was tried.
    """

    block: int
    depth: int
    direct: bool
    read_bytes_per_s: float
    write_bytes_per_s: float
    device: str | None = None
    note: str | None = None
    measured: tuple[Trial, ...] = ()

    def __post_init__(self) -> None:
        if self.block < PAGE or self.block % PAGE:
            raise ValueError(f"a block of {self.block} bytes is not whole pages of {PAGE}")
        if not 1 <= self.depth <= MOST:
            raise ValueError(f"a depth of {self.depth} is not between 1 and {MOST}")


#: For a disk that nobody measured.
DEFAULT: Final = Tuning(4 << 20, 4, True, 0.0, 0.0)


def save_tuning(tuning: Tuning, folder: Path) -> Path:
    """Keeps the tuning for the disk that holds ``folder``; where it was written.

    Raises:
        TierError: the user's cache folder cannot be written to.
    """
    path = _file()
    known = _load_all(path)
    known[_disk_of(folder)] = asdict(tuning)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise TierError(
            f"the tuning cannot be kept: {error.strerror or error}",
            where=str(path),
            next_step="set XDG_CACHE_HOME to a folder that this user may write to",
        ) from error
    return path


def load_tuning(folder: Path) -> Tuning | None:
    """The tuning kept for the disk that holds ``folder``; None if there is none that is sound."""
    try:
        found = _load_all(_file()).get(_disk_of(folder))
    except OSError:
        return None
    try:
        return _sound(found) if found else None
    except (KeyError, TypeError, ValueError):
        return None


def _sound(found: Mapping[str, Any]) -> Tuning:
    """Raises KeyError, TypeError or ValueError for what ``save_tuning`` did not write."""
    return Tuning(
        block=operator.index(found["block"]),
        depth=operator.index(found["depth"]),
        direct=bool(found["direct"]),
        read_bytes_per_s=float(found["read_bytes_per_s"]),
        write_bytes_per_s=float(found["write_bytes_per_s"]),
        device=found["device"],
        note=found["note"],
        measured=tuple(Trial(**trial) for trial in found["measured"]),
    )


def _file() -> Path:
    return octavo_home() / "disks.json"


def _load_all(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _disk_of(folder: Path) -> str:
    """The device of the folder's filesystem, and where that is mounted."""
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    device = place.stat().st_dev
    while place != place.parent and place.parent.stat().st_dev == device:
        place = place.parent
    if sys.platform == "win32":
        return f"{device} {place}"
    return f"{os.major(device)}:{os.minor(device)} {place}"
