"""Kernels beside a plain computation in float64. Needs no test runner, so that a benchmark can run
the same comparisons on a device: ``python -m tests.engine.triton_cases DEVICE`` prints each one's
name and largest difference.

Shapes: as in :mod:`octavo.engine.triton_attention`.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from octavo.engine import triton_attention
from octavo.engine.attention import Partial, merge
from octavo.engine.kv_codes import decode, encode
from octavo.engine.kv_layout import BlockLayout, KvPrecision, KvShape
from octavo.engine.step import Slice
from octavo.engine.triton_slab import SlabRows

#: Largest difference over the largest number of the answer: rounding of the answer and of weights.
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 2e-2}


@dataclass(frozen=True, slots=True)
class Case:
    """One call. ``lengths`` are tokens of each sequence; ``counts`` the new ones of them."""

    name: str
    dtype: torch.dtype
    lengths: tuple[int, ...]
    heads: int = 2
    group: int = 4
    channels: int = 64
    block: int = 64
    window: int | None = None
    precision: KvPrecision = "exact"
    counts: tuple[int, ...] = ()
    parts: int | None = None
    slots: bool = False

    @property
    def scale(self) -> float:
        return float(self.channels**-0.5)


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """Random keys and values of a case in blocks that lie in no order.

    Attributes:
        keys, values: for each sequence ``[h, tokens, d]`` in float64.
        keys_nhsd, values_nhsd: the blocks; what no token was written to is not a number.
    """

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    keys_nhsd: torch.Tensor
    values_nhsd: torch.Tensor
    table_bn: torch.Tensor
    lengths_b: torch.Tensor


def cases() -> Iterator[Case]:
    """What every kernel is tried with."""
    f32, bf16, f16 = torch.float32, torch.bfloat16, torch.float16
    yield Case("decode", f32, (1, 63, 64, 65, 200))
    yield Case("decode in parts", f32, (300, 1, 129), parts=5)
    yield Case("decode, bf16", bf16, (130, 70), channels=128, parts=2)
    yield Case("decode, fp16", f16, (130, 70), group=1, parts=3)
    yield Case(
        "decode, 7 query heads of 80 channels", f32, (90, 33), group=7, channels=80, block=16
    )
    yield Case("decode, window", f32, (200, 20, 64, 129), window=64, parts=3)
    yield Case("decode, slots", f32, (100, 31), slots=True, block=48)
    yield Case("prefill", f32, (70, 130, 5), counts=(70, 40, 5))
    yield Case("prefill beside decodes", bf16, (70, 129, 33), counts=(1, 30, 1), channels=128)
    yield Case("prefill, 3 query heads", f32, (90, 64), group=3, counts=(50, 64), block=16)
    yield Case("prefill, window", f32, (190, 40), window=48, counts=(90, 40), channels=80)
    yield Case("prefill, fp16 slots", f16, (80,), group=1, counts=(70,), slots=True)
    for precision in ("int8", "int4"):
        yield Case(f"decode {precision}", f32, (192, 64, 128), precision=precision)
        yield Case(f"decode {precision}, bf16", bf16, (192, 64), channels=128, precision=precision)
        yield Case(f"decode {precision}, fp16", f16, (128,), precision=precision, parts=2)
        yield Case(
            f"decode {precision}, small blocks",
            f32, (48, 80, 30), group=7, channels=80, block=16, precision=precision, parts=2,
        )  # fmt: skip
        yield Case(f"decode {precision}, window", f32, (192, 256), precision=precision, window=100)


def comparisons() -> Mapping[str, Callable[[torch.device | str], float]]:
    """By name: the largest difference over the largest that is right, on a device."""
    found = {case.name: functools.partial(run, case) for case in cases()}
    more = {"nothing is seen": nothing_seen, "pieces are merged": pieces_merged}
    for window in (None, 40):
        more[f"slab, window {window}"] = functools.partial(slab, window)
    return {**found, **more}


def run(case: Case, device: torch.device | str) -> float:
    """The largest difference between the kernel and float64, over :data:`TOLERANCE`: 1 is the
    most that is right."""
    if case.precision != "exact":
        return _quantized(case, device)
    made = make(case, device)
    return _prefill(case, made, device) if case.counts else _decode(case, made, device)


def make(case: Case, device: torch.device | str) -> Made:
    random = torch.Generator().manual_seed(len(case.name) + sum(case.lengths))
    h, s, d = case.heads, case.block, case.channels
    counts = [-(-length // s) for length in case.lengths]
    total = sum(counts) + 3
    order = torch.randperm(total, generator=random).tolist()
    shape = (h, total, s, d) if case.slots else (total, h, s, d)
    keys_nhsd, values_nhsd = torch.full((2, *shape), torch.nan, dtype=case.dtype)
    if case.slots:
        keys_nhsd, values_nhsd = keys_nhsd.transpose(0, 1), values_nhsd.transpose(0, 1)
    # Numbers of blocks that are not there: to read one of them is an error.
    table_bn = torch.full((len(counts), max(counts)), 2**30, dtype=torch.int32)
    keys, values = [], []
    for row, (length, count) in enumerate(zip(case.lengths, counts, strict=True)):
        blocks, order = order[:count], order[count:]
        table_bn[row, :count] = torch.tensor(blocks, dtype=torch.int32)
        k = torch.randn(h, length, d, generator=random) + torch.randn(h, 1, d, generator=random)
        k, v = k.to(case.dtype), torch.randn(h, length, d, generator=random).to(case.dtype)
        keys.append(k.double())
        values.append(v.double())
        for number, block in enumerate(blocks):
            some = slice(number * s, min((number + 1) * s, length))
            keys_nhsd[block, :, : some.stop - some.start] = k[:, some]
            values_nhsd[block, :, : some.stop - some.start] = v[:, some]
    lengths_b = torch.tensor(case.lengths, dtype=torch.int32)
    return Made(
        keys,
        values,
        keys_nhsd.to(device),
        values_nhsd.to(device),
        table_bn.to(device),
        lengths_b.to(device),
    )


def attention(
    query_htgd: torch.Tensor, keys_hsd: torch.Tensor, values_hsd: torch.Tensor, case: Case
) -> tuple[torch.Tensor, torch.Tensor]:
    """The last tokens of a sequence over all of it, in float64, and the log-sum-exp."""
    tokens, length = query_htgd.shape[1], keys_hsd.shape[1]
    logits_htgs = torch.einsum("htgd,hsd->htgs", query_htgd.double(), keys_hsd) * case.scale
    behind_ts = torch.arange(length - tokens, length)[:, None] - torch.arange(length)
    hidden_ts = (behind_ts < 0) | (behind_ts >= (case.window or length))
    logits_htgs.masked_fill_(hidden_ts[:, None], -torch.inf)
    out_htgd = torch.einsum("htgs,hsd->htgd", logits_htgs.softmax(-1), values_hsd)
    return out_htgd, logits_htgs.logsumexp(-1)


def _decode(case: Case, made: Made, device: torch.device | str) -> float:
    query_bhgd = _query(case, len(case.lengths))
    histories = triton_attention.Histories.of(made.table_bn, made.lengths_b, case.window)
    found = triton_attention.decode(
        query_bhgd.to(device),
        made.keys_nhsd,
        made.values_nhsd,
        histories,
        scale=case.scale,
        parts=case.parts,
    )
    return _compared(case, query_bhgd, made.keys, made.values, found)


def _quantized(case: Case, device: torch.device | str) -> float:
    """Over codes of full blocks; what they stand for is known from the codes themselves."""
    layout = BlockLayout(
        KvShape(1, case.heads, case.channels, case.dtype), case.precision, case.block
    )
    made = make(case, "cpu")
    keys_nhsd = made.keys_nhsd.nan_to_num(0.0)
    values_nhsd = made.values_nhsd.nan_to_num(0.0)
    rows_nb = torch.full((len(keys_nhsd), layout.nbytes + 64), 255, dtype=torch.uint8)
    encode(layout, keys_nhsd, values_nhsd, rows_nb)
    held = torch.empty(2, *keys_nhsd.shape)
    decode(layout, rows_nb, "keys", held[0])
    decode(layout, rows_nb, "values", held[1])
    keys, values = [], []
    for row, length in enumerate(case.lengths):
        blocks = made.table_bn[row, : -(-length // case.block)].long()
        known_2hsd = held[:, blocks].transpose(1, 2).flatten(2, 3)[:, :, :length].double()
        keys.append(known_2hsd[0])
        values.append(known_2hsd[1])
    query_bhgd = _query(case, len(case.lengths))
    histories = triton_attention.Histories.of(
        made.table_bn.to(device), made.lengths_b.to(device), case.window
    )
    found = triton_attention.decode_quantized(
        query_bhgd.to(device),
        rows_nb.to(device),
        layout,
        histories,
        scale=case.scale,
        parts=case.parts,
    )
    return _compared(case, query_bhgd, keys, values, found)


def _prefill(case: Case, made: Made, device: torch.device | str) -> float:
    query_thgd = _query(case, sum(case.counts))
    new = triton_attention.NewTokens.of(case.counts, case.lengths, group=case.group, device=device)
    out_thgd = triton_attention.prefill(
        query_thgd.to(device),
        made.keys_nhsd,
        made.values_nhsd,
        made.table_bn,
        new,
        scale=case.scale,
        window=case.window,
    )
    wanted = [
        attention(part_thgd.transpose(0, 1), keys, values, case)[0].transpose(0, 1)
        for part_thgd, keys, values in zip(
            query_thgd.split(case.counts), made.keys, made.values, strict=True
        )
    ]
    return _off(case, out_thgd, torch.cat(wanted))


def _query(case: Case, rows: int) -> torch.Tensor:
    """``[rows, h, g, d]``, as a model has it: heads are not the outermost dimension there."""
    random = torch.Generator().manual_seed(rows)
    shape = (case.heads, case.group, rows, case.channels)
    return torch.randn(shape, generator=random).to(case.dtype).permute(2, 0, 1, 3)


def _compared(
    case: Case,
    query_bhgd: torch.Tensor,
    keys: list[torch.Tensor],
    values: list[torch.Tensor],
    found: tuple[torch.Tensor, torch.Tensor],
) -> float:
    off = 0.0
    for row, query_hgd in enumerate(query_bhgd):
        wanted = attention(query_hgd[:, None], keys[row], values[row], case)
        off = max(
            off,
            *(_off(case, got[row], want[:, 0]) for got, want in zip(found, wanted, strict=True)),
        )
    return off


def _off(case: Case, found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Not a number counts as endlessly far off."""
    worst = (found.cpu().double() - wanted).abs().amax() / wanted.abs().amax()
    return float(worst.nan_to_num(torch.inf)) / TOLERANCE[case.dtype]


