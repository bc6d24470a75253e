"""Exact zeros as one bit each: a bitmap, then the bits of everything else.

Shape letters: n words (elements, or halves of complex ones), b bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from octavo.memory.buffers import host_buffer
from octavo.memory.codecs.checks import admitted, check_payload, damaged, flat_out, raw_nbytes
from octavo.memory.codecs.pieces import (
    PIECE,
    aligned,
    nbytes_of,
    numel_of,
    read_words,
    spans,
    typed,
    word_dtype,
    written,
)
from octavo.memory.codecs.raw import has_bytes
from octavo.memory.payload import Payload

_Words = npt.NDArray[np.signedinteger]


@dataclass(frozen=True, slots=True)
class Sparse:
    """Every dtype, exact to the bit: ``-0.0`` is no zero here, since one of its bits is set."""

    @property
    def name(self) -> str:
        return "sparse"

    @property
    def lossless(self) -> bool:
        return True

    def supports(self, dtype: torch.dtype, shape: tuple[int, ...]) -> bool:  # noqa: ARG002
        return has_bytes(dtype)

    def size_bound(self, dtype: torch.dtype, shape: tuple[int, ...]) -> int:
        nbytes = nbytes_of(dtype, shape)
        return _bitmap_bytes(nbytes // word_dtype(dtype).itemsize) + nbytes

    def scratch(self, dtype: torch.dtype, shape: tuple[int, ...]) -> int:
        # A piece copied where strides demand it, the values picked from it, masks and bits.
        piece = min(PIECE, numel_of(shape))
        return piece * 2 * dtype.itemsize + 8 * piece

    def encode(self, tensor: torch.Tensor) -> Payload:
        tensor = admitted(self, tensor)
        word = word_dtype(tensor.dtype)
        count = sum(int(np.count_nonzero(words_n)) for words_n in _words(tensor))
        bitmap = _bitmap_bytes(tensor.numel() * tensor.dtype.itemsize // word.itemsize)
        data_b = host_buffer(bitmap + count * word.itemsize)
        bits_b = data_b[:bitmap].numpy()
        values_n = data_b[bitmap:].view(word).numpy()
        bit, at = 0, 0
        for words_n in _words(tensor):
            mask_n = words_n != 0
            found_n = words_n[mask_n]
            values_n[at : at + found_n.size] = found_n
            at += found_n.size
            packed_b = np.packbits(mask_n, bitorder="little")
            bits_b[bit : bit + packed_b.size] = packed_b
            bit += packed_b.size
        bits_b[bit:] = 0
        return Payload(self.name, tensor.dtype, tuple(tensor.shape), data_b)

    def check(self, payload: Payload) -> None:
        check_payload(self, payload)
        word = word_dtype(payload.dtype)
        values = payload.nbytes - _bitmap_bytes(raw_nbytes(payload) // word.itemsize)
        if values < 0 or values % word.itemsize or values > raw_nbytes(payload):
            raise damaged(f"{payload.nbytes} bytes do not hold its bitmap and values", payload)

    def decode(self, payload: Payload, out: torch.Tensor) -> None:
        self.check(payload)
        word = word_dtype(payload.dtype)
        out_n = flat_out(payload, out).view(word)
        bitmap = _bitmap_bytes(out_n.numel())
        bits_b = payload.data[:bitmap].numpy()
        values_n = typed(payload.data[bitmap:], word).numpy()
        at = 0
        for start, stop in spans(out_n.numel(), PIECE):
            bits = bits_b[start // 8 : -(-stop // 8)]
            mask_n = np.unpackbits(bits, count=stop - start, bitorder="little").view(np.bool_)
            count = int(np.count_nonzero(mask_n))
            if at + count > values_n.size:
                raise damaged("the bitmap marks more values than there are", payload)
            with written(out_n[start:stop]) as piece_n:
                piece_n.zero_().numpy()[mask_n] = values_n[at : at + count]
            at += count
        if at != values_n.size:
            raise damaged("the bitmap marks fewer values than there are", payload)


def _words(tensor: torch.Tensor) -> Iterator[_Words]:
    """The tensor's bits in pieces; all but the last are a multiple of 8 words."""
    for start, stop in spans(tensor.numel(), PIECE):
        yield read_words(tensor, start, stop).numpy()


def _bitmap_bytes(words: int) -> int:
    return aligned(-(-words // 8))
