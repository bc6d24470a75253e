"""A folder with a model: its ``config.json`` and where each tensor's bytes lie.

The safetensors format (https://huggingface.co/docs/safetensors) is eight bytes with the length of
a JSON header, the header, then the tensors. Only headers are read here. Where the bytes come from
is a :class:`Files`: a local folder, or a server that answers range requests.
"""

from __future__ import annotations

import json
import math
import operator
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol

from octavo.errors import BrokenFile, InputError, SourceNotFound
from octavo.hardware.spec import STORED_BYTES, TensorSpec

CONFIG: Final = "config.json"
GENERATION: Final = "generation_config.json"
WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
#: The format allows 100 MB; a longer one is not a header.
LONGEST_HEADER: Final = 100_000_000
#: A longer configuration, index or tokenizer setting is none.
LONGEST_JSON: Final = 100_000_000
#: No tensor library takes more.
_MOST_SIDES: Final = 64


class Files(Protocol):
    """Named files of one model."""

    @property
    def where(self) -> str:
        """The folder or address, for messages."""
        ...

    def names(self) -> tuple[str, ...]: ...

    def size(self, name: str) -> int: ...

    def read(self, name: str, offset: int = 0, nbytes: int | None = None) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Folder:
    """Files in a local folder.

    Raises:
        InputError: the disk or its rights refuse.
    """

    path: Path

    @property
    def where(self) -> str:
        return str(self.path)

    def names(self) -> tuple[str, ...]:
        with reading(self.path):
            return tuple(sorted(path.name for path in self.path.iterdir() if path.is_file()))

    def size(self, name: str) -> int:
        with reading(self.path / name):
            return (self.path / name).stat().st_size

    def read(self, name: str, offset: int = 0, nbytes: int | None = None) -> bytes:
        with reading(self.path / name), (self.path / name).open("rb") as file:
            file.seek(offset)
            return file.read() if nbytes is None else file.read(nbytes)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What the system says against reading ``path``, as InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror or error}",
            where=str(path),
            next_step="check the path and who may read it",
        ) from error