def nothing_seen(device: torch.device | str) -> float:
    """A sequence of no tokens beside another: zeros, and a part that counts for nothing."""
    case = Case("empty", torch.float32, (5, 40))
    made = make(case, device)
    lengths_b = torch.tensor([0, 40], dtype=torch.int32, device=device)
    query_bhgd = _query(case, 2)
    out_bhgd, lse_bhg = triton_attention.decode(
        query_bhgd.to(device),
        made.keys_nhsd,
        made.values_nhsd,
        triton_attention.Histories.of(made.table_bn, lengths_b),
        scale=case.scale,
        parts=2,
    )
    if (out_bhgd[0] != 0).any() or (lse_bhg[0] != -torch.inf).any():
        return torch.inf
    rest = (out_bhgd[1:], lse_bhg[1:])
    return _compared(case, query_bhgd[1:], made.keys[1:], made.values[1:], rest)


def pieces_merged(device: torch.device | str) -> float:
    """Old tokens and newer ones apart, joined as the engine joins codes and exact blocks."""
    case = Case("two", torch.float32, (150,))
    made = make(case, device)
    query_bhgd = _query(case, 1)
    zero_b, cut_b = torch.zeros_like(made.lengths_b), torch.full_like(made.lengths_b, 128)
    pieces = []
    for first_b, end_b in ((zero_b, cut_b), (cut_b, made.lengths_b)):
        some = triton_attention.Histories(made.table_bn, end_b, first_b)
        out_bhgd, lse_bhg = triton_attention.decode(
            query_bhgd.to(device), made.keys_nhsd, made.values_nhsd, some, scale=case.scale, parts=2
        )
        pieces.append(Partial(out_bhgd, lse_bhg))
    joined = merge(*pieces)
    return _compared(case, query_bhgd, made.keys, made.values, (joined.out_hgtd, joined.lse_hgt))


