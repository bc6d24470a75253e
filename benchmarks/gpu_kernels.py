"""Attention over blocks of keys and values beside what torch offers, on one device.

Heads as an 8 B Llama has them (32 of queries, 8 of keys, 128 channels, bfloat16), blocks of 64
tokens in random order. Ways take turns within a round, the second-level cache is overwritten
before each, and the median over rounds of the device's own time is reported.

- ``octavo``: the Triton kernel over the blocks where they lie; ``octavo int8`` and ``octavo int4``
  over codes.
- ``sdpa``: over keys and values that lie behind each other already, padded to the longest
  sequence, with a mask where lengths differ: what a cache without blocks gives.
- ``gathered sdpa``: the same from blocks, which are brought together first.
- ``flex``: compiled FlexAttention over keys and values behind each other, lengths in its block
  mask.
- ``decoded int8 sdpa``: codes expanded to bfloat16 first.

Shapes: as in :mod:`octavo.engine.triton_attention`, and ``u`` tokens of all blocks of a sequence.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn import functional

from octavo.engine import triton_attention
from octavo.engine.kv_codes import decode as decode_codes
from octavo.engine.kv_codes import encode
from octavo.engine.kv_layout import BlockLayout, KvPrecision, KvShape

HEADS: Final = 8
GROUP: Final = 4
CHANNELS: Final = 128
BLOCK: Final = 64
SCALE: Final = CHANNELS**-0.5
DTYPE: Final = torch.bfloat16
ROUNDS: Final = 20
#: More than the second-level cache of any device so far.
_FLUSH: Final = 256 << 20
#: Name → lengths of the sequences of one decode.
DECODES: Final[Mapping[str, Sequence[int]]] = {
    "1 of 8k": [8192],
    "1 of 64k": [65536],
    "16 of 4k": [4096] * 16,
    "64 of 1k": [1024] * 64,
    "16 of 256 to 16k": [256, 512, 16384, 1024, 700, 300, 8192, 900, 2048, 400, 260, 4096, 3000,
                         600, 1500, 12000],
}  # fmt: skip
#: Name → new tokens and tokens of each sequence.
PREFILLS: Final[Mapping[str, tuple[Sequence[int], Sequence[int]]]] = {
    "1 of 4k": ([4096], [4096]),
    "8 of 512": ([512] * 8, [512] * 8),
    "512 after 16k": ([512], [16896]),
}
Way = Callable[[], torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Cache:
    """Keys and values of some sequences in blocks, and behind each other: ``_bhud``."""

    keys_nhsd: torch.Tensor
    values_nhsd: torch.Tensor
    table_bn: torch.Tensor
    lengths_b: torch.Tensor
    keys_bhud: torch.Tensor
    values_bhud: torch.Tensor

    @property
    def even(self) -> bool:
        return bool((self.lengths_b == self.keys_bhud.shape[2]).all())

    def gathered(self, blocks_nhsd: torch.Tensor) -> torch.Tensor:
        return blocks_nhsd[self.table_bn.long()].transpose(1, 2).flatten(2, 3)


def cache_of(lengths: Sequence[int], device: str) -> Cache:
    blocks = -(-max(lengths) // BLOCK)
    total = blocks * len(lengths)
    shape = (total, HEADS, BLOCK, CHANNELS)
    keys_nhsd, values_nhsd = torch.randn(2, *shape, device=device, dtype=DTYPE)
    table_bn = torch.randperm(total, device=device).view(len(lengths), blocks).int()
    lengths_b = torch.tensor(lengths, dtype=torch.int32, device=device)
    made = Cache(keys_nhsd, values_nhsd, table_bn, lengths_b, keys_nhsd, values_nhsd)
    together = made.gathered(keys_nhsd).contiguous(), made.gathered(values_nhsd).contiguous()
    return Cache(keys_nhsd, values_nhsd, table_bn, lengths_b, *together)


def decode_points(device: str, *, quick: bool) -> dict[str, Any]:
    """One new token of each sequence."""
    torch.manual_seed(0)
    points = []
    for name, lengths in _some(DECODES, quick, {"2 of 96 and 128": [96, 128]}).items():
        cache = cache_of(lengths, device)
        query_bhgd = torch.randn(len(lengths), HEADS, GROUP, CHANNELS, device=device, dtype=DTYPE)
        ways = {**_torch_decodes(query_bhgd, cache), **_octavo_decodes(query_bhgd, cache)}
        nbytes = 2 * sum(lengths) * HEADS * CHANNELS * DTYPE.itemsize
        points.append(_point(name, ways, device, quick) | {"kv_bytes": nbytes})
        _rates(points[-1])
        del cache, ways
    return {"points": points, "note": _note(device)}


def prefill_points(device: str, *, quick: bool) -> dict[str, Any]:
    """New tokens of some sequences in one row."""
    torch.manual_seed(0)
    points = []
    for name, (counts, lengths) in _some(PREFILLS, quick, {"32 after 96": ([32], [128])}).items():
        cache = cache_of(lengths, device)
        query_thgd = torch.randn(sum(counts), HEADS, GROUP, CHANNELS, device=device, dtype=DTYPE)
        ways = _torch_prefills(query_thgd, cache, counts, lengths)
        if triton_attention.available(device):
            ways["octavo"] = _octavo_prefill(query_thgd, cache, counts, lengths)
        points.append(_point(name, ways, device, quick))
        del cache, ways
    return {"points": points, "note": _note(device)}


def _octavo_decodes(query_bhgd: torch.Tensor, cache: Cache) -> dict[str, Way]:
    if not triton_attention.available(query_bhgd.device):
        return {}
    histories = triton_attention.Histories.of(cache.table_bn, cache.lengths_b)
    ways: dict[str, Way] = {
        "octavo": lambda: triton_attention.decode(
            query_bhgd, cache.keys_nhsd, cache.values_nhsd, histories, scale=SCALE
        )[0]
    }
    for precision in ("int8", "int4"):
        rows_nb, layout = coded(cache, precision)
        ways[f"octavo {precision}"] = _quantized(query_bhgd, rows_nb, layout, histories)
    return ways


def coded(cache: Cache, precision: KvPrecision) -> tuple[torch.Tensor, BlockLayout]:
    """The cache's blocks as codes."""
    layout = BlockLayout(KvShape(1, HEADS, CHANNELS, DTYPE), precision, BLOCK)
    count = len(cache.keys_nhsd)
    rows_nb = torch.empty(count, layout.nbytes, dtype=torch.uint8, device=cache.keys_nhsd.device)
    for first in range(0, count, 256):
        some = slice(first, first + 256)
        encode(layout, cache.keys_nhsd[some], cache.values_nhsd[some], rows_nb[some])
    return rows_nb, layout


