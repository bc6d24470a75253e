"""Without xxhash the disk tier signs its blocks with what Python has."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from octavo.errors import CorruptValue
from octavo.memory.disk import sums, transfer
from tests.memory.disk.test_faults import flip
from tests.memory.disk.tiers import MIB, get, put, slab_of, tier, unaligned, value


@pytest.fixture
def no_xxhash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "xxhash", None)
    monkeypatch.setattr(transfer, "new_digest", sums.Blake)


def test_pieces_sign_as_the_whole(no_xxhash: None) -> None:
    data = bytes(range(256)) * 9
    expected = int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
    pieces = sums.Blake()
    pieces.update(data[:100])
    pieces.update(data[100:])
    assert sums.checksum(data) == pieces.intdigest() == expected
    assert sums.checksum(data[:-1]) != expected


def test_it_is_used_only_where_xxhash_is_missing() -> None:
    xxhash = pytest.importorskip("xxhash")
    assert sums.checksum(b"block") == xxhash.xxh3_64_intdigest(b"block")
    assert sums.digest is xxhash.xxh3_64


def test_values_come_back_and_damage_is_found(tmp_path: Path, no_xxhash: None) -> None:
    data_b = value(MIB + 5, seed=3)
    with tier(tmp_path) as made:
        for given_b in (data_b, unaligned(data_b)):
            assert torch.equal(get(made, put(made, given_b)), data_b)
        extent = put(made, data_b)
        flip(slab_of(tmp_path, extent), extent.offset + 70_000)
        with pytest.raises(CorruptValue, match="not what was written"):
            get(made, extent)
