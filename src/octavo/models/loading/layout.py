"""What is read into which memory, in which order: arithmetic only.

Tensors of a component lie in a file one after another, with the tensors of other components and
of skipped layers between them. Two ways lead from there to a parameter:

- *in place*: stored as wanted. A run of such tensors is read as one range into one buffer, and
  the parameters are views of it.
- *staged*: to be cast, quantized, rearranged or sent to another device. Pieces of whole rows or
  numbers go through a chunk of fixed size to where they belong.

Small tensors (norms, biases) go along with the run that they lie in, so that a file is read in
few large ranges.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

import torch

from octavo.hardware.spec import TensorSpec
from octavo.memory.buffers import PAGE

#: Tensors and holes up to this go along with their neighbours.
SMALL: Final = 64 * 1024
#: A range in place is read, reported and hashed in steps of this.
STEP: Final = 64 << 20


class Way(Enum):
    """How stored bytes become a parameter."""

    VIEW = "view"
    CAST = "cast"  # also a copy, where the type is the same
    QUANTIZE = "quantize"
    CONVERT = "convert"  # by the family, from the whole tensor; then cast or quantized


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """A parameter to fill.

    Attributes:
        name: of the parameter.
        source: the stored tensor.
        stored, dtype: types in the file and in the module.
        shape: in the module.
        way: how; ``VIEW`` only where the bytes may stay where they are read to.
        quantized: a converted tensor is quantized at the end.
    """

    name: str
    source: TensorSpec
    stored: torch.dtype
    dtype: torch.dtype
    shape: tuple[int, ...]
    way: Way
    quantized: bool = False

    @property
    def end(self) -> int:
        return self.source.offset + self.source.nbytes

    @property
    def unit(self) -> int:
        """Bytes that must not be parted: a number, a row, or all."""
        if self.way is Way.CONVERT:
            return self.source.nbytes
        if self.way is Way.QUANTIZE:
            return self.stored.itemsize * self.source.shape[1]
        return self.stored.itemsize

    @property
    def held_bytes(self) -> int:
        """In the memory of the module, when it is not quantized."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Piece:
    """Units ``low`` to ``high`` of a tensor."""

    wanted: Wanted
    low: int
    high: int

    @property
    def offset(self) -> int:
        return self.wanted.source.offset + self.low * self.wanted.unit

    @property
    def end(self) -> int:
        return self.wanted.source.offset + self.high * self.wanted.unit


@dataclass(frozen=True, slots=True)
class Step:
    """One range of a file that is read as one.

    Attributes:
        file: in the checkpoint's folder.
        low, high: whole pages of the file, but for the file's own end.
        buffer: number of the buffer in place that it goes to; None for a chunk of staging.
        pieces: to cast or quantize once it is read: of this range, or with the last step of
            a buffer, of the whole buffer.
    """

    file: str
    low: int
    high: int
    buffer: int | None
    pieces: tuple[Piece, ...] = ()

    @property
    def nbytes(self) -> int:
        return self.high - self.low


@dataclass(frozen=True, slots=True)
class Buffer:
    """Bytes ``low`` to ``high`` of a file, held as they are."""

    file: str
    low: int
    high: int
    views: tuple[Wanted, ...]

    @property
    def nbytes(self) -> int:
        return self.high - self.low


@dataclass(slots=True)
class Layout:
    """All steps of a component, in file order.

    Attributes:
        chunk_bytes: of one chunk of staging; 0 when nothing is staged.
        copies: parameters with memory of their own, beside the buffers.
    """

    steps: list[Step] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)
    chunk_bytes: int = 0
    copies: list[Wanted] = field(default_factory=list)

    @property
    def read_bytes(self) -> int:
        return sum(step.nbytes for step in self.steps)


