"""What a codec is: tensor to bytes and back, with a declared bound on the error."""

from __future__ import annotations

from typing import Protocol

import torch

from octavo.memory.payload import Payload


class Codec(Protocol):
    """Turns a tensor into bytes and back.

    A codec works through large tensors in pieces, so that what it needs beside input and output
    stays under :meth:`scratch` bytes. It holds no state and may be used from many threads.
    """

    @property
    def name(self) -> str:
        """What ``Payload.codec`` says."""

    @property
    def lossless(self) -> bool:
        """Whether every tensor that it supports comes back exact, to the bit."""

    def supports(self, dtype: torch.dtype, shape: tuple[int, ...]) -> bool:
        """Whether tensors like this can be encoded at all."""

    def size_bound(self, dtype: torch.dtype, shape: tuple[int, ...]) -> int:
        """The most bytes that a payload of such a tensor can have."""

    def scratch(self, dtype: torch.dtype, shape: tuple[int, ...]) -> int:
        """The most bytes that encoding or decoding needs beside input and output."""

    def encode(self, tensor: torch.Tensor) -> Payload:
        """The tensor's payload, on the CPU. ``error`` bounds what decoding will differ by.

        Raises:
            CodecError: not supported, or values that cannot be represented (NaN, infinity).
        """

    def decode(self, payload: Payload, out: torch.Tensor) -> None:
        """Fills ``out``, contiguous, of the payload's dtype and shape, on any device.

        Raises:
            CodecError: the payload is damaged or not this codec's.
        """
