"""The file of a copy of layers: a safetensors file, whole or not there, with sums by layer."""

from __future__ import annotations

import errno
import json
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch

from octavo.errors import BrokenFile, TierError, TierFull
from octavo.memory.sizes import format_bytes

FILE: Final = "layers.safetensors"
#: Of the layout of the file and of the bytes in it; a copy of another version is never read.
FORMAT: Final = 1
#: Where tensors begin: multiples of a cache line.
LINE: Final = 64
#: As safetensors names what a copy holds.
NAMES: Final = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int8: "I8",
    torch.uint8: "U8",
}
#: Name, shape, type and bytes of each tensor, in order.
Layout = Sequence[tuple[str, tuple[int, ...], torch.dtype, int]]
_ELSEWHERE: Final = (
    "set OCTAVO_HOME to a folder on a disk with room, or give more memory, so that all layers stay "
    "in it"
)


def header(layout: Layout, sums: Sequence[int]) -> bytes:
    """Of the same length for all sums, and a whole number of cache lines with what precedes it."""
    entries: dict[str, Any] = {
        "__metadata__": {"octavo": str(FORMAT), "crc32": " ".join(f"{one:08x}" for one in sums)}
    }
    offset = 0
    for name, shape, dtype, nbytes in layout:
        entries[name] = {
            "dtype": NAMES[dtype],
            "shape": list(shape),
            "data_offsets": [offset, offset + nbytes],
        }
        offset += nbytes
    text = json.dumps(entries).encode()
    text += b" " * (-(len(text) + 8) % LINE)
    return struct.pack("<Q", len(text)) + text


def sums_of(path: Path) -> list[int]:
    """The CRC-32 of each layer as the header has it; BrokenFile without."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        try:
            said = json.loads(file.read(length))["__metadata__"]["crc32"]
            return [int(one, 16) for one in said.split()]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BrokenFile(f"a copy without sums: {error}", where=str(path)) from error


@contextmanager
def alone(place: Path) -> Iterator[None]:
    """One process at a time looks for a copy and makes it: the others then find it."""
    from huggingface_hub.utils._fixes import WeakFileLock

    with WeakFileLock(place / "lock"):
        yield


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """What the disk refuses, as Octavo says it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_room(place, None, None) from error
        raise TierError(
            f"a copy of layers cannot be written: {error}", where=str(place), next_step=_ELSEWHERE
        ) from error


def no_room(place: Path, total: int | None, free: int | None) -> TierFull:
    sizes = (
        ""
        if total is None or free is None
        else (f": it takes {format_bytes(total)}, {format_bytes(free)} are free")
    )
    return TierFull(
        f"no room on the disk for a copy of the streamed layers{sizes}",
        where=str(place),
        next_step=_ELSEWHERE,
    )
