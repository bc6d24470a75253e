"""Allocators that fail, and what the ledger must look like."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from octavo.memory.ledger import Ledger, Place
from octavo.memory.pools import slab as slab_module

MIB = 2**20


def ledger(device: int = 64 * MIB, host: int = 64 * MIB) -> Ledger:
    return Ledger({"device": device, "host": host})


def counted(books: Ledger, place: Place = "device") -> int:
    """The sum over all holdings, which must be what the ledger says is used."""
    total = sum(held.nbytes for held in books.holdings(place))
    assert total == books.used(place)
    return total


def fail_at(monkeypatch: pytest.MonkeyPatch, turn: int, error: BaseException) -> Callable[[], int]:
    """Has the ``turn``-th slab allocation (from 1) fail; gives back a count of allocations."""
    real = slab_module._allocate
    calls = 0

    def allocate(nbytes: int, device: torch.device, pinned: bool) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == turn:
            raise error
        return real(nbytes, device, pinned)

    monkeypatch.setattr(slab_module, "_allocate", allocate)
    return lambda: calls
