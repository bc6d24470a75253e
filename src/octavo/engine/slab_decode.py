"""One new token of each of many sequences over their blocks, all at once.

Every block is a row of its own: its part of the answer comes with the log-sum-exp of its logits,
and the parts of a sequence are joined by them (flash-decoding, Dao et al. 2023). So one call of
torch's kernel serves all sequences of a step, however long each is.

Shapes: ``b`` sequences, ``n`` blocks of all of them, ``h`` heads of keys, ``g`` query heads to
each, ``s`` tokens of a block, ``d`` channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from octavo.engine.attention import kernel_for, scratch

if TYPE_CHECKING:
    from octavo.engine.step import Slice

#: Bytes of keys, and as many of values, that are gathered at once.
_TILE: Final = 8 << 20


@dataclass(frozen=True, slots=True, eq=False)
class DecodeRows:
    """Blocks that some sequences look at, in order of sequences.

    Attributes:
        blocks: their numbers; ``block_n`` as a tensor.
        sequence_n: the sequence that each belongs to.
        mask_n11s: 0 where a token counts, -inf where not.
        count: sequences.
    """

    blocks: list[int]
    block_n: torch.Tensor
    sequence_n: torch.Tensor
    mask_n11s: torch.Tensor
    count: int

    @classmethod
    def of(
        cls,
        slices: list[Slice],
        size: int,
        window: int | None,
        dtype: torch.dtype,
        device: torch.device,
    ) -> DecodeRows:
        """
        Args:
            slices: of one token each.
            size: tokens of a block.
            window: newest tokens that a layer sees, the new one included; None is all.
        """
        blocks: list[int] = []
        owners: list[int] = []
        edges: list[tuple[int, int, int]] = []
        for number, part in enumerate(slices):
            first = 0 if window is None else max(part.end - window, 0)
            low, high = first // size, (part.end - 1) // size
            edges.append((len(blocks), 0, first - low * size))
            blocks += part.sequence.blocks[low : high + 1]
            owners += [number] * (high + 1 - low)
            edges.append((len(blocks) - 1, part.end - high * size, size))
        mask_n11s = torch.zeros(len(blocks), 1, 1, size, dtype=dtype)
        for row, start, end in edges:
            mask_n11s[row, ..., start:end] = -torch.inf
        return cls(
            blocks,
            torch.tensor(blocks, device=device),
            torch.tensor(owners, device=device),
            mask_n11s.to(device),
            len(slices),
        )


def attend_decodes(
    kv_n2hsd: torch.Tensor, query_bhgd: torch.Tensor, rows: DecodeRows, scale: float
) -> torch.Tensor:
    """``[b, h, g, d]``: each sequence's token over its blocks, its own place included.

    Args:
        kv_n2hsd: all blocks of one layer.
    """
    one = kv_n2hsd[0, 0].numel() * kv_n2hsd.element_size()
    step = max(_TILE // one, 1)
    parts = [
        _over(kv_n2hsd, query_bhgd, rows, slice(first, first + step), scale)
        for first in range(0, len(rows.blocks), step)
    ]
    out_nhgd = torch.cat([out for out, _ in parts]) if len(parts) > 1 else parts[0][0]
    lse_nhg = torch.cat([lse for _, lse in parts]) if len(parts) > 1 else parts[0][1]
    return _joined(out_nhgd, lse_nhg, rows).to(query_bhgd.dtype)


def _over(
    kv_n2hsd: torch.Tensor,
    query_bhgd: torch.Tensor,
    rows: DecodeRows,
    some: slice,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The part of some blocks: answers, and log-sum-exp of logits in float32."""
    query_nhgd = query_bhgd[rows.sequence_n[some]]
    keys_nhsd, values_nhsd = _blocks(kv_n2hsd, rows, some)
    mask_n11s = rows.mask_n11s[some]
    kernel = kernel_for(query_nhgd)
    if kernel is not None:
        out_nhgd, lse_nhg = kernel(
            query_nhgd, keys_nhsd, values_nhsd, 0.0, False, attn_mask=mask_n11s, scale=scale
        )
        return out_nhgd, lse_nhg.float()
    wide = torch.promote_types(query_nhgd.dtype, torch.float32)
    query_nhgd, values_nhsd = query_nhgd.to(wide) * scale, values_nhsd.to(wide)
    logits_nhgs = torch.matmul(query_nhgd, keys_nhsd.to(wide).transpose(-1, -2))
    logits_nhgs += mask_n11s
    lse_nhg = logits_nhgs.logsumexp(-1)
    weights_nhgs = (logits_nhgs - lse_nhg[..., None]).exp_()
    return torch.matmul(weights_nhgs, values_nhsd), lse_nhg


def _blocks(
    kv_n2hsd: torch.Tensor, rows: DecodeRows, some: slice
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of some blocks; a view where they lie behind each other."""
    blocks = rows.blocks[some]
    first = blocks[0]
    if blocks == list(range(first, first + len(blocks))):
        found_n2hsd = kv_n2hsd[first : first + len(blocks)]
        return found_n2hsd[:, 0], found_n2hsd[:, 1]
    shape = (len(blocks), *kv_n2hsd.shape[2:])
    held_2nhsd = scratch((2, *shape), kv_n2hsd.dtype, kv_n2hsd.device)
    for which in range(2):
        torch.index_select(kv_n2hsd[:, which], 0, rows.block_n[some], out=held_2nhsd[which])
    return held_2nhsd[0], held_2nhsd[1]


def _joined(out_nhgd: torch.Tensor, lse_nhg: torch.Tensor, rows: DecodeRows) -> torch.Tensor:
    """The parts of each sequence, weighted by their share of all its probabilities."""
    if rows.count == len(rows.blocks):
        return out_nhgd
    if rows.count == 1:
        weight_nhg1 = lse_nhg.softmax(0)[..., None]
        return (out_nhgd * weight_nhg1).sum(0, keepdim=True)
    top_bhg = lse_nhg.new_full((rows.count, *lse_nhg.shape[1:]), -torch.inf)
    top_bhg.scatter_reduce_(0, rows.sequence_n[:, None, None].expand_as(lse_nhg), lse_nhg, "amax")
    weight_nhg = (lse_nhg - top_bhg[rows.sequence_n]).exp_()
    sum_bhg = torch.zeros_like(top_bhg).index_add_(0, rows.sequence_n, weight_nhg)
    out_bhgd = weight_nhg.new_zeros(*top_bhg.shape, out_nhgd.shape[-1])
    out_bhgd.index_add_(0, rows.sequence_n, out_nhgd * weight_nhg[..., None])
    return out_bhgd.div_(sum_bhg[..., None])
