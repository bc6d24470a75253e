"""Blocks in lower tiers: read in place, written once, and nothing lost when the disk fails."""

from __future__ import annotations

import errno
import gc
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from octavo.engine.attention import attend
from octavo.engine.kv import KvSequence, PagedKV
from octavo.engine.kv_layout import PRECISIONS, KvPrecision
from octavo.errors import BudgetExceeded, ConfigError, LostValue, TierError, TierFull
from octavo.memory import DiskTier, Ledger, TieredStore
from octavo.memory.entry import Terms
from octavo.memory.policies.base import Key
from octavo.memory.split import SplitStore
from tests.engine.kv_tools import DIM, Stream, cache, contents, sizes


class Shelf:
    """A store in memory that counts, and fails on request."""

    def __init__(self) -> None:
        self.held: dict[Key, torch.Tensor] = {}
        self.puts: Counter[Key] = Counter()
        self.prefetched: list[Key] = []
        self.room = 10**9

    def put(self, key: Key, tensor: torch.Tensor, terms: Terms) -> None:
        assert terms.kind == "kv"
        if len(self.held) >= self.room:
            raise TierFull("injected: no space")
        self.puts[key] += 1
        self.held[key] = tensor.clone()

    def __getitem__(self, key: Key) -> torch.Tensor:
        return self.held[key]

    def discard(self, key: Key) -> bool:
        return self.held.pop(key, None) is not None

    def prefetch(self, keys: Iterable[Key]) -> None:
        self.prefetched += keys


@pytest.fixture(autouse=True)
def _small_extents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octavo.engine.kv_layout._TILE_TOKENS", (16, 24))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SplitStore]:
    ledger = Ledger({"device": 1 << 20, "host": 64 << 20, "disk": 64 << 20})
    tiers = TieredStore(ledger, disk=DiskTier(tmp_path, ledger))
    with tiers:
        yield SplitStore(tiers, 1 << 20)


def _answers(sequence: KvSequence, stream: Stream) -> list[torch.Tensor]:
    at = slice(sequence.length, sequence.length + 1)
    return [
        attend(
            layer,
            stream.queries[number][:, :, at],
            stream.keys[number][:, at],
            stream.values[number][:, at],
            scale=DIM**-0.5,
        )
        for number, layer in enumerate(sequence.layers)
    ]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_was_spilled_is_read_in_place(precision: KvPrecision, store: SplitStore) -> None:
    stream, kv = Stream(300), cache(sizes(precision), 200, store=store)
    sequence = kv.sequence("a")
    stream.append(sequence, 150)
    before = _answers(sequence, stream)
    freed = sequence.spill()
    assert freed > 20
    assert sequence.nbytes < 8 * kv.sizes.exact.nbytes + 12 * kv.sizes.full.nbytes
    for now, then in zip(_answers(sequence, stream), before, strict=True):
        assert torch.equal(now, then)
    stream.append(sequence, 40)
    assert sequence.restore() == freed
    assert contents(sequence, 0)[0].shape[1] == 190
    sequence.release()
    assert len(store) == 0


@pytest.mark.parametrize("precision", PRECISIONS)
def test_with_a_store_a_sequence_grows_beyond_its_pools(
    precision: KvPrecision, store: SplitStore
) -> None:
    stream, kv = Stream(600), cache(sizes(precision), 150, store=store)
    wide = cache(sizes(precision), 600)
    sequence, other = kv.sequence("a"), wide.sequence("b")
    for count in (100, 50, *[1] * 30, *[60] * 5):
        stream.append(sequence, count)
        stream.append(other, count)
    assert sequence.length > 3 * 150
    assert kv.nbytes <= kv.sizes.nbytes_for(150)
    for now, then in zip(_answers(sequence, stream), _answers(other, stream), strict=True):
        assert torch.allclose(now, then, atol=2e-5)
    sequence.release()
    assert len(store) == 0


def test_a_written_block_is_never_written_again() -> None:
    shelf, stream = Shelf(), Stream(300)
    kv = cache(sizes("int8"), 300, store=shelf)
    sequence = kv.sequence("a")
    wrote = 0
    for _ in range(10):
        stream.append(sequence, 20)
        wrote += sequence.write_back()
    assert sequence.write_back() == 0
    assert wrote == len(shelf.held) > 10
    copies = {key: tensor.clone() for key, tensor in shelf.held.items()}
    sequence.spill()
    sequence.park()
    sequence.resume()
    sequence.restore()
    stream.append(sequence, 50)
    sequence.spill()
    assert set(shelf.puts.values()) == {1}
    assert all(torch.equal(shelf.held[key], copies[key]) for key in copies)
    sequence.release()
    assert shelf.held == {}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("length", [3, 40, 150])
