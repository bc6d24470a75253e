"""Many new tokens of one sequence over the blocks before them and over each other.

Shapes: ``n`` blocks, ``h`` heads of keys, ``g`` query heads to each, ``t`` new tokens, ``s``
tokens of a block or tile, ``d`` channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from octavo.engine.attention import among_themselves, fused, masked, merge, scratch

if TYPE_CHECKING:
    from octavo.engine.attention import Partial
    from octavo.engine.step import Slice

#: Bytes of keys, and as many of values, that are gathered at once.
_TILE: Final = 8 << 20


def attend_prefill(
    kv_n2hsd: torch.Tensor,
    part: Slice,
    query_hgtd: torch.Tensor,
    keys_htd: torch.Tensor,
    values_htd: torch.Tensor,
    window: int | None,
    scale: float,
) -> torch.Tensor:
    """``[h, g, t, d]``: causal, and within the window.

    Args:
        kv_n2hsd: all blocks of one layer.
        part: the tokens, whose blocks hold all before them.
        keys_htd, values_htd: of the new tokens themselves.
    """
    joined = among_themselves(query_hgtd, keys_htd, values_htd, window, scale)
    size = kv_n2hsd.shape[3]
    one = kv_n2hsd[0, 0].numel() * kv_n2hsd.element_size()
    step = max(_TILE // one, 1) * size
    first = 0 if window is None else max(part.start - window + 1, 0) // size * size
    for low in range(first, part.start, step):
        high = min(low + step, part.start)
        tile = _tile(kv_n2hsd, part.sequence.blocks[low // size : -(-high // size)], high - low)
        joined = merge(joined, _over_tile(query_hgtd, *tile, low, part, window, scale))
    return joined.out_hgtd.to(query_hgtd.dtype)


def _tile(
    kv_n2hsd: torch.Tensor, blocks: list[int], tokens: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of some blocks behind each other, ``[h, s, d]``."""
    _, _, heads, size, d = kv_n2hsd.shape
    held_2hnsd = scratch((2, heads, len(blocks), size, d), kv_n2hsd.dtype, kv_n2hsd.device)
    for place, block in enumerate(blocks):
        held_2hnsd[:, :, place].copy_(kv_n2hsd[block])
    keys_hsd, values_hsd = held_2hnsd.flatten(2, 3)[:, :, :tokens].unbind(0)
    return keys_hsd, values_hsd


def _over_tile(
    query_hgtd: torch.Tensor,
    keys_hsd: torch.Tensor,
    values_hsd: torch.Tensor,
    position: int,
    part: Slice,
    window: int | None,
    scale: float,
) -> Partial:
    """New tokens over older ones, the first of them at ``position``."""
    if window is None or position > part.end - 1 - window:
        return fused(query_hgtd, keys_hsd, values_hsd, scale=scale)
    device = query_hgtd.device
    queries_t = torch.arange(part.start, part.end, device=device)
    tokens_s = torch.arange(position, position + keys_hsd.shape[1], device=device)
    seen_ts = tokens_s > queries_t[:, None] - window
    return masked(query_hgtd, keys_hsd, values_hsd, seen_ts, scale)
