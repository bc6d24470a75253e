"""The disk tier when nothing fails."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from octavo.errors import ReleasedError, TierError, TierFull
from octavo.memory.disk import DiskTier, Tuning, save_tuning
from octavo.memory.ledger import Ledger
from tests.memory.disk.tiers import (
    KIB,
    MIB,
    SMALL,
    get,
    ledger,
    on_disk,
    put,
    slab_of,
    tier,
    unaligned,
    value,
)

SIZES = [0, 1, 4095, 4096, 4097, 16 * KIB, 300 * KIB, MIB - 1, MIB, 5 * MIB + 7]


@pytest.mark.parametrize("direct", [None, False])
@pytest.mark.parametrize("nbytes", SIZES)
def test_a_value_comes_back(tmp_path: Path, nbytes: int, direct: bool | None) -> None:
    data_b = value(nbytes)
    with tier(tmp_path, direct=direct) as made:
        for given_b in (data_b, unaligned(data_b)):
            extent = put(made, given_b)
            assert extent.nbytes == nbytes
            assert torch.equal(get(made, extent), data_b)
            out_b = unaligned(torch.zeros(nbytes, dtype=torch.uint8))
            made.read(extent, out_b)
            assert torch.equal(out_b, data_b)
        stats = made.stats()
        assert (stats.writes, stats.reads) == (2, 4)
        assert (stats.written_bytes, stats.read_bytes) == (2 * nbytes, 4 * nbytes)
        assert stats.peak_in_flight <= 32
        assert stats.errors == 0


def test_bytes_after_the_last_page_of_a_read_stay_as_they_were(tmp_path: Path) -> None:
    whole_b = value(MIB, seed=1)
    before_b = whole_b.clone()
    with tier(tmp_path) as made:
        made.read(put(made, value(5000, seed=2)), whole_b[4096:9096])
    assert torch.equal(whole_b[:4096], before_b[:4096])
    assert torch.equal(whole_b[12288:], before_b[12288:])


def test_values_do_not_overlap_and_keep_apart_by_class(tmp_path: Path) -> None:
    with tier(tmp_path) as made:
        values = {n: value(SIZES[n % len(SIZES)], seed=n) for n in range(40)}
        extents = {n: put(made, data_b) for n, data_b in values.items()}
        places = {(extent.size, extent.slot) for extent in extents.values()}
        assert len(places) == 40
        for n in range(0, 40, 3):
            made.free(extents.pop(n))
        again = {n: put(made, values[n]) for n in range(0, 40, 3)}
        for n, extent in {**extents, **again}.items():
            assert torch.equal(get(made, extent), values[n])
        # What was freed was reused: no extent lies past where they were at first.
        assert {(extent.size, extent.slot) for extent in again.values()} <= places
        assert sum(made.stats().extents.values()) == 40


def test_the_ledger_counts_pages_and_refuses(tmp_path: Path) -> None:
    books = ledger(disk=MIB)
    with tier(tmp_path, books) as made:
        first = put(made, value(600 * KIB + 1))
        assert books.used("disk") == 604 * KIB == made.stats().used_bytes
        with pytest.raises(TierFull, match="test wants") as caught:
            put(made, value(600 * KIB))
        assert caught.value.next_step is not None
        assert books.used("disk") == 604 * KIB
        made.free(first)
        assert books.used("disk") == 0
        assert torch.equal(get(made, put(made, value(MIB))), value(MIB))


def test_the_disk_never_holds_more_than_the_budget(tmp_path: Path) -> None:
    books = ledger(disk=8 * MIB)
    with tier(tmp_path, books) as made:
        for turn in range(8):
            # Another class each time: what the last one left cannot be reused.
            nbytes = (8 * MIB, 3 * MIB, 900 * KIB, 400 * KIB)[turn % 4]
            extents = [put(made, value(nbytes)) for _ in range(8 * MIB // nbytes)]
            assert on_disk(tmp_path) <= 8 * MIB
            assert torch.equal(get(made, extents[-1]), value(nbytes))
            for extent in extents:
                made.free(extent)


def test_a_smaller_value_in_a_used_extent_takes_its_own_pages_only(tmp_path: Path) -> None:
    with tier(tmp_path) as made:
        made.free(put(made, value(4 * MIB)))
        put(made, value(2 * MIB))
        assert made.stats().idle_bytes == 0
        assert on_disk(tmp_path) == 2 * MIB


def test_trimming_gives_the_disk_back_and_shortens_the_file(tmp_path: Path) -> None:
    with tier(tmp_path) as made:
        extents = [put(made, value(MIB, seed=n)) for n in range(8)]
        path = slab_of(tmp_path, extents[0])
        for n in (1, 2, 5, 6, 7):
            made.free(extents[n])
        assert made.stats().idle_bytes == 5 * MIB
        made.trim()
        assert made.stats().idle_bytes == 0
        assert on_disk(tmp_path) == 3 * MIB
        assert path.stat().st_size == 5 * MIB
        for n in (0, 3, 4):
            assert torch.equal(get(made, extents[n]), value(MIB, seed=n))


def test_many_freed_extents_are_given_back_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("octavo.memory.disk.tier._IDLE_BYTES", 2 * MIB)
    with tier(tmp_path, ledger(disk=8 * MIB)) as made:
        for extent in [put(made, value(MIB)) for _ in range(8)]:
            made.free(extent)
        made._transfer.close()  # waits for what was handed to threads
        assert made.stats().idle_bytes <= 4 * MIB
        assert on_disk(tmp_path) <= 4 * MIB


def test_an_extent_is_of_no_use_after_it_was_freed(tmp_path: Path) -> None:
    with tier(tmp_path) as made:
        extent = put(made, value(100, seed=1))
        made.free(extent)
        made.free(extent)
        with pytest.raises(ReleasedError):
            get(made, extent)
        other = put(made, value(100, seed=2))
        assert (other.size, other.slot) == (extent.size, extent.slot)
        made.free(extent)
        assert torch.equal(get(made, other), value(100, seed=2))


def test_closing_ends_everything_and_may_be_repeated(tmp_path: Path) -> None:
    books = ledger()
    with tier(tmp_path, books) as made:
        extent = put(made, value(100))
    made.close()
    made.free(extent)
    with pytest.raises(ReleasedError, match="closed"):
        put(made, value(100))
    with pytest.raises(ReleasedError, match="closed"):
        get(made, extent)


@pytest.mark.parametrize(
    "wrong_b",
    [
        torch.zeros(4, dtype=torch.int8),
        torch.zeros(4, 4, dtype=torch.uint8),
        torch.zeros(8, dtype=torch.uint8)[::2],
        torch.zeros(8, dtype=torch.uint8, device="meta"),
    ],
)
def test_only_plain_bytes_are_taken(tmp_path: Path, wrong_b: torch.Tensor) -> None:
    with tier(tmp_path) as made:
        with pytest.raises(ValueError, match="1-D uint8"):
            put(made, wrong_b)
        with pytest.raises(ValueError, match="cannot take"):
            made.read(put(made, value(5)), value(4))


def test_direct_io_is_used_where_it_works(tmp_path: Path) -> None:
    # Whether it works here is asked of the system, not of the tier.
    import os

    try:
        os.close(os.open(tmp_path / "asked", os.O_CREAT | os.O_RDWR | os.O_DIRECT))
        works = True
    except OSError:
        works = False
    (tmp_path / "asked").unlink()
    with tier(tmp_path) as made:
        assert made.direct is works is (made.note is None) is made.stats().direct
    with tier(tmp_path, direct=False) as made:
        assert not made.direct
        assert "switched off" in (made.note or "")


@pytest.mark.parametrize("stage", ["open", "write"])
def test_without_direct_io_it_goes_through_the_cache_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    import errno
    import os

    real_open, real_write = os.open, os.pwritev
    opened: set[int] = set()

    def no_direct(path: object, flags: int, *rest: object, **named: object) -> int:
        if flags & os.O_DIRECT and stage == "open":
            raise OSError(errno.EINVAL, "Invalid argument")
        fd = real_open(path, flags & ~os.O_DIRECT, *rest, **named)
        opened.discard(fd)
        if flags & os.O_DIRECT:
            opened.add(fd)
        return fd

    def refused(fd: int, *rest: object) -> int:
        if fd in opened:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real_write(fd, *rest)

    monkeypatch.setattr(os, "open", no_direct)
    monkeypatch.setattr(os, "pwritev", refused)
    with tier(tmp_path) as made:
        assert not made.direct
        assert "takes no direct I/O" in (made.note or "")
        assert made.stats().note == made.note
        assert torch.equal(get(made, put(made, value(MIB + 5))), value(MIB + 5))
    with pytest.raises(TierError, match="takes no direct I/O"):
        DiskTier(tmp_path, ledger(), direct=True)
    assert list(tmp_path.iterdir()) == []


def test_the_tuning_of_this_disk_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kept = Tuning(2 * MIB, 3, True, 1.0, 2.0)
    save_tuning(kept, tmp_path)
    with DiskTier(tmp_path / "disk", ledger()) as made:
        assert made.tuning == kept
        assert put(made, value(5 * MIB)).block == 2 * MIB
    with DiskTier(tmp_path / "disk", ledger(), tuning=SMALL) as made:
        assert made.tuning == SMALL


@pytest.mark.parametrize("host", [0, 600 * KIB, 64 * MIB])
def test_the_buffers_are_counted_where_the_budget_has_room(tmp_path: Path, host: int) -> None:
    books = Ledger({"disk": 64 * MIB, "host": host})
    with tier(tmp_path, books) as made:
        held = books.used("host")
        assert held == made._bounces.piece * 4 * (host > 0)
        assert held <= host // 8
        assert all(holding.kind == "staging" for holding in books.holdings("host"))
        data_b = unaligned(value(MIB + 1))
        assert torch.equal(get(made, put(made, data_b)), data_b)
