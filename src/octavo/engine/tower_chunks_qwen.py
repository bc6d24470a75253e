"""The towers of Qwen2-VL, Qwen2.5-VL and Qwen3-VL in chunks; see :mod:`octavo.engine.tower_chunks`.

Qwen2.5-VL orders patches by windows and lets most layers see within one only; Qwen3-VL adds
learned positions to patches and hands hidden states of some layers on beside the last ones. Where
patches lie is asked of transformers' own functions.

Shape letters: n media, p patches, c patches of a chunk, d width, k width of a head, l taps, t
tokens of all media, w width of the decoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.vision_utils import (
    get_vision_interpolation_indices_and_weights,
    get_vision_position_ids,
    get_vision_window_index,
)

from octavo.engine.tower_chunks import (
    Bring,
    Run,
    Turns,
    Walk,
    in_chunks,
    runs_of,
    slices,
    whole_cells,
)


@torch.inference_mode()
def see_in_chunks(
    tower: nn.Module,
    pixels: Sequence[torch.Tensor],
    grid_n3: torch.Tensor,
    chunk: int,
    bring: Bring = lambda pixels_cx: pixels_cx,
) -> torch.Tensor:
    """What the tower hands on of all media, one after another: shape (l, t, w).

    Args:
        tower: ``model.visual`` of transformers.
        pixels: rows of each medium.
        grid_n3: frames, patches high and wide of each.
        chunk: patches that are taken at once.
    """
    visual: Any = tower
    cell = visual.spatial_merge_size**2
    chunk = whole_cells(chunk, cell)
    order = _Order.of(visual, grid_n3)
    parts = [visual.patch_embed(bring(part)) for part in order.chunks(pixels, chunk)]
    hidden_pd = torch.cat(parts)
    del parts
    _add_positions(visual, hidden_pd, grid_n3, chunk)
    walk = Walk(visual.blocks[0].attn.num_heads, _turns(visual, hidden_pd, grid_n3, order), chunk)
    mergers = {
        number: visual.deepstack_merger_list[place]
        for place, number in enumerate(getattr(visual, "deepstack_visual_indexes", ()))
    }
    taps: list[torch.Tensor] = []
    for number, block in enumerate(visual.blocks):
        walk.layer(block, hidden_pd, order.runs(number))
        if number in mergers:
            taps.append(order.merged(mergers[number], hidden_pd, chunk))
    return torch.stack([order.merged(visual.merger, hidden_pd, chunk), *taps])


@dataclass(frozen=True, slots=True, eq=False)
class _Order:
    """How patches lie while they go through the tower.

    Attributes:
        cell: patches that make one token; they stay together.
        cells_t: number of the token whose patches lie at each place; None: as they are given.
        whole: of frames and pictures.
        windows: in which layers see that are not among ``full``; None where all see all.
    """

    cell: int
    cells_t: torch.Tensor | None
    whole: Sequence[Run]
    windows: Sequence[Run] | None
    full: frozenset[int]

    @classmethod
    def of(cls, visual: Any, grid_n3: torch.Tensor) -> _Order:
        cell = visual.spatial_merge_size**2
        frames = [high * wide for count, high, wide in grid_n3.tolist() for _ in range(count)]
        if not hasattr(visual, "fullatt_block_indexes"):
            return cls(cell, None, runs_of(frames), None, frozenset())
        cells_t, ends = get_vision_window_index(
            grid_n3,
            spatial_merge_size=visual.spatial_merge_size,
            window_size=visual.window_size,
            patch_size=visual.patch_size,
        )
        windows = runs_of(ends.diff().tolist())
        full = frozenset(visual.fullatt_block_indexes)
        return cls(cell, cells_t.to(grid_n3.device), runs_of(frames), windows, full)

    def runs(self, layer: int) -> Sequence[Run]:
        """What sees each other in a layer."""
        return self.whole if self.windows is None or layer in self.full else self.windows

    def chunks(self, pixels: Sequence[torch.Tensor], chunk: int) -> Iterator[torch.Tensor]:
        """Rows of pixels in order; a chunk holds those of one medium."""
        done = 0
        for pixels_px in pixels:
            for rows in slices(len(pixels_px), chunk):
                yield self._ordered(pixels_px, rows, done)
            done += len(pixels_px)

    def _ordered(self, pixels_px: torch.Tensor, rows: slice, before: int) -> torch.Tensor:
        if self.cells_t is None:
            return pixels_px[rows]
        at = slice((before + rows.start) // self.cell, (before + rows.stop) // self.cell)
        cells_t = self.cells_t[at].to(pixels_px.device) - before // self.cell
        return _of_cells(pixels_px, cells_t, self.cell)

    def by_place(self, given_pk: torch.Tensor) -> torch.Tensor:
        """Rows of patches as given, in order."""
        if self.cells_t is None:
            return given_pk
        return _of_cells(given_pk, self.cells_t, self.cell)

    def merged(self, merger: nn.Module, hidden_pd: torch.Tensor, chunk: int) -> torch.Tensor:
        """Tokens of all media as they were given: (t, w)."""
        made_tw = in_chunks(merger, hidden_pd, chunk)
        if self.cells_t is None:
            return made_tw
        return torch.empty_like(made_tw).index_copy_(0, self.cells_t, made_tw)


def _of_cells(given_px: torch.Tensor, cells_t: torch.Tensor, cell: int) -> torch.Tensor:
    """Rows of some cells, cell by cell."""
    rows_tcx = given_px.view(-1, cell, given_px.shape[1])[cells_t]
    return rows_tcx.flatten(0, 1)


def _add_positions(visual: Any, hidden_pd: torch.Tensor, grid_n3: torch.Tensor, chunk: int) -> None:
    """Learned positions, where the tower has them, brought from their square to each grid."""
    if not hasattr(visual, "pos_embed"):
        return
    places_p4, shares_p4 = get_vision_interpolation_indices_and_weights(
        grid_n3,
        num_grid_per_side=visual.num_grid_per_side,
        mode=visual.interpolation_mode,
        align_corners=visual.interpolation_align_corners,
        spatial_merge_size=visual.spatial_merge_size,
    )
    for rows in slices(len(hidden_pd), chunk):
        each_c4d = visual.pos_embed(places_p4[rows]) * shares_p4[rows][:, :, None]
        hidden_pd[rows] += each_c4d.sum(1).to(hidden_pd.dtype)


def _turns(visual: Any, hidden_pd: torch.Tensor, grid_n3: torch.Tensor, order: _Order) -> Turns:
    places_p2 = get_vision_position_ids(grid_n3, visual.spatial_merge_size)
    cos_pk, sin_pk = visual.rotary_pos_emb(hidden_pd, places_p2)
    return order.by_place(cos_pk)[:, None].float(), order.by_place(sin_pk)[:, None].float()
