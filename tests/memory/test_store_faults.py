"""What fails while bytes move costs no value but those that the disk really lost."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from octavo.errors import CodecError, CorruptValue, LostValue, OctavoError, TierFull
from octavo.memory import encoder, mover
from octavo.memory.entry import Terms
from octavo.memory.ledger import PLACES
from tests.memory.stores import KIB, PACKED, at_rest, ledger_of, make_store, same, value


def on_disk(store, count: int = 6) -> None:  # type: ignore[no-untyped-def]
    for seed in range(count):
        store[seed] = value(seed)
    store.relieve("device", 1 << 20)
    store.relieve("host", 1 << 20)
    assert all(store.places(seed) == ("disk",) for seed in range(count))


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with make_store(tmp_path) as store:
        for seed in range(8):
            store[seed] = value(seed)

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as broken:
            broken.setattr(os, "pwritev", full)
            with pytest.raises(TierFull, match="no room"):
                store["more"] = value(99)
            assert "more" not in store
            for seed in range(8):
                assert same(store[seed], value(seed))
        assert store.stats().failures
        store["more"] = value(99)  # the disk has room again
        for seed in range(8):
            assert same(store[seed], value(seed))
        at_rest(store)


def test_a_full_disk_budget_loses_nothing(tmp_path: Path) -> None:
    with make_store(tmp_path, disk=64 * KIB) as store:
        taken = []

        def fill() -> None:
            for seed in range(100):
                store[seed] = value(seed)
                taken.append(seed)

        with pytest.raises(TierFull, match="disk memory"):
            fill()
        assert len(taken) == 12  # four in each tier; the disk tier keeps a part of the host's
        del store[taken.pop()]  # with every byte taken, nothing could pass through
        for seed in taken:
            assert same(store[seed], value(seed))
        at_rest(store)


def test_a_flipped_bit_is_found_and_costs_one_value(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        on_disk(store)
        slab = max((path for path in tmp_path.rglob("*") if path.is_file()), key=_blocks)
        with slab.open("r+b") as file:
            file.seek(100)
            byte = file.read(1)
            file.seek(100)
            file.write(bytes([byte[0] ^ 1]))
        failed, said = [], ""
        for seed in range(6):
            try:
                assert same(store[seed], value(seed))
            except CorruptValue as error:
                failed.append(seed)
                said = str(error)
        assert len(failed) == 1
        assert str(failed[0]) in said
        assert failed[0] not in store
        assert store.stats().lost == 1
        store[failed[0]] = value(failed[0])
        assert same(store[failed[0]], value(failed[0]))
        at_rest(store)


def test_a_cut_file_costs_what_was_in_it_and_no_more(tmp_path: Path) -> None:
    with make_store(tmp_path) as store:
        on_disk(store)
        store["above"] = value(77)
        for path in tmp_path.rglob("*"):
            if path.is_file() and path.stat().st_size > 16 * KIB:
                os.truncate(path, 16 * KIB)
        lost = 0
        for seed in range(6):
            try:
                assert same(store[seed], value(seed))
            except (LostValue, CorruptValue):
                lost += 1
        assert lost == 5
        assert same(store["above"], value(77))
        at_rest(store)


def test_a_codec_that_fails_leaves_the_plain_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = torch.zeros(16 * KIB, dtype=torch.uint8)

    def broken(*_: object, **__: object) -> None:
        raise CodecError("injected")

    with make_store(tmp_path, host=16 << 20, settings=PACKED) as store:
        monkeypatch.setattr(encoder, "encode_within", broken)
        for seed in range(30):
            store[seed] = flat + seed
        for seed in range(30):
            assert same(store[seed], flat + seed)
        assert store.stats().failures["CodecError"] > 0
        at_rest(store)


def test_a_value_that_cannot_be_decoded_is_refused_and_not_made_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_store(tmp_path, settings=PACKED, host=0) as store:
        store["it"] = torch.zeros(16 * KIB, dtype=torch.uint8)
        store["other"] = value(2)
        store.relieve("device", 1 << 20)
        header = store._shelves.entries["it"].header
        assert header is not None
        header["codec"] = "no such codec"
        with pytest.raises(CodecError):
            _ = store["it"]
        assert "it" not in store
        assert same(store["other"], value(2))
        at_rest(store)


@pytest.mark.parametrize("failing", range(1, 12))
def test_an_allocation_that_fails_leaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """The n-th host buffer cannot be had: that operation fails, everything else goes on."""
    count = 0
    make = mover.host_buffer

    def scarce(nbytes: int, *, pinned: bool = False) -> torch.Tensor:
        nonlocal count
        count += 1
        if count == failing:
            raise RuntimeError("not enough memory (injected)")
        return make(nbytes, pinned=pinned)

    monkeypatch.setattr(mover, "host_buffer", scarce)
    store = make_store(tmp_path, device=64 * KIB, host=64 * KIB)
    model = {}
    failures = 0
    for turn in range(3):
        for seed in range(12):
            try:
                if turn == 0:
                    store[seed] = value(seed)
                    model[seed] = value(seed)
                else:
                    assert same(store[seed], model[seed])
            except RuntimeError:
                failures += 1
    assert failures == 1
    assert set(store) == set(model)
    for seed, expected in model.items():
        assert same(store[seed], expected)
    at_rest(store)
    store.close()
    assert all(ledger_of(store).used(place) == 0 for place in PLACES)


def test_a_read_error_leaves_the_value_to_be_read_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_store(tmp_path) as store:
        on_disk(store)

        def unreadable(*_: object) -> int:
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as broken:
            broken.setattr(os, "preadv", unreadable)
            with pytest.raises(OctavoError):
                _ = store[0]
            store.prefetch([1])
            store._fetching and next(iter(store._fetching.values())).result()
        assert store.stats().prefetch_failures == 1
        for seed in range(6):
            assert same(store[seed], value(seed))
        at_rest(store)


def test_a_droppable_value_that_cannot_go_down_is_dropped_but_not_a_pinned_one(
    tmp_path: Path,
) -> None:
    with make_store(None, host=0) as store:
        store.put("pinned", value(0), Terms(droppable=True))
        with store.pinned("pinned") as tensor:
            for seed in range(1, 9):
                store.put(seed, value(seed), Terms(droppable=True))
            assert "pinned" in store
            assert same(tensor, value(0))
        at_rest(store)


def _blocks(path: Path) -> int:
    return path.stat().st_blocks
