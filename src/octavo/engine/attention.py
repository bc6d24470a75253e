"""Attention over blocks of keys and values, one tile at a time.

The history is never expanded: a tile of at most some hundred tokens is turned into numbers, its
part of the answer is computed, and the parts are joined by their log-sum-exp (online softmax,
Milakov & Gimelshein 2018; FlashAttention, Dao et al. 2022). For a single new token codes are not
even multiplied out: scales of keys go into the query, scales of values into the probabilities.

Shapes: ``h`` heads of keys, ``g`` query heads to each, ``t`` new tokens, ``r`` rows (``g * t``),
``n`` blocks, ``s`` tokens of a block or tile, ``d`` channels.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from octavo.engine.kv_codes import cast, decode
from octavo.engine.kv_layer import KvLayer, Tile

#: Rows of a window's queries, and of queries without a fused kernel, that are looked at at once.
_ROWS = 512
_held = threading.local()


@dataclass(frozen=True, slots=True)
class Partial:
    """The answer of some tokens: ``out_hgtd`` float32, and log-sum-exp ``lse_hgt`` of logits."""

    out_hgtd: torch.Tensor
    lse_hgt: torch.Tensor


def attend(
    layer: KvLayer,
    query_hgtd: torch.Tensor,
    keys_htd: torch.Tensor,
    values_htd: torch.Tensor,
    *,
    scale: float,
) -> torch.Tensor:
    """New tokens over all tokens before them and over each other, causally.

    The new ones are not in the layer yet: append them afterwards. A layer with a window sees no
    further than that.

    Returns:
        ``[h, g, t, d]`` in the dtype of the query.

    Raises:
        LostValue, CorruptValue: a lower tier has lost some of the history.
    """
    tokens = query_hgtd.shape[2]
    position, window = layer.length, layer.sizes.shape.window(layer.layer)
    start = 0 if window is None else max(position - window + 1, 0)
    parts: Iterator[Partial]
    if tokens == 1:
        query_hgd = query_hgtd[:, :, 0].float() * scale
        parts = (over_codes(query_hgd, tile) for tile in layer.tiles(start))
    else:
        last = position + tokens - 1
        parts = (
            _over_tile(query_hgtd, tile, position, last, window, scale)
            for tile in layer.tiles(start)
        )
    joined = among_themselves(query_hgtd, keys_htd, values_htd, window, scale)
    for part in parts:
        joined = merge(joined, part)
    return joined.out_hgtd.to(query_hgtd.dtype)


def merge(one: Partial, other: Partial) -> Partial:
    """The answer over the tokens of both. A part that saw nothing has ``lse`` of -inf."""
    lse_hgt = torch.logaddexp(one.lse_hgt, other.lse_hgt)
    weight_hgt = torch.exp(one.lse_hgt - lse_hgt)[..., None]
    other_hgt = torch.exp(other.lse_hgt - lse_hgt)[..., None]
    return Partial(one.out_hgtd * weight_hgt + other.out_hgtd * other_hgt, lse_hgt)


# One new token.


def over_codes(query_hgd: torch.Tensor, tile: Tile) -> Partial:
    """A token over a tile whose codes are only cast; ``query_hgd`` is float32 and scaled."""
    layout, h, d = tile.layout, query_hgd.shape[0], query_hgd.shape[2]
    n, s = tile.rows_nb.shape[0], layout.tokens
    codes_hnsd = scratch((h, n, s, d), torch.float32, query_hgd.device)
    cast(layout, tile.rows_nb, "keys", codes_hnsd.transpose(0, 1))
    if layout.precision == "exact":
        logits_hgs = torch.bmm(query_hgd, codes_hnsd.view(h, n * s, d).transpose(1, 2))
    else:
        logits_hgs = _logits(query_hgd, codes_hnsd, tile)
    # What lies in the blocks before the window or behind the last token.
    logits_hgs[..., : tile.start - tile.position] = -torch.inf
    logits_hgs[..., tile.end - tile.position :] = -torch.inf
    top_hg1 = logits_hgs.amax(-1, keepdim=True)
    weight_hgs = logits_hgs.sub_(top_hg1).exp_()
    sum_hg1 = weight_hgs.sum(-1, keepdim=True)
    cast(layout, tile.rows_nb, "values", codes_hnsd.transpose(0, 1))
    out_hgd = _weighted(weight_hgs, codes_hnsd.view(h, n * s, d), tile)
    return Partial(out_hgd.div_(sum_hg1)[:, :, None], sum_hg1.log_().add_(top_hg1))


def _logits(query_hgd: torch.Tensor, codes_hnsd: torch.Tensor, tile: Tile) -> torch.Tensor:
    """Products with quantized keys: their scales are multiplied into the query, by block."""
    (h, g, d), (n, s) = query_hgd.shape, codes_hnsd.shape[1:3]
    scale_hn1d = tile.layout.view(tile.rows_nb, "key_scale").transpose(0, 1)[:, :, None]
    offset_hdn = tile.layout.view(tile.rows_nb, "key_offset").permute(1, 2, 0).float()
    scaled = (query_hgd[:, None] * scale_hn1d).reshape(h * n, g, d)
    products = torch.bmm(scaled, codes_hnsd.view(h * n, s, d).transpose(1, 2))
    logits_hgns = products.new_empty(h, g, n, s)
    products_hgns = products.view(h, n, g, s).transpose(1, 2)
    torch.add(products_hgns, torch.bmm(query_hgd, offset_hdn)[..., None], out=logits_hgns)
    return logits_hgns.view(h, g, n * s)


def _weighted(weight_hgs: torch.Tensor, codes_hsd: torch.Tensor, tile: Tile) -> torch.Tensor:
    """Values summed by weight, ``[h, g, d]``: their scales are multiplied into the weights."""
    if tile.layout.precision == "exact":
        return torch.bmm(weight_hgs, codes_hsd)
    # Blocks of tokens → tokens, by group of channels: [h, tokens, groups].
    view = tile.layout.view
    scale_hsx = view(tile.rows_nb, "value_scale").transpose(0, 1).flatten(1, 2)
    offset_hsx = view(tile.rows_nb, "value_offset").transpose(0, 1).flatten(1, 2).float()
    shift_hgx = torch.bmm(weight_hgs, offset_hsx)
    parts = [
        torch.bmm(weight_hgs * scale_hsx[:, None, :, x], codes_hsx).add_(shift_hgx[..., x : x + 1])
        for x, codes_hsx in enumerate(codes_hsd.split(tile.layout.group, -1))
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


# Many new tokens.


def _over_tile(
    query_hgtd: torch.Tensor,
    tile: Tile,
    position: int,
    last: int,
    window: int | None,
    scale: float,
) -> Partial:
    """New tokens at ``position`` to ``last`` over older ones."""
    keys_hsd = _expanded(tile, "keys", query_hgtd.dtype)
    values_hsd = _expanded(tile, "values", query_hgtd.dtype)
    if window is None or tile.start > last - window:
        return fused(query_hgtd, keys_hsd, values_hsd, scale=scale)
    device = query_hgtd.device
    queries_t = torch.arange(position, last + 1, device=device)
    tokens_s = torch.arange(tile.start, tile.end, device=device)
    seen_ts = tokens_s > queries_t[:, None] - window
    return masked(query_hgtd, keys_hsd, values_hsd, seen_ts, scale)


def _expanded(tile: Tile, name: str, dtype: torch.dtype) -> torch.Tensor:
    """The tile's keys or values, ``[h, s, d]``."""
    shape, n, s = tile.layout.shape, tile.rows_nb.shape[0], tile.layout.tokens
    sizes = (shape.kv_heads, n, s, shape.head_dim)
    numbers_hnsd = scratch(sizes, torch.float32, tile.rows_nb.device)
    decode(tile.layout, tile.rows_nb, name, numbers_hnsd.transpose(0, 1))
    numbers_hsd = numbers_hnsd.flatten(1, 2)[
        :, tile.start - tile.position : tile.end - tile.position
    ]
    return numbers_hsd.to(dtype, copy=True)


