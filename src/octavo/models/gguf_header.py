"""The header of a GGUF file: its short fields, and where each tensor's bytes lie.

The format is https://github.com/ggml-org/ggml/blob/master/docs/gguf.md: magic, version, counts,
key-value pairs, tensor descriptions, padding, data. Lists (the vocabulary) are stepped over.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from octavo.errors import BrokenFile, MissingDependency, SourceNotFound, UnsupportedFormat

MAGIC: Final = b"GGUF"
_AGAIN: Final = "download the file again"
_STRING: Final = 8
_ARRAY: Final = 9
_NUMBERS: Final = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
    12: "<d",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """``shape`` is as torch has it, rows first; ``kind`` is the name of its ggml type."""

    name: str
    kind: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """``fields`` has numbers and strings, not lists; ``digest`` is the SHA-256 of the header."""

    fields: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]
    digest: str


def is_gguf(path: Path) -> bool:
    """Whether a file begins as GGUF files do."""
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def read_header(path: Path) -> GgufHeader:
    """Reads and checks a header; of the data only its length.

    Raises:
        SourceNotFound: there is no such file.
        BrokenFile: no GGUF file, or cut short.
        UnsupportedFormat: a version, byte order or tensor type that is not read, or one part of
            several.
        MissingDependency: the ``gguf`` library is not installed.
    """
    if not path.is_file():
        raise SourceNotFound("no such file", where=str(path))
    size = path.stat().st_size
    if size < 24 or not is_gguf(path):
        raise BrokenFile("not a GGUF file", where=str(path), next_step=_AGAIN)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            header = _parse(data, path)
        except (struct.error, UnicodeDecodeError, IndexError, OverflowError) as error:
            raise BrokenFile(
                f"a damaged or cut GGUF header: {error}", where=str(path), next_step=_AGAIN
            ) from error
    end = max((tensor.offset + tensor.nbytes for tensor in header.tensors.values()), default=0)
    if end > size:
        raise BrokenFile(
            f"cut short: {size} bytes, its header speaks of {end}",
            where=str(path),
            next_step=_AGAIN,
        )
    return header


class _Cursor:
    """Reads one value after another; struct.error at the end of the data."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 0

    def number(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def string(self) -> str:
        start = self._step_over_string()
        return self.data[start : self.at].decode()

    def value(self, kind: int) -> Any:
        """A number or string; None for a list, which is stepped over."""
        if kind == _STRING:
            return self.string()
        if kind != _ARRAY:
            return self.number(_form(kind))
        inner, count = self.number("<I"), self.number("<Q")
        if inner == _STRING:
            for _ in range(count):
                self._step_over_string()
        elif inner == _ARRAY:
            for _ in range(count):
                self.value(_ARRAY)
        else:
            self._step(count * struct.calcsize(_form(inner)))
        return None

    def _step_over_string(self) -> int:
        length = self.number("<Q")
        self._step(length)
        return self.at - int(length)

    def _step(self, nbytes: int) -> None:
        self.at += nbytes
        if self.at > len(self.data):
            raise struct.error("it goes on past the end of the file")


def _form(kind: int) -> str:
    if kind not in _NUMBERS:
        raise struct.error(f"no value type {kind}")
    return _NUMBERS[kind]


def _parse(data: mmap.mmap, path: Path) -> GgufHeader:
    cursor = _Cursor(data)
    cursor.at = 4
    version = cursor.number("<I")
    if version not in (2, 3):
        raise UnsupportedFormat(
            f"GGUF version {version}, or the other byte order; 2 and 3 are read", where=str(path)
        )
    tensor_count, pair_count = cursor.number("<Q"), cursor.number("<Q")
    fields: dict[str, Any] = {}
    for _ in range(pair_count):
        key = cursor.string()
        value = cursor.value(cursor.number("<I"))
        if value is not None:
            fields[key] = value
    if fields.get("split.count", 1) > 1:
        raise UnsupportedFormat(
            f"one of {fields['split.count']} parts of a model",
            where=str(path),
            next_step="join them with llama.cpp's gguf-split --merge",
        )
    described = [_description(cursor) for _ in range(tensor_count)]
    alignment = int(fields.get("general.alignment", 32))
    if alignment <= 0:
        raise struct.error("an alignment of 0")
    base = -(-cursor.at // alignment) * alignment
    tensors = {
        name: _tensor(name, kind, dims, base + offset, path)
        for name, dims, kind, offset in described
    }
    digest = hashlib.sha256(data[: cursor.at]).hexdigest()
    return GgufHeader(fields, tensors, digest)


def _description(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    name = cursor.string()
    count = cursor.number("<I")
    if count > 8:
        raise struct.error(f"{name} has {count} dimensions")
    dims = tuple(cursor.number("<Q") for _ in range(count))
    return name, dims, cursor.number("<I"), cursor.number("<Q")


def _tensor(name: str, kind: int, dims: tuple[int, ...], offset: int, path: Path) -> GgufTensor:
    gguf = library()
    try:
        known = gguf.GGMLQuantizationType(kind)
        block, nbytes = gguf.GGML_QUANT_SIZES[known]
    except (ValueError, KeyError) as error:
        raise UnsupportedFormat(
            f"tensor {name} has the type {kind}, which the gguf library does not know",
            where=str(path),
            next_step="pip install --upgrade gguf",
        ) from error
    # GGUF counts dimensions from the innermost.
    shape = tuple(reversed(dims))
    if not shape or shape[-1] % block:
        raise struct.error(f"{name} of shape {shape} does not fill blocks of {block}")
    return GgufTensor(name, known.name, shape, offset, math.prod(shape) // block * nbytes)


def library() -> Any:
    """The ``gguf`` library.

    Raises:
        MissingDependency: it is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise MissingDependency(
            "reading GGUF files needs the gguf library", next_step="pip install gguf"
        ) from error
    return gguf
