"""Which codec suits a tensor, found on a small sample of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from octavo.errors import CodecError, ConfigError
from octavo.memory.codecs.base import Codec
from octavo.memory.codecs.pieces import read
from octavo.memory.codecs.registry import CODECS, RAW
from octavo.memory.payload import Payload

#: Elements in a sample, and the places that they come from.
SAMPLE = 1 << 15
_PLACES = 8
#: The error of a sample times this must be allowed: the extremes of the rest are wider.
DOUBT = 1.5
#: A ratio this near to the best counts as equal to it.
_CLOSE = 0.9
#: Codecs that are tried on the whole tensor before it is left raw.
_ATTEMPTS = 2

#: Cheapest to decode first.
_BY_DECODING = (
    "raw",
    "bf16",
    "fp16",
    "int8",
    "int8-token",
    "int8-channel",
    "int4",
    "int4-token",
    "int4-channel",
    "sparse",
    "zstd",
)


@dataclass(frozen=True, slots=True)
class _Sampled:
    codec: Codec
    ratio: float
    error: float

    @property
    def decoding(self) -> int:
        name = self.codec.name
        return _BY_DECODING.index(name) if name in _BY_DECODING else len(_BY_DECODING)


def choose(
    tensor: torch.Tensor,
    max_error: float,
    min_ratio: float,
    *,
    candidates: Sequence[Codec] | None = None,
) -> Codec:
    """The codec that makes ``tensor`` smallest; of nearly equal ones the cheapest to decode.

    What it says of the tensor comes from at most ``SAMPLE`` elements: :func:`encode_within`
    checks the result.

    Args:
        max_error: absolute, of any element; 0.0 admits lossless codecs only.
        min_ratio: raw bytes over encoded bytes, at least; below it the tensor is left raw.
        candidates: to choose from; all but low rank if not given.

    Raises:
        ConfigError: ``max_error`` is negative or NaN, or ``min_ratio`` under 1.
    """
    _check_limits(max_error, min_ratio)
    return next(_ranked(tensor, max_error, min_ratio, candidates), RAW)


def encode_within(
    tensor: torch.Tensor, max_error: float, min_ratio: float, *, codec: Codec | None = None
) -> Payload:
    """``tensor`` encoded by ``codec``, or by the one that :func:`choose` picks.

    The payload's error and size are checked. Where they break the limits, or the codec refuses
    the values, the second choice is tried, and then the tensor is left raw.

    Raises:
        ConfigError: as :func:`choose`.
        CodecError: not even raw can encode it (no dense tensor with data).
    """
    _check_limits(max_error, min_ratio)
    ranked = _ranked(tensor, max_error, min_ratio, None) if codec is None else iter([codec])
    for candidate in islice(ranked, _ATTEMPTS):
        payload = _encoded(candidate, tensor)
        if payload is None or payload.error > max_error:
            continue
        if payload.nbytes * min_ratio <= tensor.numel() * tensor.dtype.itemsize:
            return payload
    return RAW.encode(tensor)


def _encoded(codec: Codec, tensor: torch.Tensor) -> Payload | None:
    """None when ``codec`` refuses the tensor."""
    try:
        return codec.encode(tensor)
    except CodecError:
        return None


def _ranked(
    tensor: torch.Tensor, max_error: float, min_ratio: float, candidates: Sequence[Codec] | None
) -> Iterator[Codec]:
    """Codecs that pass on a sample, best first."""
    if tensor.numel() == 0 or tensor.layout != torch.strided or tensor.device.type == "meta":
        return
    shape = tuple(tensor.shape)
    able = [
        codec
        for codec in (_usual() if candidates is None else candidates)
        if (codec.lossless or max_error > 0) and codec.supports(tensor.dtype, shape)
    ]
    if not able:
        return
    sample = sample_of(tensor)
    allowed = max_error if sample.numel() == tensor.numel() else max_error / DOUBT
    passed = [_sampled(codec, sample) for codec in able]
    left = [
        sampled
        for sampled in passed
        if sampled is not None and sampled.error <= allowed and sampled.ratio >= min_ratio
    ]
    while left:
        best = max(sampled.ratio for sampled in left)
        near = [sampled for sampled in left if sampled.ratio >= _CLOSE * best]
        chosen = min(near, key=lambda sampled: sampled.decoding)
        yield chosen.codec
        # It failed on the whole tensor: so would others of about its precision.
        left = [
            sampled
            for sampled in left
            if sampled is not chosen and sampled.error <= chosen.error / 2
        ]


def _sampled(codec: Codec, sample: torch.Tensor) -> _Sampled | None:
    """What the codec does with the sample; None when it refuses it."""
    if not codec.supports(sample.dtype, tuple(sample.shape)):
        return None
    payload = _encoded(codec, sample)
    if payload is None:
        return None
    ratio = sample.numel() * sample.dtype.itemsize / max(payload.nbytes, 1)
    return _Sampled(codec, ratio, payload.error)


def sample_of(tensor: torch.Tensor) -> torch.Tensor:
    """At most ``SAMPLE`` elements as a matrix: runs of neighbouring rows from several places.

    Rows that are too long are cut. A small tensor is its own sample.
    """
    tensor = tensor.detach()
    columns = tensor.shape[-1] if tensor.dim() else 1
    rows = tensor.numel() // columns
    if tensor.numel() <= SAMPLE:
        return read(tensor, 0, tensor.numel()).view(rows, columns)
    run = SAMPLE // _PLACES
    # Whole rows where they are short enough.
    unit = columns if columns <= run else 1
    run -= run % unit
    units = (tensor.numel() - run) // unit
    starts = [units * place // (_PLACES - 1) * unit for place in range(_PLACES)]
    width = columns if unit > 1 or columns == 1 else run
    return torch.cat([read(tensor, start, start + run).view(-1, width) for start in starts])


def _usual() -> list[Codec]:
    """Low rank costs too much to be found in passing, and raw is what remains."""
    return [codec for name, codec in CODECS.items() if name not in ("raw", "lowrank")]


def _check_limits(max_error: float, min_ratio: float) -> None:
    if not max_error >= 0:
        raise ConfigError(
            f"a largest error of {max_error}",
            where="max_error",
            next_step="choose 0.0 for lossless codecs only, or a positive number",
        )
    if not min_ratio >= 1:
        raise ConfigError(
            f"a least ratio of {min_ratio}",
            where="min_ratio",
            next_step="choose 1.0 or more: raw bytes over encoded bytes",
        )
