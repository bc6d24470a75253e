"""Vision towers with attention and MLP in chunks of patches, for pages of many thousands.

The same sums as a tower's own ``forward``, over fewer rows at a time: equal within rounding.
Hidden states are changed in place, so beside them only queries, keys and values of one layer
stand, and intermediate results of one chunk. torch's flash kernels never hold the scores of all
pairs at once (Dao et al. 2022); cutting the queries bounds them on other kernels too. Windows and
frames of equal size are attended to together, where a tower's own code takes one after another.

Layers are called, not looked into: what reads the weights of a layer just before it runs
(:mod:`octavo.models.streaming`) is told as ever.

Shape letters: p patches, c patches of a chunk, n segments, s patches of a segment, d width, a
heads, k width of a head, l taps, t tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from octavo.models.native.dots_ocr import VisionTower, turned

#: Cosines and sines by patch, (p, 1, k) in float32.
Turns = tuple[torch.Tensor, torch.Tensor]
#: Brings rows of pixels to where the tower is, in the type that it takes.
Bring = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Run:
    """Segments of equal length that follow each other; patches see their own segment alone."""

    start: int
    length: int
    count: int


@dataclass(frozen=True, slots=True)
class Walk:
    """How all layers of a pass are walked.

    Attributes:
        heads: of attention.
        turns: of all patches.
        chunk: patches that are taken at once.
    """

    heads: int
    turns: Turns
    chunk: int

    def layer(self, block: nn.Module, hidden_pd: torch.Tensor, runs: Sequence[Run]) -> None:
        """One layer of a tower, over ``hidden_pd`` in place.

        Args:
            block: with ``norm1``, ``attn`` of ``qkv`` and ``proj``, ``norm2`` and ``mlp``.
        """
        # Through ``__call__``: hooks bring the layer's weights and take them away.
        block.forward = functools.partial(self._pass, block)
        try:
            block(hidden_pd, runs)
        finally:
            del block.forward

    def _pass(self, block: Any, hidden_pd: torch.Tensor, runs: Sequence[Run]) -> None:
        self._attend(block, hidden_pd, runs)
        for rows in slices(len(hidden_pd), self.chunk):
            hidden_pd[rows] += block.mlp(block.norm2(hidden_pd[rows]))

    def _attend(self, block: Any, hidden_pd: torch.Tensor, runs: Sequence[Run]) -> None:
        qkv_3apk = self._queries_keys_values(block, hidden_pd)
        for run in runs:
            for first, count in _together(run, self.chunk):
                self._attend_segments(block, hidden_pd, qkv_3apk, first, run.length, count)

    def _attend_segments(
        self,
        block: Any,
        hidden_pd: torch.Tensor,
        qkv_3apk: torch.Tensor,
        first: int,
        length: int,
        count: int,
    ) -> None:
        mine = slice(first, first + count * length)
        segments_3nask = qkv_3apk[:, :, mine].unflatten(2, (count, length)).transpose(1, 2)
        q_nask, k_nask, v_nask = segments_3nask.unbind(0)
        hidden_nsd = hidden_pd[mine].view(count, length, -1)
        for rows in slices(length, max(self.chunk // count, 1)):
            seen_nask = functional.scaled_dot_product_attention(q_nask[:, :, rows], k_nask, v_nask)
            hidden_nsd[:, rows] += block.attn.proj(seen_nask.transpose(1, 2).flatten(2))

    def _queries_keys_values(self, block: Any, hidden_pd: torch.Tensor) -> torch.Tensor:
        """Of all patches, queries and keys turned: (3, a, p, k)."""
        wide = hidden_pd.shape[1] // self.heads
        qkv_3apk = hidden_pd.new_empty(3, self.heads, len(hidden_pd), wide)
        for rows in slices(len(hidden_pd), self.chunk):
            cut = block.attn.qkv(block.norm1(hidden_pd[rows]))
            q_cak, k_cak, v_cak = cut.view(len(cut), 3, self.heads, wide).unbind(1)
            angles = (self.turns[0][rows], self.turns[1][rows])
            made = (turned(q_cak, angles), turned(k_cak, angles), v_cak)
            for place, made_cak in enumerate(made):
                qkv_3apk[place, :, rows] = made_cak.transpose(0, 1)
        return qkv_3apk


def _together(run: Run, chunk: int) -> Iterator[tuple[int, int]]:
    """Where to begin, and how many segments to take at once: no more patches than a chunk, but
    one segment at least."""
    most = max(chunk // run.length, 1)
    for done in range(0, run.count, most):
        yield run.start + done * run.length, min(most, run.count - done)


def in_chunks(module: nn.Module, rows_px: torch.Tensor, chunk: int) -> torch.Tensor:
    """What a module makes of rows, of a chunk at a time, in one call: its weights come once."""
    plain = module.forward

    def each(whole_px: torch.Tensor) -> torch.Tensor:
        return torch.cat([plain(part_cx) for part_cx in whole_px.split(chunk)])

    module.forward = each
    try:
        made: torch.Tensor = module(rows_px)
    finally:
        del module.forward
    return made


def runs_of(lengths: Sequence[int]) -> list[Run]:
    """Segments that follow each other, those of equal length as one run."""
    found: list[Run] = []
    start = 0
    for length, same in groupby(lengths):
        count = len(list(same))
        found.append(Run(start, length, count))
        start += length * count
    return found


def slices(stop: int, chunk: int) -> Iterator[slice]:
    """From 0 to ``stop`` in steps of ``chunk``."""
    for first in range(0, stop, chunk):
        yield slice(first, min(first + chunk, stop))


def whole_cells(chunk: int, merged: int) -> int:
    """A chunk of whole tokens: ``merged`` patches make one."""
    return max(chunk // merged, 1) * merged


@torch.inference_mode()
def see_in_chunks(
    tower: VisionTower,
    pixels: Sequence[torch.Tensor],
    grid_n3: torch.Tensor,
    chunk: int,
    bring: Bring = lambda pixels_cx: pixels_cx,
) -> torch.Tensor:
    """As dots.ocr's ``tower(torch.cat(pixels), grid_n3)``: shape (t, width of the decoder).

    Args:
        pixels: rows of each picture.
        grid_n3: 1, patches high and wide of each.
        chunk: patches that are taken at once.
    """
    chunk = whole_cells(chunk, tower.settings.spatial_merge_size**2)
    parts = [
        tower.patch_embed(bring(part).to(tower.dtype))
        for pixels_px in pixels
        for part in pixels_px.split(chunk)
    ]
    hidden_pd = torch.cat(parts)
    del parts
    turns = tower.rotary(grid_n3, hidden_pd.device)
    walk = Walk(tower.settings.num_attention_heads, turns, chunk)
    runs = runs_of(grid_n3.prod(1).tolist())
    for block in tower.blocks:
        walk.layer(block, hidden_pd, runs)
    merged = [tower.merger(tower.post_trunk_norm(part)) for part in hidden_pd.split(chunk)]
    return torch.cat(merged)