def lay_out(
    wanted: Sequence[Wanted],
    sizes: Mapping[str, int],
    *,
    chunk_bytes: int,
    whole: Collection[str] = (),
) -> Layout:
    """The way of every byte.

    Args:
        wanted: in any order.
        sizes: bytes of each file.
        chunk_bytes: of staging; raised where one row, or one tensor to rearrange, is larger.
        whole: files of which every byte is read, for a checksum.
    """
    layout = Layout(copies=[one for one in wanted if not one.source.nbytes])
    present = [one for one in wanted if one.source.nbytes]
    units = [_in_pages(one.unit) for one in present if one.way is not Way.VIEW]
    chunk = max([_in_pages(chunk_bytes), *(unit + 2 * PAGE for unit in units)])
    by_file: dict[str, list[Wanted]] = {file: [] for file in whole}
    for one in present:
        by_file.setdefault(one.source.file, []).append(one)
    for file, tensors in by_file.items():
        steps: list[Step] = []
        for run in _runs(sorted(tensors, key=lambda one: one.source.offset)):
            steps += (
                _in_place(layout, file, run, sizes[file])
                if _stays(run)
                else _staged(layout, file, run, sizes[file], chunk)
            )
        layout.steps += _without_gaps(steps, file, sizes[file], chunk) if file in whole else steps
    if any(step.buffer is None for step in layout.steps):
        layout.chunk_bytes = chunk
    return layout


def whole_file(file: str, size: int, chunk_bytes: int) -> list[Step]:
    """Steps that read a file for its bytes' sake only."""
    return list(_gap(file, 0, size, chunk_bytes))


def _runs(tensors: Iterable[Wanted]) -> Iterator[list[Wanted]]:
    """Neighbours without large holes between; the large ones are all views, or all are not."""
    run: list[Wanted] = []
    views: bool | None = None
    for one in tensors:
        mine = (one.way is Way.VIEW) if one.source.nbytes > SMALL else None
        hole = one.source.offset - run[-1].end if run else 0
        if hole > SMALL or (None not in (mine, views) and mine != views):
            yield run
            run, views = [], None
        run.append(one)
        views = mine if views is None else views
    if run:
        yield run


def _stays(run: Sequence[Wanted]) -> bool:
    """Whether a run is kept as it is read: most of it is views."""
    views = sum(one.source.nbytes for one in run if one.way is Way.VIEW)
    return 2 * views >= sum(one.source.nbytes for one in run)


def _in_place(layout: Layout, file: str, run: Sequence[Wanted], size: int) -> list[Step]:
    low = run[0].source.offset // PAGE * PAGE
    high = min(_in_pages(max(one.end for one in run)), size)
    number = len(layout.buffers)
    views = tuple(one for one in run if one.way is Way.VIEW)
    layout.buffers.append(Buffer(file, low, high, views))
    others = [one for one in run if one.way is not Way.VIEW]
    layout.copies += others
    pieces = tuple(Piece(one, 0, one.source.nbytes // one.unit) for one in others)
    return [
        Step(file, start, min(start + STEP, high), number, pieces if start + STEP >= high else ())
        for start in range(low, high, STEP)
    ]


def _staged(
    layout: Layout, file: str, run: Sequence[Wanted], size: int, chunk: int
) -> Iterator[Step]:
    copied = [replace(one, way=Way.CAST) if one.way is Way.VIEW else one for one in run]
    layout.copies += copied
    for pieces in _chunks(copied, chunk - 2 * PAGE):
        low = pieces[0].offset // PAGE * PAGE
        yield Step(file, low, min(_in_pages(pieces[-1].end), size), None, tuple(pieces))


def _chunks(run: Iterable[Wanted], room: int) -> Iterator[list[Piece]]:
    """Pieces that lie within ``room`` bytes of the file."""
    pieces: list[Piece] = []
    for one in run:
        units, low = one.source.nbytes // one.unit, 0
        while low < units:
            start = one.source.offset + low * one.unit
            left = room - (start - pieces[0].offset if pieces else 0)
            high = min(units, low + left // one.unit)
            if high > low:
                pieces.append(Piece(one, low, high))
                low = high
            else:
                yield pieces
                pieces = []
    if pieces:
        yield pieces


def _without_gaps(steps: Iterable[Step], file: str, size: int, chunk: int) -> Iterator[Step]:
    """``steps`` with others between that are read for their bytes' sake only."""
    done = 0
    for step in steps:
        yield from _gap(file, done, step.low, chunk)
        yield step
        done = step.high
    yield from _gap(file, done, size, chunk)


def _gap(file: str, low: int, high: int, chunk: int) -> Iterator[Step]:
    for start in range(low, high, chunk):
        yield Step(file, start, min(start + chunk, high), None)


def _in_pages(nbytes: int) -> int:
    return -(-nbytes // PAGE) * PAGE
