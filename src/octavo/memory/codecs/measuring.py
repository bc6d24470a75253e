"""What a codec does with one tensor: ratio, speed, and the error that really arises."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from octavo.memory.codecs.base import Codec
from octavo.memory.codecs.pieces import PIECE, read, read_words, spans


@dataclass(frozen=True, slots=True)
class Measured:
    """Attributes:
    ratio: raw bytes over encoded bytes.
    encode_bytes_per_s, decode_bytes_per_s: raw bytes a second, of one run.
    max_error: the largest absolute error of an element; 0.0 is exact, to the bit.
    """

    ratio: float
    encode_bytes_per_s: float
    decode_bytes_per_s: float
    max_error: float


def measure(codec: Codec, tensor: torch.Tensor) -> Measured:
    """Encodes and decodes ``tensor`` once.

    Raises:
        CodecError: the codec refuses it.
    """
    started = time.perf_counter()
    payload = codec.encode(tensor)
    encoding = time.perf_counter() - started
    # Written to once before the clock starts: new pages cost more than some codecs.
    back = torch.zeros(tensor.shape, dtype=tensor.dtype, device="cpu")
    started = time.perf_counter()
    codec.decode(payload, back)
    decoding = time.perf_counter() - started
    nbytes = tensor.numel() * tensor.dtype.itemsize
    return Measured(
        ratio=nbytes / max(payload.nbytes, 1),
        encode_bytes_per_s=nbytes / encoding,
        decode_bytes_per_s=nbytes / decoding,
        max_error=largest_error(tensor, back),
    )


def largest_error(tensor: torch.Tensor, back: torch.Tensor) -> float:
    """The largest absolute difference of two tensors of one dtype and shape, in float64.

    Elements with the same bits differ by 0; a NaN in one only makes the answer NaN.
    """
    tensor, back = tensor.detach(), back.detach()
    worst = 0.0
    for start, stop in spans(tensor.numel(), PIECE):
        if torch.equal(read_words(tensor, start, stop), read_words(back, start, stop)):
            continue
        difference = _difference(read(tensor, start, stop), read(back, start, stop))
        if difference != difference:  # noqa: PLR0124
            return difference
        worst = max(worst, difference)
    return worst


def _difference(a_n: torch.Tensor, b_n: torch.Tensor) -> float:
    wide = torch.complex128 if a_n.is_complex() else torch.float64
    difference_n = (a_n.to(wide) - b_n.to(wide)).abs()
    return float(difference_n.masked_fill_(a_n == b_n, 0).max())
