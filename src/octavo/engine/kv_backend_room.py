"""How many of the scheduler's blocks really fit into pools that keep keys and values by sequence.

The scheduler counts blocks of some tokens, one number for all layers. Pools count blocks of one
layer, and exact tails and windows beside them: so what is promised is what fits at worst.
"""

from __future__ import annotations

from octavo.engine.kv_layout import KvShape, KvSizes
from octavo.errors import BudgetExceeded
from octavo.memory.buffers import PAGE

#: Tokens of one sequence where every layer has a window, so that length costs nothing.
_ENDLESS = 1 << 20


def staging_bytes(shape: KvShape, step_tokens: int) -> int:
    """Keys and values of all tokens of one step, which no block holds yet."""
    return step_tokens * shape.layers * 2 * shape.kv_heads * shape.head_dim * shape.dtype.itemsize


def scheduler_blocks(
    sizes: KvSizes, full: int, sequences: int, *, longest: int | None = None
) -> int:
    """Blocks for the scheduler: whatever it admits finds room.

    Args:
        full: blocks of the pool of full blocks.
        sequences: that hold something at the same time.
        longest: tokens that one may have.
    """
    shape = sizes.shape
    # Each block that the scheduler counts is at most one in every layer, and the newest tokens
    # of a sequence are in its tail.
    spared = -(-sizes.kept // sizes.block_tokens)
    plain = full // shape.layers
    whole = _whole_layers(sizes)
    left = full - sequences * sum(_window_blocks(sizes))
    if whole:
        return max(plain, left // whole) + spared
    if left < 0:
        return plain + spared
    return sequences * -(-(longest or _ENDLESS) // sizes.block_tokens)


def lower_blocks(sizes: KvSizes, nbytes: int) -> int:
    """Blocks for the scheduler that ``nbytes`` of a store hold. Windows stay in the pools."""
    one = -(-sizes.full.nbytes // PAGE) * PAGE
    whole = _whole_layers(sizes)
    return nbytes // (one * whole) if whole else 0


def parked_blocks(sizes: KvSizes, nbytes: int, sequences: int) -> int:
    """Blocks of parked sequences that ``nbytes`` of a store hold, tails included."""
    layers = sizes.shape.layers
    tails = sequences * layers * -(-sizes.tail_blocks * sizes.exact.nbytes // PAGE) * PAGE
    one = -(-sizes.full.nbytes // PAGE) * PAGE
    return max(nbytes - tails, 0) // (one * layers)


def check_step(sizes: KvSizes, full: int, sequences: int, step_tokens: int) -> None:
    """Where all else can be written back, what one step fills must still fit.

    Raises:
        BudgetExceeded: it does not.
    """
    each = 2 if sizes.precision == "exact" else 1
    new = -(-step_tokens // sizes.block_tokens) + each * sequences
    needed = _whole_layers(sizes) * new + sequences * sum(_window_blocks(sizes))
    if full < needed:
        raise BudgetExceeded(
            f"{full} KV blocks, and a step of {step_tokens} tokens may fill {needed}",
            where="KV cache",
            next_step=f"give at least {(needed - full) * sizes.full.nbytes} bytes more, "
            "or allow fewer tokens in a step",
        )


def _whole_layers(sizes: KvSizes) -> int:
    return sum(sizes.shape.window(layer) is None for layer in range(sizes.shape.layers))


def _window_blocks(sizes: KvSizes) -> list[int]:
    """For each layer with a window, the most blocks that one sequence has in the pool."""
    n, found = sizes.block_tokens, []
    for layer in range(sizes.shape.layers):
        window = sizes.shape.window(layer)
        if window is None:
            continue
        counts = []
        for tokens in range(window, window + sizes.kept + 2 * n):
            first, encoded = sizes.spans(layer, tokens)
            exact = -(-(tokens - encoded) // n) if sizes.precision == "exact" else 0
            counts.append((encoded - first) // n + exact)
        found.append(max(counts))
    return found