def _quantized(
    query_bhgd: torch.Tensor,
    rows_nb: torch.Tensor,
    layout: BlockLayout,
    histories: triton_attention.Histories,
) -> Way:
    return lambda: triton_attention.decode_quantized(
        query_bhgd, rows_nb, layout, histories, scale=SCALE
    )[0]


def _torch_decodes(query_bhgd: torch.Tensor, cache: Cache) -> dict[str, Way]:
    query_bq1d = query_bhgd.flatten(1, 2)[:, :, None]
    u = cache.keys_bhud.shape[2]
    places_u = torch.arange(u, device=query_bhgd.device)
    mask_b11u = (places_u < cache.lengths_b[:, None])[:, None, None]
    mask = None if cache.even else mask_b11u

    def sdpa(keys_bhud: torch.Tensor, values_bhud: torch.Tensor) -> torch.Tensor:
        out_bq1d: torch.Tensor = functional.scaled_dot_product_attention(
            query_bq1d, keys_bhud, values_bhud, attn_mask=mask, scale=SCALE, enable_gqa=True
        )
        return _heads(out_bq1d)

    def gathered() -> torch.Tensor:
        return sdpa(cache.gathered(cache.keys_nhsd), cache.gathered(cache.values_nhsd))

    rows_nb, layout = coded(cache, "int8")

    def decoded() -> torch.Tensor:
        numbers_nhsd = torch.empty(
            cache.keys_nhsd.shape, dtype=torch.float32, device=rows_nb.device
        )
        both = []
        for name in ("keys", "values"):
            decode_codes(layout, rows_nb, name, numbers_nhsd)
            both.append(cache.gathered(numbers_nhsd.to(DTYPE)))
        return sdpa(*both)

    ways: dict[str, Way] = {
        "sdpa": lambda: sdpa(cache.keys_bhud, cache.values_bhud),
        "gathered sdpa": gathered,
        "decoded int8 sdpa": decoded,
    }
    if query_bhgd.is_cuda:
        out = _flex(query_bq1d, cache, lambda b, _h, _q, k: k < cache.lengths_b[b])
        ways["flex"] = lambda: _heads(out())
    return ways


def _heads(out_bq1d: torch.Tensor) -> torch.Tensor:
    """``[b, h, g, d]``"""
    found: torch.Tensor = out_bq1d[:, :, 0].unflatten(1, (HEADS, GROUP))
    return found


