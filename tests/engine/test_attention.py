"""Attention over blocks against softmax in float64."""

from __future__ import annotations

import random
import threading

import pytest
import torch

from octavo.engine import attention
from octavo.engine.attention import Partial, attend, merge
from octavo.engine.kv_codes import largest_step
from octavo.engine.kv_layout import BITS, PRECISIONS, KvPrecision
from tests.engine.kv_tools import (
    DIM,
    GROUP,
    HEADS,
    Stream,
    cache,
    contents,
    shape,
    sizes,
    softmax_attention,
)

#: Largest error over all tokens of a stream with values of unit variance.
FAR = {"exact": 1e-5, "int8": 0.03, "int4": 0.5}


def _run(
    stream: Stream, precision: KvPrecision, steps: list[int], windows: tuple[int | None, ...] = ()
) -> float:
    """The largest error while a sequence grows by ``steps``."""
    wanted = sizes(precision, of=shape(windows=windows))
    kv = cache(wanted, sum(steps))
    sequence, worst = kv.sequence("a"), 0.0
    for count in steps:
        start = sequence.length
        sequence.reserve(count)
        for layer in range(2):
            keys = stream.keys[layer][:, start : start + count]
            values = stream.values[layer][:, start : start + count]
            query = stream.queries[layer][:, :, start : start + count]
            found = attend(sequence.layers[layer], query, keys, values, scale=DIM**-0.5)
            truth = stream.answer(layer, start, count, windows[layer] if windows else None)
            worst = max(worst, (found.double() - truth).abs().max().item())
            sequence.append(layer, keys, values)
    return worst


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("windows", [(), (None, 30), (5, 64)])
def test_any_cutting_gives_softmax_attention(
    precision: KvPrecision, windows: tuple[int | None, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Small tiles and few rows at once, so that all of them are joined.
    monkeypatch.setattr("octavo.engine.kv_layout._TILE_TOKENS", (16, 24))
    monkeypatch.setattr(attention, "_ROWS", 16)
    draw = random.Random(str((precision, windows)))
    for seed in range(3):
        steps: list[int] = []
        while sum(steps) < 220:
            steps.append(draw.choice([1, 1, 1, 2, 7, 8, 9, draw.randint(1, 90)]))
        assert _run(Stream(sum(steps), seed=seed), precision, steps, windows) < FAR[precision]


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_errors_follow_from_the_steps_of_the_codes(precision: KvPrecision) -> None:
    """Attention over what the cache holds is exact; and the cache holds what it should."""
    stream, wanted = Stream(201), sizes(precision)
    kv = cache(wanted, 201)
    sequence = kv.sequence("a")
    stream.append(sequence, 200)
    keys, values = contents(sequence, 0)
    step = largest_step(
        stream.keys[0].amin(1, keepdim=True), stream.keys[0].amax(1, keepdim=True), BITS[precision]
    )
    assert ((keys - stream.keys[0][:, :200]).abs() <= step / 2 + 1e-5).all()
    new = slice(200, 201)
    query = stream.queries[0][:, :, new]
    found = attend(
        sequence.layers[0],
        query,
        stream.keys[0][:, new],
        stream.values[0][:, new],
        scale=DIM**-0.5,
    )
    truth = softmax_attention(
        query,
        torch.cat([keys, stream.keys[0][:, new]], 1),
        torch.cat([values, stream.values[0][:, new]], 1),
    )
    assert (found.double() - truth).abs().max() < 1e-5


@pytest.mark.parametrize("count", [1, 40])
def test_bfloat16_is_as_near_as_torchs_own(count: int) -> None:
    stream = Stream(300)
    kv = cache(sizes("exact", of=shape(dtype=torch.bfloat16)))
    sequence = kv.sequence("a")
    keys, values = stream.keys[0].bfloat16(), stream.values[0].bfloat16()
    query = stream.queries[0][:, :, 260 : 260 + count].bfloat16()
    sequence.append(0, keys[:, :260], values[:, :260])
    new = slice(260, 260 + count)
    found = attend(sequence.layers[0], query, keys[:, new], values[:, new], scale=DIM**-0.5)
    assert found.dtype is torch.bfloat16
    truth = softmax_attention(query, keys[:, : 260 + count], values[:, : 260 + count])
    seen = torch.ones(count, 260 + count, dtype=torch.bool).tril(260)
    theirs = torch.nn.functional.scaled_dot_product_attention(
        query.flatten(0, 1),
        keys[:, : 260 + count].repeat_interleave(GROUP, 0),
        values[:, : 260 + count].repeat_interleave(GROUP, 0),
        attn_mask=seen,
    ).unflatten(0, (HEADS, GROUP))
    off, their_off = ((one.double() - truth).norm() for one in (found, theirs))
    # Each part is rounded before they are joined.
    assert off <= 2 * their_off


def test_without_a_fused_kernel_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "kernel_for", lambda _query: None)
    assert _run(Stream(150), "exact", [70, 1, 79]) < FAR["exact"]


def test_no_more_than_a_tile_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octavo.engine.kv_layout._TILE_TOKENS", (16, 32))
    sizes_seen: list[int] = []
    real = attention.scratch

    def counting(size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        sizes_seen.append(size[1] * size[2])
        return real(size, dtype, device)

    monkeypatch.setattr(attention, "scratch", counting)
    _run(Stream(300), "int4", [200, 1, 99])
    assert len(sizes_seen) > 20
    assert max(sizes_seen) <= 32


def test_parts_that_saw_nothing_do_not_count() -> None:
    part = Partial(torch.randn(1, 1, 2, 4), torch.tensor([[[0.3, -2.0]]]))
    nothing = Partial(torch.zeros(1, 1, 2, 4), torch.full((1, 1, 2), -torch.inf))
    for joined in (merge(part, nothing), merge(nothing, part)):
        assert torch.allclose(joined.out_hgtd, part.out_hgtd)
        assert torch.equal(joined.lse_hgt, part.lse_hgt)


def test_large_logits_do_not_overflow() -> None:
    stream = Stream(120)
    stream.queries *= 400
    assert _run(stream, "exact", [100, 1, 19]) < 1e-3


def test_it_can_be_used_inside_and_outside_of_inference_mode(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attention, "_held", threading.local())
    stream = Stream(64)
    with torch.inference_mode():
        assert _run(stream, "int8", [40, 1]) < FAR["int8"]
    with torch.no_grad():
        assert _run(stream, "int8", [40, 1, 23]) < FAR["int8"]
