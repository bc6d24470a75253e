from __future__ import annotations

import pytest
import torch

from octavo.memory.ledger import Ledger
from octavo.memory.pools import feature_pool, kv_pool, staging_pool, text_pool, weight_ring
from tests.memory.pools.faults import MIB, ledger


def held(books: Ledger) -> dict[str, tuple[str, str, int]]:
    return {one.owner: (one.place, one.kind, one.nbytes) for one in books.holdings()}


@pytest.mark.filterwarnings("error")
def test_each_counts_under_its_kind_and_name() -> None:
    books = ledger()
    with (
        kv_pool(books, block_shape=(16, 2, 8), dtype=torch.bfloat16, nbytes=MIB) as kv,
        feature_pool(books, slab_nbytes=2 * MIB) as features,
        text_pool(books, slab_nbytes=MIB) as text,
        weight_ring(books, slots=2, slot_nbytes=4096) as weights,
        staging_pool(books, buffers=2, nbytes=4096) as staging,
    ):
        live = [kv.blocks(1), features.allocate((MIB,), torch.int8), text.allocate((9,))]
        assert held(books) == {
            "kv": ("device", "kv", MIB),
            "features": ("device", "features", 2 * MIB),
            "text embeddings": ("device", "other", MIB // 16),
            "weights": ("device", "weights", 8192),
            "staging": ("host", "staging", 8192),
        }
        assert [pool.stats().kind for pool in (kv, features, text, weights, staging)] == [
            "kv",
            "features",
            "other",
            "weights",
            "staging",
        ]
        for handle in live:
            handle.release()
    assert held(books) == {}
