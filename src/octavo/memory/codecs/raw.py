"""The bytes as they are."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from octavo.memory.buffers import host_buffer
from octavo.memory.codecs.checks import (
    admitted,
    check_payload,
    check_size,
    flat_out,
    raw_nbytes,
)
from octavo.memory.codecs.pieces import nbytes_of
from octavo.memory.payload import Payload

_QUANTIZED = frozenset({torch.quint8, torch.qint8, torch.qint32, torch.quint4x2, torch.quint2x4})


def has_bytes(dtype: torch.dtype) -> bool:
    """Whether the elements are nothing but their bytes (quantized dtypes carry parameters)."""
    return dtype not in _QUANTIZED


@dataclass(frozen=True, slots=True)
class Raw:
    """Every dtype, exact to the bit, in one copy each way."""

    @property
    def name(self) -> str:
        return "raw"

    @property
    def lossless(self) -> bool:
        return True

    def supports(self, dtype: torch.dtype, shape: tuple[int, ...]) -> bool:  # noqa: ARG002
        return has_bytes(dtype)

    def size_bound(self, dtype: torch.dtype, shape: tuple[int, ...]) -> int:
        return nbytes_of(dtype, shape)

    def scratch(self, dtype: torch.dtype, shape: tuple[int, ...]) -> int:  # noqa: ARG002
        return 0

    def encode(self, tensor: torch.Tensor) -> Payload:
        tensor = admitted(self, tensor)
        shape = tuple(tensor.shape)
        data_b = host_buffer(nbytes_of(tensor.dtype, shape))
        # Through the tensor's own dtype: one copy from any strides and any device.
        data_b.view(tensor.dtype).view(shape).copy_(tensor)
        return Payload(self.name, tensor.dtype, shape, data_b)

    def check(self, payload: Payload) -> None:
        check_payload(self, payload)
        check_size(payload, raw_nbytes(payload))

    def decode(self, payload: Payload, out: torch.Tensor) -> None:
        self.check(payload)
        # Through bytes: the data may begin at any place.
        flat_out(payload, out).view(torch.uint8).copy_(payload.data)
