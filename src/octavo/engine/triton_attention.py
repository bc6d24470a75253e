"""Attention over blocks of keys and values on a CUDA device, by kernels that find blocks by number.

Nothing is gathered and no code is expanded in memory: what a call allocates is its answer and, for
decodes, a part of it for each piece of the history. Triton is loaded with the first call.

Shapes: ``b`` sequences, ``h`` heads of keys, ``g`` query heads to each, ``t`` new tokens of all
sequences behind each other, ``n`` blocks, ``s`` tokens of a block, ``d`` channels, ``m`` tiles of
new tokens. Keys and values are ``[n, h, s, d]`` with any strides but for channels, which lie behind
each other: slots ``[h, n * s, d]`` are that by ``unflatten(1, (-1, s)).transpose(0, 1)``.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch

from octavo.engine.kv_layout import BITS, BlockLayout
from octavo.errors import ConfigError

#: Least compute capability: tensor cores that Triton compiles for, and bfloat16.
_LEAST: Final = (8, 0)
_DTYPES: Final = (torch.bfloat16, torch.float16, torch.float32)
#: Of keys, and as many of values, that a program holds at once; two of each fit every device.
_TILE_BYTES: Final = 16 << 10
#: Lines of codes that a program turns into numbers at once; more do not fit its registers.
_CODE_LINES: Final = 32
#: Fewest rows and columns of a matrix product in Triton.
_LEAST_SIDE: Final = 16
_PREFILL_ROWS: Final = 64
#: Tokens that are worth a program of their own, and most programs for one history.
_PART_TOKENS: Final = 256
_MOST_PARTS: Final = 64
_EVERYTHING: Final = 2**31 - 1


def available(device: torch.device | str) -> bool:
    """Whether the kernels run there: NVIDIA, compute capability 8.0, Triton installed."""
    device = torch.device(device)
    if device.type != "cuda" or torch.version.hip is not None or not torch.cuda.is_available():
        return False
    if importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= _LEAST


@dataclass(frozen=True, slots=True, eq=False)
class Histories:
    """What the new token of each sequence looks at. All are ``int32`` on the device.

    Attributes:
        table_bn: numbers of the blocks of each sequence, in order; what is behind the last block
            is never read.
        lengths_b: tokens in those blocks that count, the new one included where it is among them.
        first_b: the first token that counts: more than 0 with a window.
    """

    table_bn: torch.Tensor
    lengths_b: torch.Tensor
    first_b: torch.Tensor

    @classmethod
    def of(
        cls, table_bn: torch.Tensor, lengths_b: torch.Tensor, window: int | None = None
    ) -> Histories:
        """
        Args:
            window: newest tokens that are seen, the last one included; None sees all.
        """
        if window is None:
            return cls(table_bn, lengths_b, torch.zeros_like(lengths_b))
        return cls(table_bn, lengths_b, (lengths_b - window).clamp_(min=0))


@dataclass(frozen=True, slots=True, eq=False)
class NewTokens:
    """Where new tokens of some sequences lie in one row, for all layers of a step. All tensors are
    ``int32`` on the device.

    Attributes:
        begins_b: their places in the row, and the end of the last.
        lengths_b: tokens of each sequence, the new ones included.
        sequence_m, first_m: the sequence and the first place of each tile.
        rows: of a tile.
    """

    begins_b: torch.Tensor
    lengths_b: torch.Tensor
    sequence_m: torch.Tensor
    first_m: torch.Tensor
    rows: int

    @classmethod
    def of(
        cls,
        counts: Sequence[int],
        lengths: Sequence[int],
        *,
        group: int,
        device: torch.device | str,
    ) -> NewTokens:
        """
        Args:
            counts: new tokens of each sequence, in the order of the row.
            lengths: tokens of each sequence, the new ones included.
            group: query heads to a head of keys.
        """
        rows = max(_PREFILL_ROWS, _power(group))
        begins = [0]
        sequences: list[int] = []
        firsts: list[int] = []
        for sequence, count in enumerate(counts):
            places = range(begins[-1], begins[-1] + count, rows // group)
            firsts += places
            sequences += [sequence] * len(places)
            begins.append(begins[-1] + count)
        numbers = torch.tensor([*begins, *lengths, *sequences, *firsts], dtype=torch.int32).to(
            device
        )
        parts = (len(begins), len(lengths), len(sequences), len(firsts))
        begins_b, lengths_b, sequence_m, first_m = numbers.split(parts)
        return cls(begins_b, lengths_b, sequence_m, first_m, rows)


def decode(
    query_bhgd: torch.Tensor,
    keys_nhsd: torch.Tensor,
    values_nhsd: torch.Tensor,
    histories: Histories,
    *,
    scale: float,
    parts: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One new token of each sequence over its blocks.

    Args:
        scale: of the logits.
        parts: pieces of each history that are computed at the same time; as many as the device
            has use for by default.

    Returns:
        ``[b, h, g, d]`` in the dtype of the query, and the log-sum-exp of logits ``[b, h, g]`` in
        float32; -inf, and zeros, for a sequence that sees nothing.

    Raises:
        ConfigError: dtypes or strides that the kernels do not take.
    """
    _check(query_bhgd, keys_nhsd, values_nhsd)
    from octavo.engine import triton_kernels as kernels

    b, h, g, d = query_bhgd.shape
    size, width = keys_nhsd.shape[2], _power(d)
    parts = parts or _parts(query_bhgd, histories, size)
    out_bhpgd, lse_bhpg = _room(query_bhgd, parts)
    with torch.cuda.device_of(query_bhgd):
        kernels.decode_exact[b, h, parts](
            query_bhgd, keys_nhsd, values_nhsd,
            histories.table_bn, histories.first_b, histories.lengths_b,
            out_bhpgd, lse_bhpg, scale * kernels.LOG2E,
            *query_bhgd.stride()[:3], *keys_nhsd.stride()[:3], *values_nhsd.stride()[:3],
            histories.table_bn.stride(0),
            PARTS=parts, SIZE=size, G=g, D=d, ROWS=_power(g), WIDTH=width,
            TILE=_tile(width, keys_nhsd.element_size()), PRECISION=_precision(query_bhgd.dtype),
            num_warps=4, num_stages=_stages(query_bhgd.dtype),
        )  # fmt: skip
    return _merged(query_bhgd, out_bhpgd, lse_bhpg)