class Checkpoint:
    """A model's configuration and the places of its tensors.

    Args:
        files: where it lies.
        name: what the user called it.

    Attributes:
        folder: the local folder; None when the files are remote.
    """

    def __init__(self, files: Files, name: str | None = None) -> None:
        self.files = files
        self.name = name or files.where
        self.folder = files.path if isinstance(files, Folder) else None

    @classmethod
    def at(cls, folder: Path | str, name: str | None = None) -> Checkpoint:
        """The model in a local folder.

        Raises:
            SourceNotFound: there is no such folder, or no ``config.json`` in it.
        """
        path = Path(folder)
        with reading(path):
            there, complete = path.is_dir(), (path / CONFIG).is_file()
        if not there:
            raise SourceNotFound("no such model folder", where=str(path))
        if not complete:
            raise SourceNotFound(
                f"no {CONFIG} in this folder, so it is not a model",
                where=str(path),
                next_step="give the folder that holds config.json and the .safetensors files",
            )
        return cls(Folder(path), name)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """``config.json``.

        Raises:
            BrokenFile: it is no JSON object.
        """
        return self.json(CONFIG)

    @property
    def model_type(self) -> str:
        return str(self.config.get("model_type", ""))

    def has(self, name: str) -> bool:
        return name in self.files.names()

    def json(self, name: str) -> Mapping[str, Any]:
        """A JSON object among the files.

        Raises:
            BrokenFile: it is none.
        """
        size = self.files.size(name)
        if size > LONGEST_JSON:
            raise BrokenFile(f"{name} is too long: {size} bytes", where=self.files.where)
        try:
            value = json.loads(self.files.read(name))
        except (ValueError, RecursionError) as error:
            raise BrokenFile(f"{name} is not JSON: {error}", where=self.files.where) from error
        if not isinstance(value, dict):
            raise BrokenFile(f"{name} is not a JSON object", where=self.files.where)
        return value

    @cached_property
    def shards(self) -> tuple[str, ...]:
        """Names of the weight files, in order.

        Raises:
            SourceNotFound: there are none, or the index names one that is not there.
        """
        names = self.files.names()
        if INDEX in names:
            placed = self.json(INDEX).get("weight_map")
            if not isinstance(placed, dict) or not placed:
                raise BrokenFile(f"{INDEX} has no weight_map", where=self.files.where)
            shards = tuple(sorted(set(map(str, placed.values()))))
        elif WEIGHTS in names:
            shards = (WEIGHTS,)
        else:
            shards = tuple(name for name in names if name.endswith(".safetensors"))
        missing = [shard for shard in shards if shard not in names]
        if missing or not shards:
            raise SourceNotFound(
                f"no {missing[0]}" if missing else "no .safetensors files",
                where=self.files.where,
                next_step="download the model again; weights in pickle files are never loaded",
            )
        return shards

    @cached_property
    def tensors(self) -> Mapping[str, TensorSpec]:
        """Every tensor by name, in file order.

        Raises:
            BrokenFile: a header that lies about its file, or a file that is cut short.
        """
        found: dict[str, TensorSpec] = {}
        for shard in self.shards:
            for tensor in sorted(self._read_header(shard), key=lambda spec: spec.offset):
                if tensor.name in found:
                    raise BrokenFile(
                        f"tensor {tensor.name} is in two files", where=f"{self.files.where}/{shard}"
                    )
                found[tensor.name] = tensor
        if INDEX in self.files.names():
            placed = self.json(INDEX)["weight_map"]
            absent = [
                name
                for name, shard in placed.items()
                if getattr(found.get(name), "file", None) != shard
            ]
            if absent:
                raise BrokenFile(
                    f"the index places {absent[0]} in {placed[absent[0]]}, which lacks it",
                    where=self.files.where,
                )
        return found

    def _read_header(self, shard: str) -> list[TensorSpec]:
        where = f"{self.files.where}/{shard}"
        size = self.files.size(shard)
        head = self.files.read(shard, 0, 8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= length <= min(LONGEST_HEADER, size - 8):
            raise BrokenFile("not a safetensors file, or cut short", where=where, next_step=_AGAIN)
        try:
            header = json.loads(self.files.read(shard, 8, length))
            header.pop("__metadata__", None)
            tensors = [_tensor(name, entry, shard, 8 + length) for name, entry in header.items()]
        except (
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            OverflowError,
            RecursionError,
        ) as error:
            raise BrokenFile(
                f"a damaged safetensors header: {error}", where=where, next_step=_AGAIN
            ) from error
        end = max((tensor.offset + tensor.nbytes for tensor in tensors), default=8 + length)
        if end > size:
            raise BrokenFile(
                f"cut short: {size} bytes, its header speaks of {end}",
                where=where,
                next_step=_AGAIN,
            )
        return tensors


_AGAIN: Final = "download the file again"


def _tensor(name: str, entry: Mapping[str, Any], shard: str, base: int) -> TensorSpec:
    start, end = (operator.index(place) for place in entry["data_offsets"])
    shape = tuple(operator.index(side) for side in entry["shape"])
    dtype = str(entry["dtype"])
    if len(shape) > _MOST_SIDES:
        raise ValueError(f"{name} has {len(shape)} dimensions")
    if dtype not in STORED_BYTES:
        raise ValueError(f"{name} has the type {dtype}")
    nbytes = math.prod(shape) * STORED_BYTES[dtype]
    if min(shape, default=0) < 0 or start < 0 or end - start != nbytes:
        raise ValueError(f"{name} of shape {shape} should take {nbytes} bytes, not {end - start}")
    return TensorSpec(name, shard, base + start, nbytes, dtype, shape)


def require(config: Mapping[str, Any], key: str, where: str) -> Any:
    """A key that a configuration must have.

    Raises:
        InputError: it has not.
    """
    if key not in config:
        raise InputError(f"config.json has no {key!r}", where=where)
    return config[key]
