"""What every codec refuses, with the words for it."""

from __future__ import annotations

import torch

from octavo.errors import CodecError
from octavo.memory.codecs.base import Codec
from octavo.memory.codecs.pieces import nbytes_of
from octavo.memory.payload import Payload

_OTHER_CODEC = 'store it with another codec; "raw" takes every tensor'


def admitted(codec: Codec, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor without its history, when ``codec`` can encode it.

    Raises:
        CodecError: not a dense tensor with data, or of a dtype or shape that is not supported.
    """
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
        raise refused(codec, "only dense tensors with data can be encoded")
    if not codec.supports(tensor.dtype, tuple(tensor.shape)):
        raise refused(codec, f"{tensor.dtype} of shape {tuple(tensor.shape)} is not supported")
    return tensor.detach()


def refused(codec: Codec, what: str) -> CodecError:
    """The error for a tensor that ``codec`` cannot represent."""
    return CodecError(what, where=f"codec {codec.name}", next_step=_OTHER_CODEC)


def damaged(what: str, payload: Payload) -> CodecError:
    """The error for a payload that no codec wrote like this."""
    return CodecError(
        what,
        where=f"payload of codec {payload.codec!r}",
        next_step="drop the value and make it again",
    )


def check_payload(codec: Codec, payload: Payload) -> None:
    """That ``payload`` is one that ``codec`` can have made, as far as its header tells.

    Raises:
        CodecError: it is not.
    """
    if payload.codec != codec.name:
        raise damaged(f"codec {codec.name} cannot decode it", payload)
    if any(size < 0 for size in payload.shape):
        raise damaged(f"{payload.shape} is no shape", payload)
    if not codec.supports(payload.dtype, payload.shape):
        raise damaged(f"{payload.dtype} of shape {payload.shape} is not supported", payload)
    data_b = payload.data
    if data_b.dtype != torch.uint8 or data_b.dim() != 1 or data_b.device.type != "cpu":
        raise damaged("the data is not a 1-D uint8 tensor on the CPU", payload)
    if not data_b.is_contiguous():
        raise damaged("the data is not contiguous", payload)


def check_size(payload: Payload, expected: int) -> None:
    """That the data has ``expected`` bytes.

    Raises:
        CodecError: it has not.
    """
    if payload.nbytes != expected:
        raise damaged(f"{payload.nbytes} bytes of data where {expected} belong", payload)


def flat_out(payload: Payload, out: torch.Tensor) -> torch.Tensor:
    """``out`` as 1-D, without its history, when the payload can be decoded into it.

    Raises:
        CodecError: it has another dtype or shape, or is not contiguous.
    """
    if out.dtype != payload.dtype or tuple(out.shape) != payload.shape:
        raise CodecError(
            f"{payload.dtype} of shape {payload.shape} does not go into "
            f"{out.dtype} of shape {tuple(out.shape)}",
            where=f"payload of codec {payload.codec!r}",
            next_step="pass an output of the payload's dtype and shape",
        )
    if not out.is_contiguous() or out.is_conj() or out.is_neg():
        raise CodecError(
            "the output is not contiguous",
            where=f"payload of codec {payload.codec!r}",
            next_step="decode into a contiguous tensor and copy from there",
        )
    # An empty tensor may have strides that forbid views of another width.
    return out.detach().view(-1) if out.numel() else out.new_empty(0)


def whole_number(payload: Payload, name: str, least: int, most: int) -> int:
    """The whole number ``name`` of the payload's parameters.

    Raises:
        CodecError: missing, no whole number, or out of range.
    """
    value = payload.meta.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise damaged(f"{name} is {value!r}, not a whole number of {least} to {most}", payload)
    return value


def raw_nbytes(payload: Payload) -> int:
    """Bytes of the tensor that the payload decodes to."""
    return nbytes_of(payload.dtype, payload.shape)