def decode_quantized(
    query_bhgd: torch.Tensor,
    rows_nb: torch.Tensor,
    layout: BlockLayout,
    histories: Histories,
    *,
    scale: float,
    parts: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As :func:`decode`, over full blocks of codes; what else a sequence has is for the caller to
    merge by the log-sum-exp.

    Args:
        rows_nb: ``uint8``, a block of one layer in each row; the table has rows' numbers.
        layout: of the blocks: int8 or int4.
    """
    if layout.precision == "exact":
        raise ConfigError("exact blocks have no codes", where="KV cache", next_step="use decode()")
    if rows_nb.dtype is not torch.uint8 or rows_nb.stride(1) != 1 or rows_nb.stride(0) % 2:
        raise ConfigError("blocks are rows of bytes, of an even number", where="KV cache")
    _check(query_bhgd)
    from octavo.engine import triton_kernels as kernels

    b, h, g, d = query_bhgd.shape
    places = {name: part.offset for name, part in layout.parts.items()}
    bits = BITS[layout.precision]
    parts = parts or _parts(query_bhgd, histories, layout.tokens)
    out_bhpgd, lse_bhpg = _room(query_bhgd, parts)
    with torch.cuda.device_of(query_bhgd):
        kernels.decode_codes[b, h, parts](
            query_bhgd, rows_nb, rows_nb.view(torch.float16),
            histories.table_bn, histories.first_b, histories.lengths_b,
            out_bhpgd, lse_bhpg, scale * kernels.LOG2E,
            *query_bhgd.stride()[:3], rows_nb.stride(0), histories.table_bn.stride(0),
            KEYS=places["keys"], VALUES=places["values"],
            KEY_SCALE=places["key_scale"], KEY_OFFSET=places["key_offset"],
            VALUE_SCALE=places["value_scale"], VALUE_OFFSET=places["value_offset"],
            GROUP=layout.group, BITS=bits, PARTS=parts, SIZE=layout.tokens, G=g, D=d,
            ROWS=_power(g), WIDTH=_power(d),
            TILE=min(_power(layout.tokens * bits // 8), _CODE_LINES),
            PRECISION=_precision(query_bhgd.dtype),
            num_warps=4, num_stages=_stages(query_bhgd.dtype),
        )  # fmt: skip
    return _merged(query_bhgd, out_bhpgd, lse_bhpg)


def prefill(
    query_thgd: torch.Tensor,
    keys_nhsd: torch.Tensor,
    values_nhsd: torch.Tensor,
    table_bn: torch.Tensor,
    new: NewTokens,
    *,
    scale: float,
    window: int | None = None,
) -> torch.Tensor:
    """New tokens of several sequences, each over its sequence up to itself: ``[t, h, g, d]``.

    Args:
        keys_nhsd, values_nhsd: with the new tokens in them already.
        table_bn: ``int32``, numbers of the blocks of each sequence, in order.
        window: newest tokens that each sees, itself included; None sees all.

    Raises:
        ConfigError: dtypes or strides that the kernel does not take.
    """
    _check(query_thgd, keys_nhsd, values_nhsd)
    from octavo.engine import triton_kernels as kernels

    _, h, g, d = query_thgd.shape
    width = _power(d)
    out_thgd = torch.empty(query_thgd.shape, dtype=query_thgd.dtype, device=query_thgd.device)
    with torch.cuda.device_of(query_thgd):
        kernels.prefill[len(new.first_m), h](
            query_thgd, keys_nhsd, values_nhsd, table_bn,
            new.begins_b, new.lengths_b, new.sequence_m, new.first_m, out_thgd,
            scale * kernels.LOG2E,
            *query_thgd.stride()[:3], *keys_nhsd.stride()[:3], *values_nhsd.stride()[:3],
            table_bn.stride(0), _EVERYTHING if window is None else window,
            SIZE=keys_nhsd.shape[2], G=g, D=d, ROWS=new.rows, WIDTH=width,
            TILE=_tile(width, keys_nhsd.element_size()), PRECISION=_precision(query_thgd.dtype),
            num_warps=8 if width * query_thgd.element_size() > 256 else 4,
            num_stages=_stages(query_thgd.dtype),
        )  # fmt: skip
    return out_thgd


def _merged(
    query_bhgd: torch.Tensor, out_bhpgd: torch.Tensor, lse_bhpg: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    from octavo.engine import triton_kernels as kernels

    b, h, parts, g, d = out_bhpgd.shape
    out_bhgd = torch.empty((b, h, g, d), dtype=query_bhgd.dtype, device=query_bhgd.device)
    lse_bhg = lse_bhpg.new_empty(b, h, g)
    with torch.cuda.device_of(out_bhpgd):
        kernels.merge[b * h, g](
            out_bhpgd, lse_bhpg, out_bhgd, lse_bhg,
            PARTS=parts, P=1 << (parts - 1).bit_length(), G=g, D=d, WIDTH=_power(d),
        )  # fmt: skip
    return out_bhgd, lse_bhg


def _room(query_bhgd: torch.Tensor, parts: int) -> tuple[torch.Tensor, torch.Tensor]:
    b, h, g, d = query_bhgd.shape
    out_bhpgd = torch.empty((b, h, parts, g, d), dtype=torch.float32, device=query_bhgd.device)
    return out_bhpgd, out_bhpgd.new_empty(b, h, parts, g)


def _parts(query_bhgd: torch.Tensor, histories: Histories, size: int) -> int:
    """Enough programs for the device, none of which has less to do than it costs to start.

    The longest history is taken from the width of the table: to ask for the lengths would have
    the processor wait for the device.
    """
    b, h = query_bhgd.shape[:2]
    longest = histories.table_bn.shape[1] * size
    wanted = -(-2 * _processors(query_bhgd.device) // (b * h))
    return max(min(wanted, -(-longest // _PART_TOKENS), _MOST_PARTS), 1)


@functools.cache
def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def _check(query: torch.Tensor, *kv_nhsd: torch.Tensor) -> None:
    wrong = query.dtype not in _DTYPES or any(part.dtype != query.dtype for part in kv_nhsd)
    if wrong or any(part.stride(-1) != 1 for part in (query, *kv_nhsd)):
        said = ", ".join(f"{part.dtype} {part.stride()}" for part in (query, *kv_nhsd))
        raise ConfigError(
            f"queries, keys and values of these types and strides: {said}",
            where="Triton attention",
            next_step="give bf16, fp16 or fp32, all alike, with channels behind each other",
        )


def _tile(width: int, itemsize: int) -> int:
    return max(min(_TILE_BYTES // (width * itemsize), 128), _LEAST_SIDE)


def _power(number: int) -> int:
    """The side of a matrix that holds so many rows."""
    return max(1 << (number - 1).bit_length(), _LEAST_SIDE)


def _precision(dtype: torch.dtype) -> str:
    # Three products of the tensor cores have the accuracy of float32, and take its place.
    return "tf32x3" if dtype is torch.float32 else "tf32"


def _stages(dtype: torch.dtype) -> int:
    """Tiles on their way at once. Float32 needs three times its size in shared memory."""
    return 1 if dtype is torch.float32 else 2
