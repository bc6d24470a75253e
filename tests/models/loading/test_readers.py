"""The pool against plain reads: every alignment, file systems that refuse, order, and stopping."""

from __future__ import annotations

import errno
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from octavo.errors import BrokenFile, InputError, ReleasedError, SourceNotFound
from octavo.memory.buffers import PAGE, host_buffer
from octavo.models.loading import ReaderPool, opened
from octavo.models.loading.readers import Stop
from tests.models.loading.small import open_shards, threads_left

SIZE = 5 * PAGE * 16 + 1234


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("read") / "file"
    made.write_bytes(random.Random(0).randbytes(SIZE))
    return made


def buffer(nbytes: int, shift: int) -> torch.Tensor:
    """Whose address is ``shift`` beyond a page; what must not be written to is 7."""
    whole = host_buffer(max(nbytes + shift + PAGE, 1 << 18)).fill_(7)
    return whole[shift : shift + nbytes]


@pytest.mark.parametrize("direct", [None, False])
def test_any_range_into_any_address(path: Path, direct: bool | None) -> None:
    raw = path.read_bytes()
    draw = random.Random(1)
    with ReaderPool(threads=4, chunk_bytes=2 * PAGE, direct=direct) as pool:
        for number in range(300):
            offset = draw.choice([0, PAGE, draw.randrange(SIZE), SIZE - draw.randrange(1, PAGE)])
            nbytes = min(draw.choice([1, PAGE, draw.randrange(0, SIZE)]), SIZE - offset)
            shift = offset % PAGE if number % 2 else draw.randrange(PAGE)
            into = buffer(nbytes, shift)
            pool.read(path, offset, into).result()
            assert into.numpy().tobytes() == raw[offset : offset + nbytes]
            around = into.as_strided((nbytes + 8,), (1,))[nbytes:]
            assert (around == 7).all(), "written beyond the end"
    assert not open_shards(path.parent)
    assert not threads_left()


def test_the_end_of_the_file(path: Path) -> None:
    with ReaderPool(chunk_bytes=PAGE) as pool:
        for offset, nbytes in ((SIZE - 10, 11), (SIZE, 1), (0, SIZE + 1), (SIZE + 5 * PAGE, 1)):
            with pytest.raises(BrokenFile, match="ends at byte") as caught:
                pool.read(path, offset, buffer(nbytes, offset % PAGE)).result()
            assert str(path) in str(caught.value)
        pool.read(path, SIZE, buffer(0, 0)).result()
        with pytest.raises(SourceNotFound):
            pool.read(path.parent / "none", 0, buffer(1, 0)).result()
        with pytest.raises(InputError, match="directory"):
            pool.read(path.parent, 0, buffer(1, 0)).result()


@pytest.mark.parametrize("refused", ["open", "read"])
def test_file_systems_without_direct_io(
    path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    real_open, real_read = os.open, opened.read_at
    asked = []

    def open_(name: Any, flags: int, *rest: Any) -> int:
        asked.append(flags)
        if refused == "open" and flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no direct I/O")
        return real_open(name, flags, *rest)

    def read_at(fd: int, view: memoryview, offset: int) -> int:
        import fcntl

        if refused == "read" and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "no direct I/O")
        return real_read(fd, view, offset)

    monkeypatch.setattr(opened.os, "open", open_)
    monkeypatch.setattr(opened, "read_at", read_at)
    into = buffer(SIZE, 0)
    with ReaderPool(threads=4, chunk_bytes=4 * PAGE) as pool:
        pool.read(path, 0, into).result()
    assert asked[0] & os.O_DIRECT
    assert into.numpy().tobytes() == path.read_bytes()


def test_lower_orders_come_first_and_stopped_ones_not_at_all(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = opened.read_at
    begun, go_on = threading.Event(), threading.Event()
    seen: list[int] = []

    def slow(fd: int, view: memoryview, offset: int) -> int:
        seen.append(offset)
        begun.set()
        assert go_on.wait(30)
        return real(fd, view, offset)

    monkeypatch.setattr(opened, "read_at", slow)
    stop = Stop()
    with ReaderPool(threads=1, chunk_bytes=PAGE) as pool:
        first = pool.read(path, 0, buffer(PAGE, 0), order=5)
        assert begun.wait(30)
        later = pool.read(path, 2 * PAGE, buffer(PAGE, 0), order=3)
        stopped = pool.read(path, 3 * PAGE, buffer(PAGE, 0), order=2, stop=stop)
        sooner = pool.read(path, PAGE, buffer(PAGE, 0), order=1)
        stop.set()
        go_on.set()
        for read in (first, later, sooner):
            read.result(30)
        with pytest.raises(ReleasedError):
            stopped.result(30)
    assert seen == [0, PAGE, 2 * PAGE]


def test_a_failed_read_ends_after_its_last_block(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing writes to the memory once the future is done."""
    real = opened.read_at
    under_way, go_on = threading.Event(), threading.Event()

    def uneven(fd: int, view: memoryview, offset: int) -> int:
        if offset == 0:
            assert under_way.wait(30)
            raise OSError(errno.EIO, "broken")
        under_way.set()
        assert go_on.wait(30)
        return real(fd, view, offset)

    monkeypatch.setattr(opened, "read_at", uneven)
    with ReaderPool(threads=2, chunk_bytes=PAGE) as pool:
        read = pool.read(path, 0, buffer(2 * PAGE, 0))
        assert under_way.wait(30)
        with pytest.raises(TimeoutError):
            read.result(0.05)
        go_on.set()
        with pytest.raises(InputError, match="broken"):
            read.result(30)
