"""Small caches, and attention in float64 to compare with."""

from __future__ import annotations

import torch

from octavo.engine.kv import KvSequence, KvShape, KvSizes, PagedKV
from octavo.engine.kv_extent import KvStore
from octavo.engine.kv_layout import KvPrecision
from octavo.memory.ledger import Ledger

HEADS, GROUP, DIM, BLOCK, RECENT = 2, 3, 32, 8, 12


def shape(
    layers: int = 2, windows: tuple[int | None, ...] = (), dtype: torch.dtype = torch.float32
) -> KvShape:
    return KvShape(layers, HEADS, DIM, dtype, windows)


def sizes(precision: KvPrecision = "int8", *, of: KvShape | None = None) -> KvSizes:
    return KvSizes(of or shape(), precision, BLOCK, RECENT)


def cache(
    wanted: KvSizes,
    tokens: int = 300,
    *,
    sequences: int = 1,
    store: KvStore | None = None,
    ledger: Ledger | None = None,
    max_length: int | None = None,
) -> PagedKV:
    budget = wanted.nbytes_for(tokens, sequences)
    return PagedKV(
        ledger or Ledger({"device": budget}),
        wanted,
        budget=budget,
        sequences=sequences,
        store=store,
        max_length=max_length,
    )


class Stream:
    """Keys, values and queries of one sequence, made beforehand: ``[layers, heads, t, d]``."""

    def __init__(self, tokens: int, layers: int = 2, seed: int = 0) -> None:
        random = torch.Generator().manual_seed(seed)
        size = (layers, HEADS, tokens, DIM)
        # Channels that lie far from zero, as those of real keys do.
        offset = torch.randn(layers, HEADS, 1, DIM, generator=random) * 3
        self.keys = torch.randn(size, generator=random) + offset
        self.values = torch.randn(size, generator=random)
        query = (layers, HEADS, GROUP, tokens, DIM)
        self.queries = torch.randn(query, generator=random) * 0.3

    def append(self, sequence: KvSequence, count: int) -> None:
        start = sequence.length
        sequence.reserve(count)
        for layer in range(len(sequence.layers)):
            chunk = slice(start, start + count)
            sequence.append(layer, self.keys[layer][:, chunk], self.values[layer][:, chunk])

    def answer(self, layer: int, start: int, count: int, window: int | None = None) -> torch.Tensor:
        """Attention in float64 of tokens ``start`` to ``start + count``, ``[h, g, t, d]``."""
        return softmax_attention(
            self.queries[layer][:, :, start : start + count],
            self.keys[layer][:, : start + count],
            self.values[layer][:, : start + count],
            window,
        )


def softmax_attention(
    query_hgtd: torch.Tensor,
    keys_hsd: torch.Tensor,
    values_hsd: torch.Tensor,
    window: int | None = None,
) -> torch.Tensor:
    tokens, length = query_hgtd.shape[2], keys_hsd.shape[1]
    queries_t = torch.arange(length - tokens, length)[:, None]
    seen_ts = torch.arange(length) <= queries_t
    if window is not None:
        seen_ts &= torch.arange(length) > queries_t - window
    logits = query_hgtd.double() @ keys_hsd[:, None].double().mT * query_hgtd.shape[-1] ** -0.5
    weights = torch.softmax(logits.masked_fill(~seen_ts, -torch.inf), -1)
    return weights @ values_hsd[:, None].double()


def contents(sequence: KvSequence, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """All keys and values that a layer holds, as float32 ``[h, t, d]``."""
    from octavo.engine.kv_codes import decode

    found: dict[str, list[torch.Tensor]] = {"keys": [], "values": []}
    for tile in sequence.layers[layer].tiles(0):
        for name, parts in found.items():
            out_nhsd = torch.empty(len(tile.rows_nb), HEADS, tile.layout.tokens, DIM)
            decode(tile.layout, tile.rows_nb, name, out_nhsd)
            whole = out_nhsd.transpose(0, 1).flatten(1, 2)
            parts.append(whole[:, tile.start - tile.position : tile.end - tile.position])
    return torch.cat(found["keys"], 1), torch.cat(found["values"], 1)
