"""How keys and values lie in blocks, and how many bytes they take. Arithmetic only.

A block holds ``N`` tokens of one layer of one sequence. Full blocks may be quantized; the newest
tokens stay exact until they are older than the recent window.

Shapes: ``h`` heads of keys and values, ``s`` tokens of a block, ``d`` channels of a head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, get_args

import torch

from octavo.errors import BudgetExceeded, ConfigError
from octavo.memory.buffers import PAGE
from octavo.memory.pools import Part
from octavo.memory.sizes import format_bytes

KvPrecision = Literal["exact", "int8", "int4"]
PRECISIONS: Final[tuple[KvPrecision, ...]] = get_args(KvPrecision)
BITS: Final[Mapping[KvPrecision, int]] = {"int8": 8, "int4": 4}

#: Tokens of a block, and the newest tokens that are never quantized.
BLOCK_TOKENS: Final = 64
RECENT_TOKENS: Final = 64

#: Most bytes of float32 that the keys of one tile become, and most and fewest of its tokens.
_TILE_BYTES: Final = 2 << 20
_TILE_TOKENS: Final = (256, 2048)

#: Parts of a block start at multiples of this.
_ALIGN: Final = 64


@dataclass(frozen=True, slots=True)
class KvShape:
    """Keys and values of one model.

    Attributes:
        layers: that have their own keys and values.
        kv_heads, head_dim: of one layer; channels of a key and of a value alike.
        dtype: in which the model computes them.
        windows: for each layer the newest tokens that a query sees, itself included; None sees
            all. Empty: no layer has a window.

    Raises:
        ConfigError: no such shape can be.
    """

    layers: int
    kv_heads: int
    head_dim: int
    dtype: torch.dtype
    windows: tuple[int | None, ...] = ()

    def __post_init__(self) -> None:
        if min(self.layers, self.kv_heads, self.head_dim) < 1 or not self.dtype.is_floating_point:
            raise ConfigError(
                f"{self.layers} layers of {self.kv_heads} heads of {self.head_dim} {self.dtype} "
                "channels hold no keys",
                where="KV cache",
                next_step="give positive sizes and a floating-point dtype",
            )
        if self.windows and len(self.windows) != self.layers:
            raise ConfigError(
                f"{len(self.windows)} windows for {self.layers} layers",
                where="KV cache",
                next_step="give one for each layer, or none",
            )

    def window(self, layer: int) -> int | None:
        return self.windows[layer] if self.windows else None


@dataclass(frozen=True)
class BlockLayout:
    """Where codes, scales and offsets of one block lie.

    A quantized element is ``code * scale + offset``. Keys have a scale and an offset for each
    channel of the block, values for each token (and group of channels), after KIVI (Liu et al.
    2024): outliers of keys stay in their channels. Four-bit codes of tokens ``i`` and
    ``i + N/2`` share a byte.

    Args:
        shape: of the model.
        precision: of the block.
        tokens: of the block; even for ``int4``.
    """

    shape: KvShape
    precision: KvPrecision
    tokens: int

    @cached_property
    def group(self) -> int:
        """Channels of a value that share a scale."""
        d = self.shape.head_dim
        return 64 if self.precision == "int4" and d % 64 == 0 else d

    @cached_property
    def parts(self) -> Mapping[str, Part]:
        h, s, d = self.shape.kv_heads, self.tokens, self.shape.head_dim
        if self.precision == "exact":
            whole = ((h, s, d), self.shape.dtype)
            return _placed({"keys": whole, "values": whole})
        codes = ((h, s * BITS[self.precision] // 8, d), torch.uint8)
        by_channel = ((h, d), torch.float16)
        by_token = ((h, s, d // self.group), torch.float16)
        return _placed(
            {
                "keys": codes,
                "values": codes,
                "key_scale": by_channel,
                "key_offset": by_channel,
                "value_scale": by_token,
                "value_offset": by_token,
            }
        )

    @cached_property
    def nbytes(self) -> int:
        last = list(self.parts.values())[-1]
        return _aligned(last.offset + math.prod(last.shape) * last.dtype.itemsize)

    def view(self, rows_nb: torch.Tensor, name: str) -> torch.Tensor:
        """One part of ``n`` blocks, ``[n, *shape]``; nothing is copied.

        Args:
            rows_nb: ``uint8``, a block in each row.
        """
        part = self.parts[name]
        end = part.offset + math.prod(part.shape) * part.dtype.itemsize
        rows: torch.Tensor = rows_nb[:, part.offset : end].view(part.dtype)
        return rows.view(rows.shape[0], *part.shape)


@dataclass(frozen=True)
class KvSizes:
    """What sequences take, block by block.

    Args:
        shape: of the model.
        precision: of full blocks.
        block_tokens: even; ``recent``: newest tokens that stay exact (none need to with
            ``exact``, where all do).

    Raises:
        ConfigError: no such blocks can be.
    """

    shape: KvShape
    precision: KvPrecision = "int8"
    block_tokens: int = BLOCK_TOKENS
    recent: int = RECENT_TOKENS

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"{self.precision!r} is no precision of keys and values",
                where="precision",
                next_step=f"use {', '.join(PRECISIONS)}",
            )
        if self.block_tokens < 2 or self.block_tokens % 2 or self.recent < 0:
            raise ConfigError(
                f"blocks of {self.block_tokens} tokens with {self.recent} recent ones",
                where="KV cache",
                next_step="give an even number of tokens, and no negative window",
            )

    @cached_property
    def full(self) -> BlockLayout:
        return BlockLayout(self.shape, self.precision, self.block_tokens)

    @cached_property
    def exact(self) -> BlockLayout:
        return BlockLayout(self.shape, "exact", self.block_tokens)

    @cached_property
    def kept(self) -> int:
        """Newest tokens that are not encoded."""
        return 0 if self.precision == "exact" else self.recent

    @cached_property
    def tail_blocks(self) -> int:
        """Most exact blocks of one layer of one sequence that are not full blocks."""
        return max(-(-(self.kept + self.block_tokens - 1) // self.block_tokens), 1)

    @cached_property
    def tile_blocks(self) -> int:
        """Blocks whose keys and values are in float32 at once."""
        fewest, most = _TILE_TOKENS
        fit = _TILE_BYTES // (4 * self.shape.kv_heads * self.shape.head_dim)
        return max(min(max(fit, fewest), most) // self.block_tokens, 1)

    def bytes_per_token(self, precision: KvPrecision | None = None) -> float:
        """Of all layers, in full blocks of layers without a window."""
        layout = BlockLayout(self.shape, precision or self.precision, self.block_tokens)
        whole = sum(self.shape.window(layer) is None for layer in range(self.shape.layers))
        return whole * layout.nbytes / self.block_tokens

    def spans(self, layer: int, tokens: int) -> tuple[int, int]:
        """The first token that a layer keeps of ``tokens``, and the first that is not encoded."""
        n, window = self.block_tokens, self.shape.window(layer)
        encoded = max(tokens - self.kept, 0) // n * n
        if window is None:
            return 0, encoded
        first = max(tokens - window + 1, 0) // n * n
        return first, max(first, encoded)

    @cached_property
    def _kinds(self) -> tuple[int, ...]:
        """One layer of each window."""
        windows = [self.shape.window(layer) for layer in range(self.shape.layers)]
        return tuple(windows.index(window) for window in set(windows))

    def settles(self, tokens: int) -> bool:
        """Whether the next token after ``tokens`` just lies down in a tail block that was begun:
        no layer takes a block, encodes one or lets one go."""
        return tokens % self.block_tokens != 0 and all(
            self.spans(layer, tokens) == self.spans(layer, tokens + 1) for layer in self._kinds
        )

    def blocks_for(self, tokens: int) -> tuple[int, int]:
        """Full blocks and exact tail blocks that one sequence takes, all layers together."""
        full = tail = 0
        for layer in range(self.shape.layers):
            first, encoded = self.spans(layer, tokens)
            full += (encoded - first) // self.block_tokens
            tail += -(-(tokens - encoded) // self.block_tokens)
        return full, tail

    def nbytes_for(self, tokens: int, sequences: int = 1) -> int:
        """Pools for one sequence of ``tokens`` beside the tails of ``sequences - 1`` others."""
        # A window's blocks are most numerous just before the oldest is let go.
        lengths = range(max(tokens - self.block_tokens, 0), tokens + 1)
        if self.precision == "exact":
            most = max(sum(self.blocks_for(length)) for length in lengths)
            others = self.tails(sequences - 1)
            return _pages((most + others) * self.exact.nbytes)
        most = max(1, *(self.blocks_for(length)[0] for length in lengths))
        return _pages(most * self.full.nbytes) + _pages(self.tails(sequences) * self.exact.nbytes)

    def split(self, budget: int, sequences: int = 1) -> tuple[int, int]:
        """Full and exact blocks of pools that ``budget`` bytes hold; with ``exact`` all are exact.

        Raises:
            BudgetExceeded: there is no room for one token of one sequence.
        """
        if self.nbytes_for(1, sequences) > budget:
            raise BudgetExceeded(
                f"{format_bytes(budget)} hold no keys and values of {sequences} sequences",
                where="KV cache",
                next_step=f"give at least {self.nbytes_for(1, sequences)} bytes",
            )
        if self.precision == "exact":
            return 0, budget // PAGE * PAGE // self.exact.nbytes
        tails = self.tails(sequences)
        left = budget - _pages(tails * self.exact.nbytes)
        return left // PAGE * PAGE // self.full.nbytes, tails

    def tails(self, sequences: int) -> int:
        """Exact blocks that ``sequences`` may need for what is not in full blocks."""
        return sequences * self.shape.layers * self.tail_blocks

    def tokens_that_fit(self, budget: int, sequences: int = 1) -> int:
        """The longest sequence that ``budget`` bytes hold; 0 when there is no room for one token.

        The tails of ``sequences - 1`` others are set aside.
        """
        low, high = 0, 1
        while self.nbytes_for(high, sequences) <= budget:
            low, high = high, high * 2
            if high > 1 << 40:
                # Every layer has a window: length costs nothing more.
                return high
        while high - low > 1:
            middle = (low + high) // 2
            if self.nbytes_for(middle, sequences) <= budget:
                low = middle
            else:
                high = middle
        return low


def _placed(wanted: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> dict[str, Part]:
    parts: dict[str, Part] = {}
    offset = 0
    for name, (shape, dtype) in wanted.items():
        parts[name] = Part(offset, shape, dtype)
        offset = _aligned(offset + math.prod(shape) * dtype.itemsize)
    return parts


def _pages(nbytes: int) -> int:
    return -(-nbytes // PAGE) * PAGE


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGN) * _ALIGN
