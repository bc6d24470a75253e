from __future__ import annotations

import gc
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from octavo.errors import BudgetExceeded, ConfigError, ReleasedError
from octavo.memory.buffers import PAGE
from octavo.memory.ledger import Ledger
from octavo.memory.pools import Part, StagingPool, slots
from tests.memory.pools.faults import counted, fail_at, ledger


class Copying:
    """An event behind a copy."""

    def __init__(self, error: Exception | None = None) -> None:
        self.waits: list[str] = []
        self.error = error

    def wait(self) -> None:
        self.waits.append("stream")

    def synchronize(self) -> None:
        self.waits.append("host")
        if self.error is not None:
            raise self.error


@pytest.fixture
def no_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a notification wakes those who wait."""
    monkeypatch.setattr(slots, "_LOOK_S", 3600.0)


def staging(books: Ledger | None = None, buffers: int = 2, **more: bool) -> StagingPool:
    return StagingPool(books or ledger(), buffers=buffers, nbytes=5000, **more)


def test_buffers_are_aligned_apart_and_counted() -> None:
    books = ledger()
    with staging(books) as pool:
        assert counted(books, "host") == pool.stats().nbytes == 2 * 2 * PAGE
        assert books.state("host").by_kind["staging"] == 4 * PAGE
        with pool.acquire() as one, pool.acquire() as other:
            assert one.buffer.data_ptr() % PAGE == other.buffer.data_ptr() % PAGE == 0
            assert one.buffer.numel() == 5000
            one.buffer.fill_(1)
            other.buffer.fill_(2)
            assert one.buffer.eq(1).all()
            assert pool.try_acquire() is None
            assert pool.stats().free == 0
        assert pool.stats().free == pool.stats().peak == 2
        assert pool.stats().refused == 1
    assert counted(books, "host") == 0


def test_views_by_shape_and_by_layout() -> None:
    with staging() as pool, pool.acquire() as staged:
        staged.view((10, 20), torch.bfloat16).fill_(1.5)
        assert staged.buffer[:400].view(torch.bfloat16).eq(1.5).all()
        layout = {"a": Part(0, (4,), torch.float32), "b": Part(16, (2, 3), torch.int8)}
        views = staged.views(layout)
        views["b"].fill_(3)
        assert staged.buffer[16:22].tolist() == [3] * 6
        for wrong in (
            Part(2, (1,), torch.float32),
            Part(4999, (2,), torch.int8),
            Part(-4, (1,), torch.float32),
        ):
            with pytest.raises(ConfigError):
                staged.views({"wrong": wrong})


def test_use_after_release_and_after_close_raises() -> None:
    pool = staging()
    staged = pool.acquire()
    staged.release()
    staged.release()
    assert pool.stats().free == 2
    with pytest.raises(ReleasedError):
        _ = staged.buffer
    kept = pool.acquire()
    pool.close()
    for use in (lambda: kept.buffer, pool.acquire, pool.try_acquire):
        with pytest.raises(ReleasedError):
            use()
    kept.release()
    pool.close()


@pytest.mark.usefixtures("no_looking")
def test_waits_for_a_release() -> None:
    with staging(buffers=1) as pool, ThreadPoolExecutor(1) as threads:
        staged = pool.acquire()
        waiting = threads.submit(pool.acquire)
        assert not waiting.done()
        staged.release()
        waiting.result().release()


def test_a_wait_ends_with_its_timeout_and_says_who_holds() -> None:
    with staging(buffers=1) as pool:
        held = pool.acquire(owner="reader")
        with pytest.raises(BudgetExceeded, match="held by reader 1"):
            pool.acquire(timeout=0.01, owner="writer")
        assert pool.stats().refused == 1
        held.release()


@pytest.mark.usefixtures("no_looking")
def test_close_wakes_all_who_wait() -> None:
    books = ledger()
    pool = staging(books, buffers=1)
    held = pool.acquire()
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(pool.acquire) for _ in range(4)]
        pool.close()
        for one in waiting:
            with pytest.raises(ReleasedError):
                one.result()
    assert counted(books, "host") == 0
    held.release()


def test_a_dropped_buffer_comes_back_even_to_one_who_waits() -> None:
    with staging(buffers=1) as pool, ThreadPoolExecutor(1) as threads:
        held = [pool.acquire(owner="reader")]
        waiting = threads.submit(pool.acquire)
        held.clear()
        gc.collect()
        waiting.result().release()
        assert pool.stats().leaked == {"reader": 1}


def test_a_copy_that_still_runs_is_waited_for() -> None:
    with staging(buffers=1) as pool:
        copying = Copying()
        pool.acquire().release(after=copying)
        assert copying.waits == []
        pool.acquire().release()
        pool.acquire().release()
        assert copying.waits == ["host"]
        failed = Copying(RuntimeError("CUDA error: misaligned address"))
        pool.acquire().release(after=failed)
        with pytest.raises(RuntimeError, match="misaligned"):
            pool.acquire()
        assert pool.stats().free == 1, "a failed wait keeps no buffer"


def test_stale_tensors_are_counted_and_poisoned() -> None:
    with staging(buffers=1, poison=True) as pool:
        staged = pool.acquire()
        stale = staged.view((4,), torch.float32).fill_(1.0)
        staged.release()
        assert stale.isnan().all()
        assert pool.stats().stale == 1
        pool.acquire().release()
        assert pool.stats().stale == 2
        del stale
        pool.acquire().release()
        assert pool.stats().stale == 2


def test_close_leaves_what_a_tensor_shows_counted_until_it_is_gone() -> None:
    books = ledger(host=4 * PAGE)
    with staging(books) as pool:
        shown = pool.acquire().buffer.fill_(3)
    assert counted(books, "host") == pool.stats().nbytes == 4 * PAGE
    assert shown.eq(3).all()
    del shown
    books.reserve("host", "other", 4 * PAGE, "other").release()
    assert counted(books, "host") == pool.stats().nbytes == 0


def test_no_room_and_no_memory_leak_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    books = ledger(host=PAGE)
    with pytest.raises(BudgetExceeded):
        staging(books)
    books = ledger()
    fail_at(monkeypatch, 1, MemoryError())
    with pytest.raises(BudgetExceeded):
        staging(books)
    assert counted(books, "host") == 0
    with pytest.raises(ConfigError):
        StagingPool(books, buffers=0, nbytes=1)


def test_eight_threads_never_share_a_buffer() -> None:
    barrier = threading.Barrier(8)
    with staging(buffers=3) as pool:

        def work(number: int) -> None:
            rng = random.Random(number)
            barrier.wait()
            for _ in range(30):
                staged = pool.acquire(owner=str(number))
                staged.buffer.fill_(number)
                assert staged.buffer.eq(number).all()
                if rng.random() < 0.9:
                    staged.release()
                del staged

        with ThreadPoolExecutor(8) as threads:
            for done in [threads.submit(work, number) for number in range(8)]:
                done.result()
        stats = pool.stats()
        assert stats.free == 3
        assert 1 <= stats.peak <= 3
        assert sum(stats.leaked.values()) > 0
