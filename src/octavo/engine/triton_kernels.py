"""Attention over blocks of keys and values on a CUDA device, in Triton.

Blocks stay where they are: a kernel finds each by its number and reads it in tiles, with an online
softmax (Milakov & Gimelshein 2018; FlashAttention, Dao et al. 2022). One new token over a long
history is split over the history, and the parts are joined by their log-sum-exp (flash-decoding,
Dao et al. 2023); so that the heads of queries that share keys read them once, they are the rows of
one matrix.

This module needs Triton; :mod:`octavo.engine.triton_attention` calls it. Inside, logits are in
units of log 2, because the device has an exponential of base 2.

Shapes: ``b`` sequences, ``h`` heads of keys, ``g`` query heads to each, ``t`` new tokens of all,
``n`` blocks, ``s`` tokens of a block, ``d`` channels, ``p`` parts of a history.
"""

# Triton is installed with torch on CUDA machines only, and knows no types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator, import-not-found"

from __future__ import annotations

import triton
import triton.language as tl

#: Logits times this are in units of log 2.
LOG2E = 1.4426950408889634
_LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _joined(query, keys, values, seen, top, total, out, scale, PRECISION: tl.constexpr):
    """One more tile: ``keys`` are ``[d, s]``, the rest is as the state of an online softmax."""
    logits = tl.dot(query, keys, input_precision=PRECISION) * scale
    return _joined_logits(logits, values, seen, top, total, out, PRECISION)


@triton.jit
def _joined_logits(logits, values, seen, top, total, out, PRECISION: tl.constexpr):
    logits = tl.where(seen, logits, float("-inf"))
    above = tl.maximum(top, tl.max(logits, 1))
    # A row that has seen nothing yet has a top of -inf, and -inf less -inf is no number.
    level = tl.where(above == float("-inf"), 0.0, above)
    kept = tl.exp2(top - level)
    weights = tl.exp2(logits - level[:, None])
    total = total * kept + tl.sum(weights, 1)
    out = out * kept[:, None]
    out += tl.dot(weights.to(values.dtype), values, input_precision=PRECISION)
    return above, total, out


@triton.jit
def _span(first_b, lengths_b, sequence, part, PARTS: tl.constexpr, TILE: tl.constexpr):
    """The tokens of one part of a sequence, from a multiple of a tile on."""
    first = tl.load(first_b + sequence)
    length = tl.load(lengths_b + sequence)
    begin = first // TILE
    tiles = tl.cdiv(length, TILE) - begin
    each = tl.cdiv(tiles, PARTS)
    low = begin + part * each
    high = tl.minimum(low + each, begin + tiles)
    return first, length, low * TILE, high * TILE


