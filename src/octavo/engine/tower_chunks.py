"""dots.ocr's tower with attention and MLP in chunks of patches, for pages of many thousands.

The same sums as the tower's own ``forward``, over fewer rows at a time: equal within rounding.
Hidden states are changed in place, so beside them only queries, keys and values of one layer
stand, and intermediate results of one chunk. torch's flash kernels never hold the scores of all
pairs at once (Dao et al. 2022); cutting the queries bounds them on other kernels too.

Shape letters: p patches, c patches of a chunk, d width, a heads, k width of a head, t tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from octavo.models.native.dots_ocr import Attention, Block, VisionTower

Turns = tuple[torch.Tensor, torch.Tensor]


@torch.inference_mode()
def see_in_chunks(
    tower: VisionTower, pixels_px: torch.Tensor, grid_n3: torch.Tensor, chunk: int
) -> torch.Tensor:
    """As ``tower(pixels_px, grid_n3)``: shape (p / 4, width of the decoder).

    Args:
        pixels_px: rows of all pictures.
        grid_n3: 1, patches high and wide of each.
        chunk: patches that are taken at once.
    """
    merged = tower.settings.spatial_merge_size**2
    chunk = max(chunk // merged, 1) * merged
    hidden_pd = torch.cat(
        [tower.patch_embed(part.to(tower.dtype)) for part in pixels_px.split(chunk)]
    )
    turns = tower.rotary(grid_n3, hidden_pd.device)
    lengths = grid_n3.prod(1).tolist()
    for block in tower.blocks:
        _pass(block, hidden_pd, turns, lengths, chunk)  # type: ignore[arg-type]
    parts = hidden_pd.split(chunk)
    return torch.cat([tower.merger(tower.post_trunk_norm(part)) for part in parts])


def _pass(
    block: Block, hidden_pd: torch.Tensor, turns: Turns, lengths: list[int], chunk: int
) -> None:
    """One layer, over ``hidden_pd`` in place."""
    _attend(block, hidden_pd, turns, lengths, chunk)
    for rows in _slices(0, len(hidden_pd), chunk):
        hidden_pd[rows] += block.mlp(block.norm2(hidden_pd[rows]))


def _attend(
    block: Block, hidden_pd: torch.Tensor, turns: Turns, lengths: list[int], chunk: int
) -> None:
    qkv_3apk = _queries_keys_values(block, hidden_pd, turns, chunk)
    start = 0
    for length in lengths:
        q_apk, k_apk, v_apk = qkv_3apk[:, :, start : start + length].unbind(0)
        for rows in _slices(0, length, chunk):
            seen_apk = functional.scaled_dot_product_attention(
                q_apk[None, :, rows], k_apk[None], v_apk[None]
            )[0]
            out_cd = block.attn.proj(seen_apk.transpose(0, 1).flatten(1))
            hidden_pd[start + rows.start : start + rows.stop] += out_cd
        start += length


def _queries_keys_values(
    block: Block, hidden_pd: torch.Tensor, turns: Turns, chunk: int
) -> torch.Tensor:
    """Of all patches, queries and keys turned: (3, a, p, k)."""
    from octavo.models.native.dots_ocr import turned

    attention: Attention = block.attn
    wide = hidden_pd.shape[1] // attention.heads
    qkv_3apk = hidden_pd.new_empty(3, attention.heads, len(hidden_pd), wide)
    for rows in _slices(0, len(hidden_pd), chunk):
        cut = attention.qkv(block.norm1(hidden_pd[rows]))
        q_cak, k_cak, v_cak = cut.view(len(cut), 3, attention.heads, wide).unbind(1)
        angles = (turns[0][rows], turns[1][rows])
        q_cak, k_cak = turned(q_cak, angles), turned(k_cak, angles)
        for place, made_cak in enumerate((q_cak, k_cak, v_cak)):
            qkv_3apk[place, :, rows] = made_cak.transpose(0, 1)
    return qkv_3apk


def _slices(start: int, stop: int, chunk: int) -> Iterator[slice]:
    for first in range(start, stop, chunk):
        yield slice(first, min(first + chunk, stop))