@dataclass(frozen=True, slots=True)
class _Blocks:
    blocks: list[int]


def slab(window: int | None, device: torch.device | str) -> float:
    """A step of decodes, a part of a prompt, a whole one and the last token of another."""
    case = Case(
        "slab", torch.float32, (70, 3, 130, 64, 65), counts=(1, 1, 50, 64, 1), window=window
    )
    made = make(case, device)
    slices: list[Any] = [
        Slice(_Blocks(row[: -(-length // case.block)].tolist()), length - count, count)  # type: ignore[arg-type]
        for row, length, count in zip(made.table_bn, case.lengths, case.counts, strict=True)
    ]
    # As a slab of several layers has it: keys and values of one layer are not behind each other.
    kv_n2hsd = torch.stack((made.keys_nhsd, made.values_nhsd), 1)
    query_thgd = _query(case, sum(case.counts))
    out_1tqd = SlabRows(slices, case.group, device).attend(
        kv_n2hsd, query_thgd.permute(1, 2, 0, 3).to(device), window, case.scale
    )
    parts = query_thgd.split(case.counts)
    wanted = [
        attention(part_thgd.transpose(0, 1), keys, values, case)[0].transpose(0, 1)
        for part_thgd, keys, values in zip(parts, made.keys, made.values, strict=True)
    ]
    return _off(case, out_1tqd[0].unflatten(1, (case.heads, case.group)), torch.cat(wanted))


def main(device: str, dtypes: str) -> None:
    """
    Args:
        dtypes: ``all``, or ``no-bf16`` for what multiplies bfloat16 as if it were integers, as
            Triton's interpreter does.
    """
    left_out = {case.name for case in cases() if case.dtype is torch.bfloat16}
    for name, compare in comparisons().items():
        if dtypes == "all" or name not in left_out:
            print(json.dumps({"name": name, "off": compare(device)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