def _torch_prefills(
    query_thgd: torch.Tensor, cache: Cache, counts: Sequence[int], lengths: Sequence[int]
) -> dict[str, Way]:
    """Only for sequences that are alike, so that they are one batch without padding."""
    from torch.nn.attention.bias import causal_lower_right

    new, length = counts[0], lengths[0]
    query_bqtd = query_thgd.view(len(counts), new, HEADS * GROUP, CHANNELS).transpose(1, 2)
    causal: dict[str, Any] = (
        {"is_causal": True} if new == length else {"attn_mask": causal_lower_right(new, length)}
    )

    def row(out_bqtd: torch.Tensor) -> torch.Tensor:
        return out_bqtd.transpose(1, 2).reshape(query_thgd.shape)

    def sdpa() -> torch.Tensor:
        # A bias by its name does not take heads of keys that are shared.
        keys_bqud = cache.keys_bhud[:, :, :length].repeat_interleave(GROUP, 1)
        values_bqud = cache.values_bhud[:, :, :length].repeat_interleave(GROUP, 1)
        return row(
            functional.scaled_dot_product_attention(
                query_bqtd, keys_bqud, values_bqud, scale=SCALE, **causal
            )
        )

    ways: dict[str, Way] = {"sdpa": sdpa}
    if query_thgd.is_cuda:
        before = length - new
        out = _flex(query_bqtd, cache, lambda _b, _h, q, k: k <= q + before)
        ways["flex"] = lambda: row(out())
    return ways


def _flex(query_bqtd: torch.Tensor, cache: Cache, seen: Callable[..., torch.Tensor]) -> Way:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    b, _, t, _ = query_bqtd.shape
    u = cache.keys_bhud.shape[2]
    mask = create_block_mask(seen, b, None, t, u, device=str(query_bqtd.device))
    compiled = torch.compile(flex_attention, dynamic=False)
    query_bqtd = query_bqtd.contiguous()

    def attend() -> torch.Tensor:
        found: torch.Tensor = compiled(
            query_bqtd,
            cache.keys_bhud,
            cache.values_bhud,
            block_mask=mask,
            scale=SCALE,
            enable_gqa=True,
        )
        return found

    return attend


def _octavo_prefill(
    query_thgd: torch.Tensor, cache: Cache, counts: Sequence[int], lengths: Sequence[int]
) -> Way:
    new = triton_attention.NewTokens.of(counts, lengths, group=GROUP, device=query_thgd.device)
    return lambda: triton_attention.prefill(
        query_thgd, cache.keys_nhsd, cache.values_nhsd, cache.table_bn, new, scale=SCALE
    )


def _point(name: str, ways: Mapping[str, Way], device: str, quick: bool) -> dict[str, Any]:
    """Medians of ways that take turns; how far each answer is from that of ``sdpa``."""
    answers: dict[str, torch.Tensor] = {}
    failed: dict[str, str] = {}
    for way, call in ways.items():
        try:
            answers[way] = call().float()
            call()
        # What torch cannot compile here is a finding, and no reason to leave out the others.
        except Exception as error:  # noqa: BLE001
            failed[way] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    taken: dict[str, list[float]] = {way: [] for way in answers}
    for _ in range(2 if quick else ROUNDS):
        for way, times in taken.items():
            times.append(_timed(ways[way], device))
    true = answers["sdpa"]
    off = {way: float((answer - true).abs().max()) for way, answer in answers.items()}
    medians = {way: statistics.median(times) for way, times in taken.items()}
    return {"name": name, "ms": medians, "off_sdpa": off, "failed": failed}


def _timed(call: Way, device: str) -> float:
    """Milliseconds."""
    if device == "cpu":
        begin = time.perf_counter()
        call()
        return (time.perf_counter() - begin) * 1e3
    torch.empty(_FLUSH, dtype=torch.uint8, device=device).zero_()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end))


def _rates(point: dict[str, Any]) -> None:
    """Ratios of one decode: how many times sooner Octavo's kernels are, and bytes a second."""
    ms = point["ms"]
    if "octavo" not in ms:
        return
    rivals = [way for way in ms if not way.startswith("octavo")]
    point["sooner_than"] = {way: round(ms[way] / ms["octavo"], 3) for way in rivals}
    point["kv_gb_per_s"] = round(point["kv_bytes"] / ms["octavo"] / 1e6, 1)
    point["codes_sooner_than_octavo"] = {
        way: round(ms["octavo"] / ms[way], 3) for way in ms if way.startswith("octavo int")
    }


def _some(points: Mapping[str, Any], quick: bool, small: Mapping[str, Any]) -> Mapping[str, Any]:
    return small if quick else points


def _note(device: str) -> str:
    return "" if triton_attention.available(device) else "Octavo's kernels do not run here"
