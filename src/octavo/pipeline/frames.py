"""What the two processes say to each other: dataclasses, pickled, each behind its length.

The pipe joins a parent to the child that it started from its own files, so pickle carries nothing
that either side does not already trust.
"""

from __future__ import annotations

import pickle
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from octavo.errors import OctavoError
from octavo.pipeline.config import PipelineConfig
from octavo.types import Box, Category, Failure, PageResult

#: Says that the parent's main thread started the worker. The kernel ties a death signal to the
#: thread that forked, so it must not be asked for by a thread that may end before its process.
TIED = "--tied"

_LENGTH = struct.Struct("!Q")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that was written beside the report, for a page or for one element of it.

    Attributes:
        file: relative to the document's folder, with forward slashes.
        size: bytes.
        width, height: pixels.
    """

    file: str
    size: int
    width: int
    height: int
    element_id: str | None = None
    category: Category | None = None
    box: Box | None = None


# Parent to worker.


@dataclass(frozen=True, slots=True)
class Open:
    """Open this file, closing the one before; answered by ``Opened`` or ``Refused``."""

    path: Path
    config: PipelineConfig


@dataclass(frozen=True, slots=True)
class Read:
    """Read these pages and write their pictures into ``folder``; ends with ``BatchDone``."""

    numbers: tuple[int, ...]
    folder: Path


# Worker to parent.


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker has started."""


@dataclass(frozen=True, slots=True)
class Opened:
    pages: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The document as a whole cannot go on."""

    error: OctavoError


@dataclass(frozen=True, slots=True)
class Started:
    """The reader has taken this page; readers take pages ahead, so several may be open."""

    number: int


@dataclass(frozen=True, slots=True)
class PageRead:
    result: PageResult
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True, slots=True)
class Raised:
    """The reader raised where it should have given a result; its other pages are lost."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class BatchDone:
    """Nothing more comes for the last ``Read``."""


Request = Open | Read
Reply = Ready | Opened | Refused | Started | PageRead | Raised | BatchDone


def write_frame(stream: IO[bytes], message: Request | Reply) -> None:
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def read_frame(stream: IO[bytes]) -> Request | Reply | None:
    """The next message; None where the other side has gone, be it in the middle of one."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    data = stream.read(length)
    if len(data) < length:
        return None
    message: Request | Reply = pickle.loads(data)
    return message
