"""A disk that is full, fails, returns too little, or loses and changes bytes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from octavo.errors import CodecError, CorruptValue, LostValue, TierError, TierFull
from tests.memory.disk.tiers import KIB, MIB, get, ledger, on_disk, put, slab_of, tier, value

Call = Callable[..., int]


class Faulty:
    """``os.preadv`` or ``os.pwritev`` that does something else at some calls."""

    def __init__(self, name: str, fault: Callable[[int, Call, tuple[object, ...]], int]) -> None:
        self.real: Call = getattr(os, name)
        self.fault = fault
        self.calls = 0
        self._lock = threading.Lock()

    def __call__(self, *given: object) -> int:
        with self._lock:
            self.calls += 1
            number = self.calls
        return self.fault(number, self.real, given)


def failing(code: int, at: int) -> Callable[[int, Call, tuple[object, ...]], int]:
    def fault(number: int, real: Call, given: tuple[object, ...]) -> int:
        if number >= at:
            raise OSError(code, os.strerror(code))
        return real(*given)

    return fault


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize(("nbytes", "at"), [(1000, 1), (MIB, 1), (MIB, 5)])
def test_a_full_disk_holds_nothing_of_the_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, at: int, nbytes: int
) -> None:
    books = ledger()
    with tier(tmp_path, books) as made:
        before = put(made, value(nbytes, seed=1))
        used = books.used("disk")
        with monkeypatch.context() as broken:
            broken.setattr(os, "pwritev", Faulty("pwritev", failing(code, at)))
            with pytest.raises(TierFull, match="no room") as caught:
                put(made, value(nbytes, seed=2))
        assert isinstance(caught.value.__cause__, OSError)
        assert ".slab" in (caught.value.where or "")
        assert books.used("disk") == used
        assert made.stats().idle_bytes == 0
        assert on_disk(tmp_path) == -(-nbytes // 4096) * 4096
        assert made.stats().errors == 1
        again = put(made, value(nbytes, seed=3))
        assert again.slot == 1
        assert torch.equal(get(made, again), value(nbytes, seed=3))
        assert torch.equal(get(made, before), value(nbytes, seed=1))


def test_blocks_of_freed_extents_make_room_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tier(tmp_path) as made:
        for extent in [put(made, value(MIB)) for _ in range(4)]:
            made.free(extent)
        assert on_disk(tmp_path) == 4 * MIB

        def fault(number: int, real: Call, given: tuple[object, ...]) -> int:
            if on_disk(tmp_path) > MIB:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*given)

        monkeypatch.setattr(os, "pwritev", Faulty("pwritev", fault))
        assert torch.equal(get(made, put(made, value(100 * KIB))), value(100 * KIB))


def test_a_limit_of_the_file_size_is_a_full_disk(tmp_path: Path) -> None:
    script = """
        import resource, sys
        from pathlib import Path
        from octavo.errors import TierFull
        from tests.memory.disk.tiers import MIB, get, ledger, put, tier, value
        books = ledger()
        with tier(Path(sys.argv[1]), books) as made:
            resource.setrlimit(resource.RLIMIT_FSIZE, (5 * MIB + 4096, 5 * MIB + 4096))
            extents = [put(made, value(MIB, seed=n)) for n in range(5)]
            for _ in range(3):
                try:
                    put(made, value(MIB, seed=9))
                except TierFull:
                    pass
                else:
                    raise SystemExit("it fitted")
            assert books.used("disk") == 5 * MIB
            made.free(extents[2])
            extents[2] = put(made, value(MIB, seed=2))
            for n, extent in enumerate(extents):
                assert get(made, extent).equal(value(MIB, seed=n))
    """
    run(script, tmp_path)


@pytest.mark.parametrize("way", ["preadv", "pwritev"])
@pytest.mark.parametrize("nbytes", [1000, 64 * KIB, MIB + 5])
def test_an_io_error_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, nbytes: int
) -> None:
    books = ledger()
    with tier(tmp_path, books) as made:
        extent = put(made, value(nbytes))
        used = books.used("disk")
        with monkeypatch.context() as broken:
            broken.setattr(os, way, Faulty(way, failing(errno.EIO, 1 if nbytes < MIB else 7)))
            with pytest.raises(TierError, match="Input/output error") as caught:
                get(made, extent) if way == "preadv" else put(made, value(nbytes))
        assert type(caught.value) is TierError
        assert books.used("disk") == used
        assert made.stats().errors == 1
        assert torch.equal(get(made, extent), value(nbytes))
        assert put(made, value(nbytes)).slot == 1


@pytest.mark.parametrize("direct", [None, False])
@pytest.mark.parametrize("way", ["preadv", "pwritev"])
@pytest.mark.parametrize("most", [1000, 4096, 10_000])
def test_short_reads_and_writes_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, most: int, direct: bool | None
) -> None:
    seen: set[object] = set()

    def fault(number: int, real: Call, given: tuple[object, ...]) -> int:
        fd, (view,), offset = given
        if offset in seen:
            return real(fd, [view[: max(most // 4096, 1) * 4096]], offset)
        seen.add(offset)
        return min(most, real(fd, [view], offset))

    data_b = value(5 * 64 * KIB + 77)
    with tier(tmp_path, direct=direct) as made:
        with monkeypatch.context() as broken:
            faulty = Faulty(way, fault)
            broken.setattr(os, way, faulty)
            extent = put(made, data_b)
            assert torch.equal(get(made, extent), data_b)
            assert faulty.calls > 10
        assert torch.equal(get(made, extent), data_b)


def test_signals_do_not_disturb(tmp_path: Path) -> None:
    heard = []
    before = signal.signal(signal.SIGALRM, lambda *_: heard.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        with tier(tmp_path) as made:
            for seed in range(6):
                data_b = value(2 * MIB + 9, seed=seed)
                assert torch.equal(get(made, put(made, data_b)), data_b)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert heard


@pytest.mark.parametrize("way", ["preadv", "pwritev"])
def test_a_disk_that_does_nothing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    with tier(tmp_path) as made:
        extent = put(made, value(64 * KIB))
        monkeypatch.setattr(os, way, Faulty(way, lambda *_: way == "preadv"))
        with pytest.raises(TierError, match=r"the disk (gives|took)"):
            get(made, extent) if way == "preadv" else put(made, value(64 * KIB))
        monkeypatch.undo()


@pytest.mark.parametrize("at", [0, 64 * KIB + 1, 5 * 64 * KIB + 76])
def test_a_flipped_bit_is_found(tmp_path: Path, at: int) -> None:
    with tier(tmp_path) as made:
        first = put(made, value(5 * 64 * KIB + 77, seed=1))
        extent = put(made, value(5 * 64 * KIB + 77, seed=2))
        flip(slab_of(tmp_path, extent), extent.offset + at)
        with pytest.raises(CorruptValue, match=f"block {at // (64 * KIB)} of 6") as caught:
            get(made, extent)
        assert (caught.value.where or "").endswith(".slab")
        assert torch.equal(get(made, first), value(5 * 64 * KIB + 77, seed=1))
        made.free(extent)


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 4]))


@pytest.mark.parametrize("left", [0, 4096, 70_000])
@pytest.mark.parametrize("direct", [None, False])
def test_a_file_that_was_cut_has_lost_its_values(
    tmp_path: Path, left: int, direct: bool | None
) -> None:
    with tier(tmp_path, direct=direct) as made:
        extent = put(made, value(200 * KIB))
        os.truncate(slab_of(tmp_path, extent), left)
        with pytest.raises(LostValue, match="before the value does"):
            get(made, extent)
        made.free(extent)
        assert torch.equal(get(made, put(made, value(200 * KIB))), value(200 * KIB))


def test_a_file_whose_name_was_removed_still_gives_its_values(tmp_path: Path) -> None:
    with tier(tmp_path) as made:
        extent = put(made, value(200 * KIB))
        slab_of(tmp_path, extent).unlink()
        assert torch.equal(get(made, extent), value(200 * KIB))


def test_an_index_that_cannot_be_written_commits_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(fd: int, data: bytes) -> int:
        real(fd, bytes(data)[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    real = os.write
    with tier(tmp_path, keep=True) as made:
        kept = [put(made, value(100, seed=n)) for n in range(3)]
        made.commit("first", {}, kept[0])
        with monkeypatch.context() as broken:
            broken.setattr(os, "write", half)
            with pytest.raises(TierFull):
                made.commit("second", {}, kept[1])
        made.commit("third", {"a": 1}, kept[2])
        with pytest.raises(CodecError, match="JSON"):
            made.commit("third", {"a": object()}, kept[1])
    with tier(tmp_path, keep=True) as made:
        found = {key: get(made, extent) for key, _, extent in made.recover()}
        assert set(found) == {"first", "third"}
        assert torch.equal(found["third"], value(100, seed=2))


def test_an_extent_that_cannot_be_voided_is_not_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, data: bytes) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    books = ledger()
    with tier(tmp_path, books, keep=True) as made:
        extent = put(made, value(100, seed=1))
        made.commit("old", {}, extent)
        with monkeypatch.context() as broken:
            broken.setattr(os, "write", refuse)
            made.free(extent)
        assert books.used("disk") == 0
        assert made.stats().errors == 1
        assert put(made, value(100, seed=2)).slot != extent.slot
    with tier(tmp_path, keep=True) as made:
        ((key, _, extent),) = made.recover()
        assert (key, get(made, extent).tolist()) == ("old", value(100, seed=1).tolist())


def run(script: str, *arguments: object) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr
