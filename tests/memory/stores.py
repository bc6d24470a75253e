"""Small stores for tests, and what must hold of them at rest."""

from __future__ import annotations

from pathlib import Path

import torch

from octavo.memory.disk import DiskTier
from octavo.memory.encoder import Encoding
from octavo.memory.ledger import PLACES, Ledger
from octavo.memory.store import TieredStore
from octavo.memory.store_settings import StoreSettings

KIB = 1024
RAW = StoreSettings(encoding=Encoding(enabled=False))
PACKED = StoreSettings(encoding=Encoding(min_ratio=1.05))


def make_store(
    folder: Path | None,
    *,
    device: int = 64 * KIB,
    host: int = 128 * KIB,
    disk: int = 64 << 20,
    settings: StoreSettings = RAW,
    keep: bool = False,
) -> TieredStore:
    ledger = Ledger({"device": device, "host": host, "disk": disk if folder else 0})
    tier = DiskTier(folder, ledger, keep=keep) if folder else None
    return TieredStore(ledger, disk=tier, settings=settings)


def value(seed: int, nbytes: int = 16 * KIB) -> torch.Tensor:
    """Random bytes, as float32 where they can be: no two seeds share them."""
    made = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (nbytes,), generator=made, dtype=torch.uint8)


def same(first: torch.Tensor, second: torch.Tensor) -> bool:
    """To the bit, NaNs included."""
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    one, two = (t.contiguous().reshape(-1).view(torch.uint8) for t in (first, second))
    return torch.equal(one, two)


def ledger_of(store: TieredStore) -> Ledger:
    return store._shelves.ledger


def at_rest(store: TieredStore) -> None:
    """The books agree, nothing is moving and every byte is accounted for."""
    shelves = store._shelves
    shelves.check()
    shelves.reap()
    for place in PLACES:
        state = ledger_of(store).state(place)
        assert state.peak <= state.budget
    in_device = ledger_of(store).used("device")
    staging = ledger_of(store).state("device").by_kind["staging"]
    assert in_device == shelves.held["device"] + shelves.lent_bytes(), staging
