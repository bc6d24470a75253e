"""A small checkpoint for the folder's tests, and a watch on what loads leave behind."""

from __future__ import annotations

import mmap
import weakref
from pathlib import Path

import pytest
import torch

from octavo.memory.ledger import Ledger
from octavo.models.loading import memory
from tests.models.loading.small import Saved, Traces, save


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """bfloat16 in two shards; not to be written to."""
    return save(tmp_path_factory.mktemp("small"))


@pytest.fixture
def own(tmp_path: Path) -> Saved:
    """The same, to be damaged."""
    return save(tmp_path / "small")


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Traces:
    """A ledger, and every buffer that loads take."""
    found = Traces(Ledger({"host": 10**9}), [])

    def watched(nbytes: int, *, pinned: bool = False) -> torch.Tensor:
        del pinned
        area = mmap.mmap(-1, max(-(-nbytes // 4096) * 4096, 4096))
        found.areas.append(weakref.ref(area))
        return torch.frombuffer(area, dtype=torch.uint8)[:nbytes]

    monkeypatch.setattr(memory, "host_buffer", watched)
    return found
