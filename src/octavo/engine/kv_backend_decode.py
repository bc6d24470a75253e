"""One new token of each of many sequences over their blocks, quantized or exact, all at once.

Every block is a row of its own: its part of the answer comes with the log-sum-exp of its logits,
and the parts of a sequence are joined by them (flash-decoding, Dao et al. 2023). Runs of blocks
that are long enough to be worth a call of their own are read where they lie; short ones of all
sequences are gathered.

Shapes: ``b`` sequences, ``n`` blocks of all of them, ``h`` heads of keys, ``g`` query heads to
each, ``s`` tokens of a block, ``d`` channels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from octavo.engine.attention import kernel_for, over_codes, scratch
from octavo.engine.kv_codes import cast
from octavo.engine.kv_layer import KvLayer, Tile
from octavo.engine.kv_layout import BlockLayout, KvSizes
from octavo.memory.pools import BlockPool

#: Least part of a whole tile, in blocks, that is worth a call of its own beside other sequences.
_OWN_CALL = 4


@dataclass(slots=True)
class _Rows:
    """Blocks of one pool that are looked at: their rows, whose they are, and which tokens count."""

    blocks: list[int] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)

    def add(
        self, owner: int, numbers: list[int], position: int, start: int, end: int, size: int
    ) -> None:
        """Blocks whose first token is at ``position``; of them ``start`` to ``end`` count."""
        for number in numbers:
            low, high = max(start - position, 0), min(end - position, size)
            if low < high:
                self.blocks.append(number)
                self.owners.append(owner)
                self.edges.append((low, high))
            position += size


class _Parts:
    """Answers over some of the tokens, and the log-sum-exp of their logits, in float32."""

    def __init__(self) -> None:
        self.outs: list[torch.Tensor] = []
        self.lses: list[torch.Tensor] = []
        self.owners: list[int] = []

    def add(self, out_nhgd: torch.Tensor, lse_nhg: torch.Tensor, owners: list[int]) -> None:
        self.outs.append(out_nhgd)
        self.lses.append(lse_nhg)
        self.owners += owners

    def joined(self, count: int) -> torch.Tensor:
        """The parts of each sequence, weighted by their share of its probabilities."""
        out_nhgd, lse_nhg = torch.cat(self.outs), torch.cat(self.lses)
        if count == 1:
            return (out_nhgd * lse_nhg.softmax(0)[..., None]).sum(0, keepdim=True)
        owner_n = torch.tensor(self.owners, device=lse_nhg.device)
        top_bhg = lse_nhg.new_full((count, *lse_nhg.shape[1:]), -torch.inf)
        top_bhg.scatter_reduce_(0, owner_n[:, None, None].expand_as(lse_nhg), lse_nhg, "amax")
        weight_nhg = lse_nhg.sub_(top_bhg[owner_n]).exp_()
        sum_bhg = torch.zeros_like(top_bhg).index_add_(0, owner_n, weight_nhg)
        out_bhgd = out_nhgd.new_zeros(*top_bhg.shape, out_nhgd.shape[-1])
        out_bhgd.index_add_(0, owner_n, out_nhgd.mul_(weight_nhg[..., None]))
        return out_bhgd.div_(sum_bhg[..., None])


class Decoding:
    """Args:
    sizes: of blocks.
    full, exact: pools of full blocks and of tails.
    """

    def __init__(self, sizes: KvSizes, full: BlockPool, exact: BlockPool) -> None:
        self._sizes, self._full, self._exact = sizes, full, exact
        layout, rows_nb = sizes.exact, exact.tensor
        self._keys_nhsd = layout.view(rows_nb, "keys")
        self._values_nhsd = layout.view(rows_nb, "values")
        self._seen: tuple[list[tuple[int, int]], torch.Tensor] | None = None

    def attend(
        self,
        layers: list[KvLayer],
        query_bhgd: torch.Tensor,
        keys_bhd: torch.Tensor,
        values_bhd: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        """``[b, h, g, d]`` in float32: each token over all before it and itself.

        Args:
            layers: the same one of each sequence, without the new tokens.

        Raises:
            LostValue, CorruptValue: a lower tier has lost some of the history.
        """
        scaled_bhgd = query_bhgd.float() * scale
        parts, full, tail = _Parts(), _Rows(), _Rows()
        values_bhgd = values_bhd.float()[:, :, None].expand_as(scaled_bhgd)
        own_bhg = (scaled_bhgd * keys_bhd[:, :, None]).sum(-1)
        parts.add(values_bhgd, own_bhg, list(range(len(layers))))
        for number, layer in enumerate(layers):
            for tile in self._history(number, layer, full, tail, alone=len(layers) == 1):
                part = over_codes(scaled_bhgd[number], tile)
                parts.add(part.out_hgtd[None, :, :, 0], part.lse_hgt[None, :, :, 0], [number])
        self._tails(tail, query_bhgd, scale, parts)
        if full.blocks:
            self._blocks(full, scaled_bhgd, parts)
        return parts.joined(len(layers))

    def write(
        self, layers: list[KvLayer], keys_bhd: torch.Tensor, values_bhd: torch.Tensor
    ) -> None:
        """A token behind the last one of each layer, where :meth:`KvSizes.settles`."""
        size = self._sizes.block_tokens
        block_b = [layer.tail[-1].indices[0] for layer in layers]
        place_b = [layer.length % size for layer in layers]
        self._keys_nhsd[block_b, :, place_b] = keys_bhd
        self._values_nhsd[block_b, :, place_b] = values_bhd
        for layer in layers:
            layer.length += 1

    def close(self) -> None:
        """Lets go of the pools' memory."""
        self._keys_nhsd = self._values_nhsd = torch.empty(0)

    def _history(
        self, number: int, layer: KvLayer, full: _Rows, tail: _Rows, *, alone: bool
    ) -> list[Tile]:
        """Tiles to read by themselves; all other blocks are added to ``full`` and ``tail``."""
        sizes, position = self._sizes, layer.first
        size, window = sizes.block_tokens, sizes.shape.window(layer.layer)
        start = 0 if window is None else max(layer.length - window + 1, 0)
        tiles = []
        for extent in layer.extents:
            end = position + extent.count * size
            if end > start:
                if alone or not extent.resident or extent.count * _OWN_CALL >= sizes.tile_blocks:
                    first = max(start, position)
                    tiles.append(Tile(sizes.full, extent.rows(), position, first, end))
                else:
                    full.add(number, extent.numbers, position, start, end, size)
            position = end
        blocks = [block.indices[0] for block in layer.tail]
        tail.add(number, blocks, position, start, layer.length, size)
        return tiles

    def _tails(self, rows: _Rows, query_bhgd: torch.Tensor, scale: float, parts: _Parts) -> None:
        """Exact blocks, as the model computes."""
        if not rows.blocks:
            return
        device = query_bhgd.device
        block_n = torch.tensor(rows.blocks, device=device)
        keys_nhsd = self._keys_nhsd.index_select(0, block_n)
        values_nhsd = self._values_nhsd.index_select(0, block_n)
        query_nhgd = query_bhgd[torch.tensor(rows.owners, device=device)]
        hidden_ns = self._hidden(rows, query_bhgd)
        kernel = kernel_for(query_nhgd)
        if kernel is not None:
            mask_n11s = hidden_ns.to(query_nhgd.dtype)[:, None, None]
            out_nhgd, lse_nhg = kernel(
                query_nhgd, keys_nhsd, values_nhsd, 0.0, False, attn_mask=mask_n11s, scale=scale
            )
            parts.add(out_nhgd.float(), lse_nhg.float(), rows.owners)
            return
        logits_nhgs = torch.matmul(query_nhgd.float() * scale, keys_nhsd.float().mT)
        logits_nhgs += hidden_ns[:, None, None]
        lse_nhg = logits_nhgs.logsumexp(-1)
        weight_nhgs = logits_nhgs.sub_(lse_nhg[..., None]).exp_()
        parts.add(torch.matmul(weight_nhgs, values_nhsd.float()), lse_nhg, rows.owners)

    def _blocks(self, rows: _Rows, scaled_bhgd: torch.Tensor, parts: _Parts) -> None:
        """Full blocks, some at a time."""
        size, device = self._sizes.block_tokens, scaled_bhgd.device
        block_n = torch.tensor(rows.blocks, device=device)
        owner_n = torch.tensor(rows.owners, device=device)
        whole = all(edge == (0, size) for edge in rows.edges)
        hidden_ns = None if whole else self._hidden(rows, scaled_bhgd)
        for first in range(0, len(rows.blocks), self._sizes.tile_blocks):
            some = slice(first, first + self._sizes.tile_blocks)
            out_nhgd, lse_nhg = _over_blocks(
                self._sizes.full,
                self._full.tensor.index_select(0, block_n[some]),
                scaled_bhgd[owner_n[some]],
                None if hidden_ns is None else hidden_ns[some],
            )
            parts.add(out_nhgd, lse_nhg, rows.owners[some])

    def _hidden(self, rows: _Rows, like: torch.Tensor) -> torch.Tensor:
        """0 where a token counts, -inf where not; mostly the same for all layers."""
        if self._seen is None or self._seen[0] != rows.edges:
            edge_n2 = torch.tensor(rows.edges, device=like.device)
            token_s = torch.arange(self._sizes.block_tokens, device=like.device)
            seen_ns = (token_s >= edge_n2[:, :1]) & (token_s < edge_n2[:, 1:])
            hidden_ns = torch.zeros(seen_ns.shape, device=like.device)
            self._seen = rows.edges, hidden_ns.masked_fill_(~seen_ns, -torch.inf)
        return self._seen[1]


