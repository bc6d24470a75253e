"""The usual pool for each kind of tensor, so that all count alike in the ledger.

Features and text embeddings are both results that can be made again, but their high-water marks
are asked for apart: text embeddings count as ``other``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from octavo.memory.ledger import Ledger, Place
from octavo.memory.pools.arena import SLAB_NBYTES, Arena
from octavo.memory.pools.blocks import BlockPool
from octavo.memory.pools.ring import WeightRing
from octavo.memory.pools.staging import StagingPool

#: Text embeddings are small; a slab of vision features would mostly stand empty.
_TEXT_SLAB_NBYTES = 16 * 2**20


def kv_pool(
    ledger: Ledger,
    *,
    block_shape: Sequence[int],
    dtype: torch.dtype,
    nbytes: int,
    device: torch.device | str = "cpu",
    place: Place = "device",
    poison: bool = False,
) -> BlockPool:
    """KV blocks in one slab of at most ``nbytes``, for kernels that index it by block number."""
    return BlockPool(
        ledger,
        name="kv",
        block_shape=block_shape,
        dtype=dtype,
        nbytes=nbytes,
        device=device,
        place=place,
        kind="kv",
        poison=poison,
    )


def feature_pool(
    ledger: Ledger,
    *,
    limit: int | None = None,
    device: torch.device | str = "cpu",
    place: Place = "device",
    slab_nbytes: int = SLAB_NBYTES,
    poison: bool = False,
) -> Arena:
    """Vision and audio features: tensors of many sizes."""
    return Arena(
        ledger,
        name="features",
        kind="features",
        place=place,
        device=device,
        slab_nbytes=slab_nbytes,
        limit=limit,
        poison=poison,
    )


def text_pool(
    ledger: Ledger,
    *,
    limit: int | None = None,
    device: torch.device | str = "cpu",
    place: Place = "device",
    slab_nbytes: int = _TEXT_SLAB_NBYTES,
    poison: bool = False,
) -> Arena:
    """Text embeddings: many small tensors."""
    return Arena(
        ledger,
        name="text embeddings",
        kind="other",
        place=place,
        device=device,
        slab_nbytes=slab_nbytes,
        limit=limit,
        poison=poison,
    )


def weight_ring(
    ledger: Ledger,
    *,
    slots: int,
    slot_nbytes: int,
    device: torch.device | str = "cpu",
    place: Place = "device",
    poison: bool = False,
) -> WeightRing:
    """Slots for weights that stream past."""
    return WeightRing(
        ledger,
        name="weights",
        slots=slots,
        slot_nbytes=slot_nbytes,
        device=device,
        place=place,
        poison=poison,
    )


def staging_pool(
    ledger: Ledger,
    *,
    buffers: int = 4,
    nbytes: int = 4 * 2**20,
    pinned: bool | None = None,
) -> StagingPool:
    """Buffers in main memory for bytes on their way.

    Args:
        pinned: page-locked; where CUDA is, by default.
    """
    return StagingPool(
        ledger,
        buffers=buffers,
        nbytes=nbytes,
        pinned=torch.cuda.is_available() if pinned is None else pinned,
    )