def test_a_parked_sequence_takes_nothing_and_goes_on(
    precision: KvPrecision, length: int, store: SplitStore
) -> None:
    stream, kv = Stream(300), cache(sizes(precision), 250, store=store)
    sequence = kv.sequence("a")
    stream.append(sequence, length)
    before = _answers(sequence, stream)
    sequence.park()
    sequence.park()
    assert kv.full.stats().used == kv.exact.stats().used == 0
    sequence.resume()
    sequence.resume()
    for now, then in zip(_answers(sequence, stream), before, strict=True):
        assert torch.equal(now, then)
    stream.append(sequence, 30)
    assert contents(sequence, 1)[0].shape[1] == length + 30
    sequence.park()
    sequence.release()
    assert len(store) == 0


def test_layers_are_asked_for_ahead() -> None:
    shelf, stream = Shelf(), Stream(200)
    kv = cache(sizes("int8"), 200, store=shelf)
    sequence = kv.sequence("a")
    stream.append(sequence, 150)
    sequence.prefetch(1)
    assert shelf.prefetched == []  # all is in the pool
    sequence.spill()
    sequence.prefetch(1)
    sequence.prefetch(2)  # there is none
    held = [extent.prefetch() for extent in sequence.layers[1].extents]
    assert shelf.prefetched == [key for key in held if key is not None] != []


def test_spilled_extents_are_shared_by_forks() -> None:
    shelf, stream = Shelf(), Stream(300)
    kv = cache(sizes("int8"), 300, sequences=2, store=shelf)
    first = kv.sequence("a")
    stream.append(first, 150)
    first.spill()
    puts = sum(shelf.puts.values())
    second = first.fork()
    stream.append(second, 20)
    first.release()
    assert shelf.held
    assert (contents(second, 0)[0] - stream.keys[0][:, :170]).abs().max() < 0.05
    second.spill()
    assert sum(shelf.puts.values()) < 2 * puts
    second.release()
    assert shelf.held == {}
    assert kv.full.stats().used == 0


@pytest.mark.parametrize("room", range(0, 12, 3))
@pytest.mark.parametrize("step", ["spill", "park", "write_back"])
def test_a_full_disk_loses_nothing(room: int, step: str) -> None:
    shelf, stream = Shelf(), Stream(300)
    kv = cache(sizes("int8"), 250, store=shelf)
    sequence = kv.sequence("a")
    stream.append(sequence, 150)
    before = _answers(sequence, stream)
    shelf.room = room
    with pytest.raises(TierFull):
        getattr(sequence, step)()
    for now, then in zip(_answers(sequence, stream), before, strict=True):
        assert torch.equal(now, then)
    stream.append(sequence, 20)
    shelf.room = 10**9
    getattr(sequence, step)()
    assert set(shelf.puts.values()) == {1}
    sequence.release()
    assert shelf.held == {}


def test_a_disk_without_space_refuses_growth_and_keeps_the_sequence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger({"device": 0, "host": 8 << 20, "disk": 64 << 20})
    disk = DiskTier(tmp_path, ledger)
    # No host tier for values: all of the host is for the disk's buffers.
    with TieredStore(ledger, disk=disk) as tiers:
        stream, kv = Stream(400), cache(sizes("int8"), 100, store=tiers)
        sequence = kv.sequence("a")
        stream.append(sequence, 100)
        ledger.set_budget("host", ledger.used("host"))

        def full(*_: Any, **__: Any) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        for name in ("pwrite", "pwritev", "write", "posix_fallocate", "ftruncate"):
            monkeypatch.setattr(os, name, full)
        with pytest.raises((TierError, BudgetExceeded)):
            _grow(stream, sequence)
        monkeypatch.undo()
        ledger.set_budget("host", 8 << 20)
        length = sequence.length
        assert {layer.length for layer in sequence.layers} == {length}
        assert (contents(sequence, 0)[0] - stream.keys[0][:, :length]).abs().max() < 0.05
        sequence.release()


def _grow(stream: Stream, sequence: KvSequence) -> None:
    for _ in range(6):
        stream.append(sequence, 40)


def test_a_lost_block_is_an_error_that_says_so() -> None:
    shelf, stream = Shelf(), Stream(200)
    kv = cache(sizes("int8"), 200, store=shelf)
    sequence = kv.sequence("a")
    stream.append(sequence, 150)
    sequence.spill()
    shelf.held.popitem()
    with pytest.raises(LostValue, match="gone"):
        _answers(sequence, stream)
    sequence.release()


def test_without_a_store_nothing_can_be_parked() -> None:
    kv = cache(sizes("int8"))
    sequence = kv.sequence("a")
    Stream(100).append(sequence, 60)
    for step in ("spill", "park", "write_back"):
        with pytest.raises(ConfigError, match="no store"):
            getattr(sequence, step)()
    sequence.prefetch(0)


def test_nothing_is_kept_alive(store: SplitStore) -> None:
    ledger = Ledger({"device": sizes("int8").nbytes_for(150)})
    kv = PagedKV(ledger, sizes("int8"), budget=ledger.budget("device"), store=store)
    sequence = kv.sequence("a")
    stream = Stream(400)
    for _ in range(6):
        stream.append(sequence, 50)
    sequence.release()
    kv.close()
    gc.collect()
    assert ledger.used("device") == 0
    assert len(store) == 0