@triton.jit
def _finish(
    out_bhpgd, lse_bhpg, place, top, total, out, rows, channels,
    G: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Writes one part: its answer, and the log-sum-exp of its logits in base 2."""
    empty = total == 0.0
    out = out / tl.where(empty, 1.0, total)[:, None]
    lse = tl.where(empty, float("-inf"), top + tl.log2(tl.where(empty, 1.0, total)))
    held = (rows < G)[:, None] & (channels < D)[None, :]
    tl.store(out_bhpgd + place * G * D + rows[:, None] * D + channels[None, :], out, mask=held)
    tl.store(lse_bhpg + place * G + rows, lse, mask=rows < G)


@triton.jit
def decode_exact(
    query, keys, values, table_bn, first_b, lengths_b, out_bhpgd, lse_bhpg, scale,
    query_b, query_h, query_g, keys_n, keys_h, keys_s, values_n, values_h, values_s, table_b,
    PARTS: tl.constexpr, SIZE: tl.constexpr, G: tl.constexpr, D: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A program for each sequence, head of keys and part of the history."""
    sequence, head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    rows, channels, inside = tl.arange(0, ROWS), tl.arange(0, WIDTH), tl.arange(0, TILE)
    first, length, low, high = _span(first_b, lengths_b, sequence, part, PARTS, TILE)
    held = (rows < G)[:, None] & (channels < D)[None, :]
    base = query + sequence.to(tl.int64) * query_b + head.to(tl.int64) * query_h
    q = tl.load(base + rows[:, None] * query_g + channels[None, :], mask=held, other=0.0)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    out = tl.zeros([ROWS, WIDTH], tl.float32)
    blocks = table_bn + sequence.to(tl.int64) * table_b
    for start in range(low, high, TILE):
        tokens = start + inside
        seen = (tokens >= first) & (tokens < length)
        block = tl.load(blocks + tokens // SIZE, mask=seen, other=0).to(tl.int64)
        key_at = block * keys_n + head * keys_h + (tokens % SIZE) * keys_s
        some = seen[None, :] & (channels < D)[:, None]
        k = tl.load(keys + key_at[None, :] + channels[:, None], mask=some, other=0.0)
        value_at = block * values_n + head * values_h + (tokens % SIZE) * values_s
        also = seen[:, None] & (channels < D)[None, :]
        v = tl.load(values + value_at[:, None] + channels[None, :], mask=also, other=0.0)
        top, total, out = _joined(q, k, v, seen[None, :], top, total, out, scale, PRECISION)
    place = (sequence.to(tl.int64) * tl.num_programs(1) + head) * PARTS + part
    _finish(out_bhpgd, lse_bhpg, place, top, total, out, rows, channels, G, D)


@triton.jit
def _over_codes(
    query, shift, key_codes, value_codes, scales, start, inside, first, length, head, channels,
    VALUE_SCALE: tl.constexpr, VALUE_OFFSET: tl.constexpr, top, total, out, scale,
    SIZE: tl.constexpr, D: tl.constexpr, GROUP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Tokens ``inside`` the block that begins at ``start``: ``query`` is multiplied by the scales
    of its keys, and ``shift`` is what their offsets add to the logits."""
    tokens = start + inside
    seen = (tokens >= first) & (tokens < length) & (inside < SIZE)
    logits = tl.dot(query, tl.trans(key_codes).to(query.dtype), input_precision=PRECISION)
    logits = (logits + shift[:, None]) * scale
    there = seen[:, None] & (channels < D)[None, :]
    at = (head * SIZE + inside)[:, None] * (D // GROUP) + (channels // GROUP)[None, :]
    step = tl.load(scales + VALUE_SCALE // 2 + at, mask=there, other=0.0).to(tl.float32)
    offset = tl.load(scales + VALUE_OFFSET // 2 + at, mask=there, other=0.0).to(tl.float32)
    v = (value_codes.to(tl.float32) * step + offset).to(query.dtype)
    return _joined_logits(logits, v, seen[None, :], top, total, out, PRECISION)


@triton.jit
def decode_codes(
    query, codes, scales, table_bn, first_b, lengths_b, out_bhpgd, lse_bhpg, scale,
    query_b, query_h, query_g, row_bytes, table_b,
    KEYS: tl.constexpr, VALUES: tl.constexpr, KEY_SCALE: tl.constexpr, KEY_OFFSET: tl.constexpr,
    VALUE_SCALE: tl.constexpr, VALUE_OFFSET: tl.constexpr, GROUP: tl.constexpr,
    BITS: tl.constexpr, PARTS: tl.constexpr, SIZE: tl.constexpr, G: tl.constexpr,
    D: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, TILE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """As :func:`decode_exact` over blocks of codes: ``codes`` and ``scales`` are the same bytes,
    once as ``uint8`` and once as ``float16``. A tile is some lines of codes of one block."""
    sequence, head, part = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    rows, channels, inside = tl.arange(0, ROWS), tl.arange(0, WIDTH), tl.arange(0, TILE)
    first, length, low, high = _span(first_b, lengths_b, sequence, part, PARTS, SIZE)
    held = (rows < G)[:, None] & (channels < D)[None, :]
    base = query + sequence.to(tl.int64) * query_b + head.to(tl.int64) * query_h
    q = tl.load(base + rows[:, None] * query_g + channels[None, :], mask=held, other=0.0)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    out = tl.zeros([ROWS, WIDTH], tl.float32)
    blocks = table_bn + sequence.to(tl.int64) * table_b
    # Codes of four bits: tokens i and i + SIZE / 2 share a byte.
    TALL: tl.constexpr = SIZE * BITS // 8
    for start in range(low, high, SIZE):
        row = tl.load(blocks + start // SIZE).to(tl.int64) * row_bytes
        halves = scales + row // 2
        by_channel = head * D + channels
        step = tl.load(halves + KEY_SCALE // 2 + by_channel, mask=channels < D, other=0.0)
        offset = tl.load(halves + KEY_OFFSET // 2 + by_channel, mask=channels < D, other=0.0)
        scaled = (q.to(tl.float32) * step.to(tl.float32)[None, :]).to(q.dtype)
        shift = tl.sum(q.to(tl.float32) * offset.to(tl.float32)[None, :], 1)
        for above in tl.static_range(0, TALL, TILE):
            lines = above + inside
            there = (lines < TALL)[:, None] & (channels < D)[None, :]
            at = (head * TALL + lines)[:, None] * D + channels[None, :]
            k = tl.load(codes + row + KEYS + at, mask=there, other=0)
            v = tl.load(codes + row + VALUES + at, mask=there, other=0)
            # Behind the lines of a block are tokens of its other half, or none.
            lower = tl.where(lines < TALL, lines, SIZE)
            if BITS == 8:
                top, total, out = _over_codes(
                    scaled, shift, k, v, halves, start, lower, first, length, head, channels,
                    VALUE_SCALE, VALUE_OFFSET, top, total, out, scale, SIZE, D, GROUP, PRECISION,
                )  # fmt: skip
            else:
                top, total, out = _over_codes(
                    scaled, shift, k & 15, v & 15, halves, start, lower, first, length, head,
                    channels, VALUE_SCALE, VALUE_OFFSET, top, total, out, scale,
                    SIZE, D, GROUP, PRECISION,
                )  # fmt: skip
                upper = tl.where(lines < TALL, lines + TALL, SIZE)
                top, total, out = _over_codes(
                    scaled, shift, k >> 4, v >> 4, halves, start, upper, first, length, head,
                    channels, VALUE_SCALE, VALUE_OFFSET, top, total, out, scale,
                    SIZE, D, GROUP, PRECISION,
                )  # fmt: skip
    place = (sequence.to(tl.int64) * tl.num_programs(1) + head) * PARTS + part
    _finish(out_bhpgd, lse_bhpg, place, top, total, out, rows, channels, G, D)


@triton.jit
def merge(
    parts_bhpgd, lse_bhpg, out_bhgd, lse_bhg,
    PARTS: tl.constexpr, P: tl.constexpr, G: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """The answer over all parts of one row, weighted by their share of its probabilities."""
    head, g = tl.program_id(0).to(tl.int64), tl.program_id(1)
    parts, channels = tl.arange(0, P), tl.arange(0, WIDTH)
    places = head * PARTS + parts
    lse = tl.load(lse_bhpg + places * G + g, mask=parts < PARTS, other=float("-inf"))
    top = tl.max(lse, 0)
    level = tl.where(top == float("-inf"), 0.0, top)
    weights = tl.exp2(lse - level)
    total = tl.sum(weights, 0)
    there = (parts < PARTS)[:, None] & (channels < D)[None, :]
    at = (places * G + g)[:, None] * D + channels[None, :]
    answers = tl.load(parts_bhpgd + at, mask=there, other=0.0)
    out = tl.sum(answers * weights[:, None], 0) / tl.where(total == 0.0, 1.0, total)
    row = head * G + g
    tl.store(out_bhgd + row * D + channels, out.to(out_bhgd.dtype.element_ty), mask=channels < D)
    lse_all = tl.where(total == 0.0, float("-inf"), level + tl.log2(total)) * _LN2
    tl.store(lse_bhg + row, lse_all)


@triton.jit
def prefill(
    query, keys, values, table_bn, begins_b, lengths_b, sequence_m, first_m, out_thgd, scale,
    query_t, query_h, query_g, keys_n, keys_h, keys_s, values_n, values_h, values_s, table_b,
    window,
    SIZE: tl.constexpr, G: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr,
    WIDTH: tl.constexpr, TILE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A program for each tile of new tokens of one sequence, and each head of keys. A row is a
    token and one of the query heads that share the head of keys."""
    tile, head = tl.program_id(0), tl.program_id(1)
    rows, channels, inside = tl.arange(0, ROWS), tl.arange(0, WIDTH), tl.arange(0, TILE)
    sequence, first = tl.load(sequence_m + tile), tl.load(first_m + tile)
    end = tl.load(begins_b + sequence + 1)
    length = tl.load(lengths_b + sequence)
    token = first + rows // G
    held = (rows < ROWS // G * G) & (token < end)
    position = token - end + length
    spot = tl.where(held, token, first).to(tl.int64)
    query_at = spot * query_t + head * query_h + (rows % G) * query_g
    there = held[:, None] & (channels < D)[None, :]
    q = tl.load(query + query_at[:, None] + channels[None, :], mask=there, other=0.0)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    out = tl.zeros([ROWS, WIDTH], tl.float32)
    blocks = table_bn + sequence.to(tl.int64) * table_b
    lowest = tl.maximum(first - end + length - window + 1, 0) // TILE * TILE
    beyond = tl.minimum(first + ROWS // G, end) - end + length
    for start in range(lowest, beyond, TILE):
        tokens = start + inside
        known = tokens < beyond
        block = tl.load(blocks + tokens // SIZE, mask=known, other=0).to(tl.int64)
        key_at = block * keys_n + head * keys_h + (tokens % SIZE) * keys_s
        some = known[None, :] & (channels < D)[:, None]
        k = tl.load(keys + key_at[None, :] + channels[:, None], mask=some, other=0.0)
        value_at = block * values_n + head * values_h + (tokens % SIZE) * values_s
        also = known[:, None] & (channels < D)[None, :]
        v = tl.load(values + value_at[:, None] + channels[None, :], mask=also, other=0.0)
        behind = position[:, None] - tokens[None, :]
        seen = (behind >= 0) & (behind < window) & known[None, :]
        top, total, out = _joined(q, k, v, seen, top, total, out, scale, PRECISION)
    out = out / tl.where(total == 0.0, 1.0, total)[:, None]
    out_at = (spot * tl.num_programs(1) + head) * G * D + (rows % G) * D
    place = out_thgd + out_at[:, None] + channels[None, :]
    tl.store(place, out.to(out_thgd.dtype.element_ty), mask=there)
