"""zstd over byte-shuffled data.

The first bytes of all numbers, then their second bytes, and so on: exponents are alike and
compress, mantissas do not (the shuffle filter of HDF5 and Blosc). A tensor is cut into chunks,
and each plane of a chunk is compressed by itself, so that one that does not shrink costs a copy
and no more, and one of equal bytes nothing.

Data: the length of each plane of each chunk (``uint32``, little-endian), then the planes. A
length of 1 is the byte that fills the plane; one of the plane's full size is the plane itself.

Shape letters: n words (elements, or halves of complex ones), b bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from octavo.errors import MissingDependency
from octavo.memory.buffers import host_buffer
from octavo.memory.codecs.checks import (
    admitted,
    check_payload,
    damaged,
    flat_out,
)
from octavo.memory.codecs.pieces import (
    nbytes_of,
    read_words,
    spans,
    typed,
    word_dtype,
    written,
)
from octavo.memory.codecs.raw import has_bytes
from octavo.memory.payload import Payload

if TYPE_CHECKING:
    import zstandard

Bytes = npt.NDArray[np.uint8]
#: Bytes of a chunk before compression.
CHUNK = 1 << 20
#: A payload up to this size is copied into a buffer of just its size.
_COPIED = 4 * CHUNK
#: What zstd holds while it works at low levels.
_TABLES = 4 << 20


@dataclass(frozen=True, slots=True)
class Lossless:
    """Every dtype, exact to the bit.

    Attributes:
        level: of zstd; decoding does not depend on it.
    """

    level: int = 1

    @property
    def name(self) -> str:
        return "zstd"

    @property
    def lossless(self) -> bool:
        return True

    def supports(self, dtype: torch.dtype, shape: tuple[int, ...]) -> bool:  # noqa: ARG002
        return has_bytes(dtype)

    def size_bound(self, dtype: torch.dtype, shape: tuple[int, ...]) -> int:
        return nbytes_of(dtype, shape) + _head(dtype, shape)

    def scratch(self, dtype: torch.dtype, shape: tuple[int, ...]) -> int:
        # A chunk as read and shifted, its planes and what they compress to, a small payload's
        # copy, and the tables of zstd.
        return (
            4 * min(CHUNK, nbytes_of(dtype, shape))
            + min(_COPIED, nbytes_of(dtype, shape))
            + _TABLES
        )

    def encode(self, tensor: torch.Tensor) -> Payload:
        tensor = admitted(self, tensor)
        shape = tuple(tensor.shape)
        # Pages of a large buffer cost nothing until they are written, and the tail never is.
        room_b = host_buffer(self.size_bound(tensor.dtype, shape))
        end = _head(tensor.dtype, shape)
        lengths = room_b[:end].numpy().view("<u4")
        compressor = _zstd().ZstdCompressor(level=self.level, write_content_size=True)
        at = 0
        for start, stop in spans(tensor.numel(), CHUNK // tensor.dtype.itemsize):
            for plane_n in planes_of(read_words(tensor, start, stop)):
                packed = _compressed(compressor, plane_n)
                room_b[end : end + len(packed)].numpy()[:] = np.frombuffer(packed, np.uint8)
                lengths[at] = len(packed)
                end += len(packed)
                at += 1
        return Payload(self.name, tensor.dtype, shape, _fitted(room_b, end))

    def check(self, payload: Payload) -> None:
        check_payload(self, payload)
        head = _head(payload.dtype, payload.shape)
        if payload.nbytes < head:
            raise damaged(f"{payload.nbytes} bytes do not hold the lengths of its planes", payload)
        if head + int(_lengths(payload).sum()) != payload.nbytes:
            raise damaged("the lengths of its planes do not add up", payload)

    def decode(self, payload: Payload, out: torch.Tensor) -> None:
        self.check(payload)
        word = word_dtype(payload.dtype)
        out_n = flat_out(payload, out).view(word)
        decompressor = _zstd().ZstdDecompressor()
        data_b = payload.data.numpy()
        lengths = iter(_lengths(payload).tolist())
        at = _head(payload.dtype, payload.shape)
        for start, stop in spans(out_n.numel(), CHUNK // word.itemsize):
            planes = []
            for length in islice(lengths, word.itemsize):
                packed_b = data_b[at : at + length]
                planes.append(_decompressed(decompressor, packed_b, stop - start, payload))
                at += length
            with written(out_n[start:stop]) as piece_n:
                join(planes, piece_n)


def planes_of(words_n: torch.Tensor) -> Iterator[Bytes]:
    """All lowest bytes of ``words_n`` (integers), then all second bytes, and so on."""
    for at in range(words_n.dtype.itemsize):
        # A cast to uint8 keeps the lowest byte.
        yield (words_n >> (8 * at) if at else words_n).to(torch.uint8).numpy()


def join(planes: Sequence[Bytes], words_n: torch.Tensor) -> None:
    """Fills ``words_n`` with what :func:`planes_of` took apart; one byte stands for many."""
    words = words_n.numpy().view(f"u{words_n.dtype.itemsize}")
    words[...] = planes[-1]
    shift = 0
    # Highest first. Shifts are put off while planes are zero: each is a pass over the words.
    for plane in reversed(planes[:-1]):
        shift += 8
        if plane.size == 1 and not plane[0]:
            continue
        np.left_shift(words, shift, out=words)
        np.bitwise_or(words, plane, out=words)
        shift = 0
    if shift:
        np.left_shift(words, shift, out=words)


def _zstd() -> Any:
    """Raises MissingDependency where zstandard is not installed."""
    try:
        import zstandard
    except ModuleNotFoundError as error:
        raise MissingDependency(
            "lossless compression needs zstandard", next_step="pip install zstandard"
        ) from error
    return zstandard


def _compressed(compressor: zstandard.ZstdCompressor, plane_n: Bytes) -> bytes:
    """A zstd frame, one byte for a plane of equal ones, or the plane where that is no longer."""
    if plane_n[0] == plane_n[-1] and bool((plane_n == plane_n[0]).all()):
        return plane_n[:1].tobytes()
    frame: bytes = compressor.compress(plane_n.data)
    return frame if len(frame) < plane_n.size else plane_n.tobytes()


def _decompressed(
    decompressor: zstandard.ZstdDecompressor, packed_b: Bytes, count: int, payload: Payload
) -> Bytes:
    """The plane: ``count`` bytes, or the one that fills it."""
    if packed_b.size in (1, count):
        return packed_b
    try:
        # The frame says how long it will be, and zstd holds it to that: asked before so much
        # memory is taken.
        if _zstd().get_frame_parameters(packed_b.data).content_size != count:
            raise damaged("a plane has the wrong length", payload)
        plain = decompressor.decompress(packed_b.data, max_output_size=count)
    except _zstd().ZstdError as error:
        raise damaged(f"a plane is no zstd frame: {error}", payload) from error
    return np.frombuffer(plain, np.uint8)


def _lengths(payload: Payload) -> npt.NDArray[np.int64]:
    head_b = payload.data[: _head(payload.dtype, payload.shape)]
    return typed(head_b, torch.int32).numpy().view("<u4").astype(np.int64)


def _head(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    """Bytes of the lengths."""
    chunks = -(-nbytes_of(dtype, shape) // CHUNK)
    return 4 * word_dtype(dtype).itemsize * chunks


def _fitted(room_b: torch.Tensor, nbytes: int) -> torch.Tensor:
    if nbytes > _COPIED or nbytes == room_b.numel():
        return room_b[:nbytes]
    data_b = host_buffer(nbytes)
    data_b.copy_(room_b[:nbytes])
    return data_b
