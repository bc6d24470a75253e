"""The header of CTranslate2's ``model.bin``: which tensors lie where. No value is read.

The format is that of ``ModelSpec._serialize`` of CTranslate2
(https://github.com/OpenNMT/CTranslate2, ``python/ctranslate2/specs/model_spec.py``), versions 4 to
6: little endian, a version, the name of the specification, its revision, the number of variables,
then for each its name, shape, type, number of bytes and bytes. Names end in a zero byte.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from octavo.errors import BrokenFile, UnsupportedFormat
from octavo.hardware.spec import STORED_BYTES, TensorSpec
from octavo.models.checkpoint import Checkpoint

BINARY: Final = "model.bin"
_VERSIONS: Final = range(4, 7)
#: As CTranslate2 numbers them (``DataType``).
_TYPES: Final = ("F32", "I8", "I16", "I32", "F16", "BF16")
#: More than the entry of any variable takes before its bytes: a name, eight sides.
_ENTRY: Final = 512
_MOST: Final = 1_000_000
_AGAIN: Final = "download the model again"


@dataclass(frozen=True, slots=True)
class Binary:
    """What a header says: ``spec`` such as ``WhisperSpec``; ``tensors`` by name, in file order."""

    spec: str
    revision: int
    tensors: Mapping[str, TensorSpec]


def spec_name(checkpoint: Checkpoint) -> str | None:
    """The specification of the folder's ``model.bin``; None where there is no such file."""
    if not checkpoint.has(BINARY):
        return None
    head = checkpoint.files.read(BINARY, 0, _ENTRY)
    try:
        version, name, _ = _start(head)
    except (struct.error, UnicodeDecodeError):
        return None
    return name if version < 256 else None


def read_binary(checkpoint: Checkpoint) -> Binary:
    """Reads the header.

    Raises:
        BrokenFile: cut short, or not what it says.
        UnsupportedFormat: a version that is not known.
    """
    where = f"{checkpoint.files.where}/{BINARY}"
    size = checkpoint.files.size(BINARY)
    try:
        return _read(checkpoint, size, where)
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise BrokenFile("damaged, or cut short", where=where, next_step=_AGAIN) from error


def scalar(checkpoint: Checkpoint, tensor: TensorSpec) -> int:
    """The value of an integer without a shape."""
    raw = checkpoint.files.read(BINARY, tensor.offset, tensor.nbytes)
    return int.from_bytes(raw, "little", signed=True)


def _start(head: bytes) -> tuple[int, str, int]:
    (version,) = struct.unpack_from("<I", head, 0)
    name, at = _string(head, 4)
    return version, name, at


def _read(checkpoint: Checkpoint, size: int, where: str) -> Binary:
    head = checkpoint.files.read(BINARY, 0, _ENTRY)
    version, spec, at = _start(head)
    if version not in _VERSIONS:
        raise UnsupportedFormat(
            f"{BINARY} has version {version} of CTranslate2's format",
            where=where,
            next_step="convert the model again with CTranslate2 4",
        )
    revision, count = struct.unpack_from("<II", head, at)
    if count > _MOST:
        raise IndexError(count)
    at += 8
    tensors: dict[str, TensorSpec] = {}
    for _ in range(count):
        tensor = _variable(checkpoint.files.read(BINARY, at, _ENTRY), at)
        at = tensor.offset + tensor.nbytes
        if at > size:
            raise BrokenFile(
                f"cut short: {size} bytes, and {tensor.name} ends at {at}",
                where=where,
                next_step=_AGAIN,
            )
        tensors[tensor.name] = tensor
    return Binary(spec, revision, tensors)


def _variable(entry: bytes, base: int) -> TensorSpec:
    name, at = _string(entry, 0)
    rank = entry[at]
    shape = struct.unpack_from(f"<{rank}I", entry, at + 1)
    number, nbytes = struct.unpack_from("<BI", entry, at + 1 + 4 * rank)
    dtype = _TYPES[number]
    if nbytes != math.prod(shape) * STORED_BYTES[dtype]:
        raise IndexError(nbytes)
    return TensorSpec(
        name, BINARY, base + at + 6 + 4 * rank, nbytes, dtype, shape, matrix=_is_matrix(name, shape)
    )


def _is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 and name.endswith("/weight") and "/linear_" in name


def _string(data: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<H", data, at)
    end = at + 2 + length
    if end > len(data):
        raise IndexError(length)
    return data[at + 2 : end].rstrip(b"\0").decode(), end