def _over_blocks(
    layout: BlockLayout,
    rows_nb: torch.Tensor,
    query_nhgd: torch.Tensor,
    hidden_ns: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A scaled float32 query for each block: answers, and log-sum-exp of logits.

    As :func:`~octavo.engine.attention.over_codes`, codes are cast and not multiplied out.
    """
    n, h, g, d = query_nhgd.shape
    s, exact = layout.tokens, layout.precision == "exact"
    codes_nhsd = scratch((n, h, s, d), torch.float32, rows_nb.device)
    codes_xsd = codes_nhsd.view(n * h, s, d)
    cast(layout, rows_nb, "keys", codes_nhsd)
    if exact:
        logits_xgs = torch.bmm(query_nhgd.flatten(0, 1), codes_xsd.mT)
    else:
        scale_nh1d = layout.view(rows_nb, "key_scale")[:, :, None]
        offset_nhd1 = layout.view(rows_nb, "key_offset").float()[..., None]
        shift_xg1 = torch.matmul(query_nhgd, offset_nhd1).flatten(0, 1)
        logits_xgs = torch.baddbmm(shift_xg1, (query_nhgd * scale_nh1d).flatten(0, 1), codes_xsd.mT)
    if hidden_ns is not None:
        logits_xgs.view(n, h, g, s).add_(hidden_ns[:, None, None])
    lse_xg = logits_xgs.logsumexp(-1)
    weight_xgs = logits_xgs.sub_(lse_xg[..., None]).exp_()
    cast(layout, rows_nb, "values", codes_nhsd)
    out_xgd = _weighted(layout, rows_nb, weight_xgs, codes_xsd)
    return out_xgd.view(n, h, g, d), lse_xg.view(n, h, g)


def _weighted(
    layout: BlockLayout, rows_nb: torch.Tensor, weight_xgs: torch.Tensor, codes_xsd: torch.Tensor
) -> torch.Tensor:
    """Values summed by weight, block by block: ``x`` are blocks and heads."""
    if layout.precision == "exact":
        return torch.bmm(weight_xgs, codes_xsd)
    # By group of channels, ``c``.
    scale_xsc = layout.view(rows_nb, "value_scale").flatten(0, 1)
    offset_xsc = layout.view(rows_nb, "value_offset").flatten(0, 1).float()
    shift_xgc = torch.bmm(weight_xgs, offset_xsc)
    found = [
        torch.baddbmm(shift_xgc[..., c : c + 1], weight_xgs * scale_xsc[:, None, :, c], codes)
        for c, codes in enumerate(codes_xsd.split(layout.group, -1))
    ]
    return found[0] if len(found) == 1 else torch.cat(found, -1)
