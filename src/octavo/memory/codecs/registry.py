"""The codecs by name, and decoding of whatever one of them made."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

import torch

from octavo.errors import CodecError
from octavo.memory.codecs.base import Codec
from octavo.memory.codecs.grouped import Grouped
from octavo.memory.codecs.half import Half
from octavo.memory.codecs.lossless import Lossless
from octavo.memory.codecs.lowrank import LowRank
from octavo.memory.codecs.raw import Raw
from octavo.memory.codecs.sparse import Sparse
from octavo.memory.payload import Payload


class CheckedCodec(Codec, Protocol):
    """A codec that can judge a payload before memory is taken for what it decodes to."""

    def check(self, payload: Payload) -> None:
        """Raises CodecError when the header and the length of the data do not belong together."""


RAW = Raw()

#: Every codec by its name. Decoding takes parameters from the payload, so that one codec of a
#: name decodes what any other of that name has encoded.
CODECS: Mapping[str, CheckedCodec] = MappingProxyType(
    {
        codec.name: codec
        for codec in (
            RAW,
            Half("fp16"),
            Half("bf16"),
            Grouped(8),
            Grouped(8, "channel"),
            Grouped(8, "token"),
            Grouped(4),
            Grouped(4, "channel"),
            Grouped(4, "token"),
            Sparse(),
            Lossless(),
            LowRank(),
        )
    }
)


def codec_named(name: str) -> CheckedCodec:
    """Raises CodecError: there is no codec of that name."""
    codec = CODECS.get(name)
    if codec is None:
        raise CodecError(f"there is no codec {name!r}", next_step=f"use one of {', '.join(CODECS)}")
    return codec


def decode(
    payload: Payload,
    out: torch.Tensor | None = None,
    device: torch.device | str | None = None,
) -> torch.Tensor:
    """The tensor that ``payload`` was made from, within ``payload.error``.

    Args:
        out: where to decode to: contiguous, of the payload's dtype and shape, on any device.
        device: without ``out``, where the new tensor goes; the CPU if not given.

    Raises:
        CodecError: the payload is damaged, or ``out`` does not fit it.
    """
    codec = codec_named(payload.codec)
    codec.check(payload)
    if out is None:
        out = torch.empty(payload.shape, dtype=payload.dtype, device=device or "cpu")
    codec.decode(payload, out)
    return out