def scratch(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Undefined memory of this thread; the next call for this type hands the same out again.

    Fresh memory of this size would cost more than what is done with it.
    """
    count = math.prod(shape)
    name = f"{device} {dtype}"
    held: torch.Tensor | None = getattr(_held, name, None)
    if held is None or held.numel() < count:
        # Made under inference mode it could never be written outside of it.
        with torch.inference_mode(False):
            held = torch.empty(count, dtype=dtype, device=device)
        setattr(_held, name, held)
    return held[:count].view(shape)


def among_themselves(
    query_hgtd: torch.Tensor,
    keys_htd: torch.Tensor,
    values_htd: torch.Tensor,
    window: int | None,
    scale: float,
) -> Partial:
    """New tokens over each other: causal, and within the window."""
    tokens = keys_htd.shape[1]
    if window is None or tokens <= window:
        return fused(query_hgtd, keys_htd, values_htd, scale=scale, causal=tokens > 1)
    parts = []
    for first in range(0, tokens, _ROWS):
        last = min(first + _ROWS, tokens)
        start = max(first - window + 1, 0)
        queries_t = torch.arange(first, last, device=keys_htd.device)[:, None]
        tokens_s = torch.arange(start, last, device=keys_htd.device)
        seen_ts = (tokens_s <= queries_t) & (tokens_s > queries_t - window)
        rows_hgtd = query_hgtd[:, :, first:last]
        keys_hsd, values_hsd = keys_htd[:, start:last], values_htd[:, start:last]
        parts.append(masked(rows_hgtd, keys_hsd, values_hsd, seen_ts, scale))
    return Partial(
        torch.cat([part.out_hgtd for part in parts], 2),
        torch.cat([part.lse_hgt for part in parts], 2),
    )


def fused(
    query_hgtd: torch.Tensor,
    keys_hsd: torch.Tensor,
    values_hsd: torch.Tensor,
    *,
    scale: float,
    causal: bool = False,
) -> Partial:
    """Everybody sees everything, or what is not after it; by torch's kernel where it has one."""
    kernel = kernel_for(query_hgtd)
    tokens = query_hgtd.shape[2]
    if kernel is None:
        seen_ts = None
        if causal:
            ones = torch.ones(tokens, tokens, dtype=torch.bool, device=query_hgtd.device)
            seen_ts = ones.tril_()
        return masked(query_hgtd, keys_hsd, values_hsd, seen_ts, scale)
    # Heads of keys are the batch, so that query heads share them without a copy.
    shape = (*query_hgtd.shape[:2], *keys_hsd.shape[1:])
    out_hgtd, lse_hgt = kernel(
        query_hgtd,
        keys_hsd[:, None].expand(shape),
        values_hsd[:, None].expand(shape),
        0.0,
        causal,
        scale=scale,
    )
    return Partial(out_hgtd.float(), lse_hgt.float())


def kernel_for(query: torch.Tensor) -> Callable[..., tuple[torch.Tensor, torch.Tensor]] | None:
    """Attention that also returns its log-sum-exp; torch has a stable one for CPUs only."""
    if query.device.type != "cpu" or query.dtype is torch.float64:
        return None
    found: Callable[..., tuple[torch.Tensor, torch.Tensor]] | None = getattr(
        torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None
    )
    return found


def masked(
    query_hgtd: torch.Tensor,
    keys_hsd: torch.Tensor,
    values_hsd: torch.Tensor,
    seen_ts: torch.Tensor | None,
    scale: float,
) -> Partial:
    """The plain way, in float32 and some rows at a time; a row may see nothing."""
    keys_h1ds = keys_hsd.float().transpose(1, 2)[:, None]
    values_h1sd = values_hsd.float()[:, None]
    out_hgtd = torch.empty_like(query_hgtd, dtype=torch.float32)
    lse_hgt = out_hgtd.new_empty(out_hgtd.shape[:3])
    for first in range(0, query_hgtd.shape[2], _ROWS):
        rows = slice(first, first + _ROWS)
        logits_hgts = torch.matmul(query_hgtd[:, :, rows].float() * scale, keys_h1ds)
        if seen_ts is not None:
            logits_hgts.masked_fill_(~seen_ts[rows], -torch.inf)
        lse_hgr = torch.logsumexp(logits_hgts, -1)
        lse_hgt[:, :, rows] = lse_hgr
        shown = lse_hgr.masked_fill(lse_hgr == -torch.inf, 0.0)
        weight_hgts = logits_hgts.sub_(shown[..., None]).exp_()
        out_hgtd[:, :, rows] = torch.matmul(weight_hgts, values_h1sd)
    return Partial(out_hgtd, lse_hgt)
