"""A tensor turned into bytes: what the host and disk tiers keep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from octavo.errors import CodecError

#: Everything in ``meta`` can be written as JSON.
Meta = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Payload:
    """An encoded tensor.

    Attributes:
        codec: the name of the codec that made it.
        dtype, shape: of the tensor that decoding gives back.
        data: 1-D contiguous ``uint8`` on the CPU; the encoded bytes, all of them.
        error: no element of the decoded tensor is farther than this from the original; 0.0 is
            exact, to the bit.
        meta: the codec's parameters, JSON values only.
    """

    codec: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    data: torch.Tensor
    error: float = 0.0
    meta: Meta = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return self.data.numel()

    def header(self) -> dict[str, Any]:
        """All but the data, as JSON values."""
        return {
            "codec": self.codec,
            "dtype": str(self.dtype).removeprefix("torch."),
            "shape": list(self.shape),
            "error": self.error,
            "meta": dict(self.meta),
        }

    @classmethod
    def from_header(cls, header: Mapping[str, Any], data: torch.Tensor) -> Payload:
        """The payload that :meth:`header` described, around ``data``.

        Raises:
            CodecError: the header is not one that :meth:`header` wrote.
        """
        try:
            dtype = getattr(torch, header["dtype"])
            if not isinstance(dtype, torch.dtype):
                raise TypeError(f"{header['dtype']!r} is no dtype")
            return cls(
                codec=str(header["codec"]),
                dtype=dtype,
                shape=tuple(int(size) for size in header["shape"]),
                data=data,
                error=float(header["error"]),
                meta=dict(header["meta"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise CodecError(
                f"the header of a stored value is damaged: {error}",
                next_step="delete the folder of the disk tier; its values will be made again",
            ) from error
