"""The arena against a model: patterns in every live tensor, sums in the ledger."""

from __future__ import annotations

import gc
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.errors import BudgetExceeded, ConfigError, ReleasedError
from octavo.memory.buffers import MAPPED_FROM, PAGE, memory_of, whole_pages
from octavo.memory.pools import Allocation, Arena
from octavo.memory.pools.arena import ALIGNMENT
from tests.memory.pools.faults import MIB, counted, fail_at, ledger

DTYPES = [torch.float32, torch.bfloat16, torch.int8, torch.float64, torch.bool, torch.complex64]


def stamp(handle: Allocation, value: int) -> None:
    handle.tensor.view(-1).view(torch.uint8).fill_(value)


def is_stamped(handle: Allocation, value: int) -> bool:
    return not handle.nbytes or bool(handle.tensor.view(-1).view(torch.uint8).eq(value).all())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_live_tensors_never_overlap_and_the_ledger_equals_the_slabs(seed: int) -> None:
    rng = random.Random(seed)
    books = ledger()
    arena = Arena(books, name="features", slab_nbytes=MIB, limit=2 * MIB)
    live: list[tuple[Allocation, int]] = []
    refused = 0
    for step in range(60):
        if live and rng.random() < 0.4:
            handle, value = live.pop(rng.randrange(len(live)))
            assert is_stamped(handle, value)
            handle.release()
        else:
            count = rng.choice([0, 1, 7, 100, 5000, 70_000])
            try:
                handle = arena.allocate((count,), rng.choice(DTYPES[:3]))
            except BudgetExceeded:
                refused += 1
                continue
            stamp(handle, step)
            live.append((handle, step))
        stats = arena.stats()
        assert counted(books) == stats.nbytes <= 2 * MIB
        assert stats.used + stats.free + stats.lent == stats.nbytes
        assert stats.used >= sum(handle.nbytes for handle, _ in live)
        assert stats.handles == len(live)
        assert stats.refused == refused
    assert all(is_stamped(handle, value) for handle, value in live)
    for handle, _ in live:
        handle.release()
    settled = arena.stats()
    assert (settled.used, settled.lent, settled.handles) == (0, 0, 0)
    arena.trim()
    assert counted(books) == 0
    assert arena.stats().leaked == {}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (3,), (0,), (2, 0, 5), (3, 5, 7), (300, 1000)])
def test_shape_dtype_and_alignment(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    arena = Arena(ledger(), name="features")
    arena.allocate((3,), torch.int8)
    with arena.allocate(shape, dtype) as handle:
        tensor = handle.tensor
        assert (tuple(tensor.shape), tensor.dtype) == (shape, dtype)
        assert tensor.is_contiguous()
        expected = torch.randint(0, 2, shape).to(dtype)
        tensor.copy_(expected)
        assert torch.equal(handle.tensor, expected)
        if tensor.numel():
            assert tensor.data_ptr() % ALIGNMENT == 0
        if tensor.nbytes >= MAPPED_FROM:
            assert tensor.data_ptr() % PAGE == 0
            assert whole_pages(tensor.view(-1).view(torch.uint8)) is not None


def test_whole_pages_of_a_tensor_are_its_own() -> None:
    arena = Arena(ledger(), name="features", slab_nbytes=4 * MIB)
    first, second = (arena.allocate((MAPPED_FROM + 1,), torch.uint8) for _ in range(2))
    second.tensor.fill_(7)
    wide = whole_pages(first.tensor)
    assert wide is not None
    memory_of(wide)[:] = bytes([1]) * wide.numel()
    assert second.tensor.eq(7).all()


def test_use_after_release_raises() -> None:
    arena = Arena(ledger(), name="features")
    handle = arena.allocate((4,))
    handle.release()
    handle.release()
    with pytest.raises(ReleasedError):
        _ = handle.tensor
    kept = arena.allocate((4,))
    arena.close()
    with pytest.raises(ReleasedError, match="closed"):
        _ = kept.tensor
    with pytest.raises(ReleasedError, match="closed"):
        arena.allocate((4,))
    kept.release()
    arena.close()


def test_a_tensor_kept_after_release_never_shows_another_ones_values() -> None:
    arena = Arena(ledger(), name="features", slab_nbytes=MIB, limit=MIB)
    handle = arena.allocate((MIB // 16,), torch.float32)
    stale = handle.tensor.fill_(1.0)[5:]
    handle.release()
    assert arena.stats().lent == MIB // 4
    others = [arena.allocate((MIB // 16,), torch.float32) for _ in range(3)]
    for other in others:
        other.tensor.fill_(2.0)
    with pytest.raises(BudgetExceeded, match="wait for tensors over them"):
        arena.allocate((MIB // 16,), torch.float32)
    assert stale.eq(1.0).all()
    del stale
    assert arena.stats().lent == 0
    with arena.allocate((MIB // 16,), torch.float32) as again:
        assert again.tensor.eq(1.0).all(), "the same memory"


def test_poison_fills_what_is_released_with_nan() -> None:
    arena = Arena(ledger(), name="features", poison=True)
    first = arena.allocate((10,), torch.bfloat16)
    first.tensor.fill_(1.0)
    neighbour = arena.allocate((10,), torch.int8)
    neighbour.tensor.fill_(5)
    first.release()
    with arena.allocate((10,), torch.bfloat16) as again:
        assert again.tensor.isnan().all()
    assert neighbour.tensor.eq(5).all()


def test_a_dropped_handle_gives_its_room_back_and_counts_as_a_leak() -> None:
    arena = Arena(ledger(), name="features")
    arena.allocate((4,), owner="vision")
    tensor = arena.allocate((4,), owner="vision").tensor.fill_(1)
    gc.collect()
    stats = arena.stats()
    assert stats.leaked == {"vision": 2}
    assert (stats.used, stats.handles, stats.lent) == (0, 0, ALIGNMENT)
    arena.allocate((4,), owner="audio").tensor.fill_(2)
    assert tensor.eq(1).all()
    del tensor
    assert arena.stats().lent == 0


def test_a_handle_collected_while_its_thread_holds_the_lock_does_not_hang() -> None:
    arena = Arena(ledger(), name="features")
    handles = [arena.allocate((4,))]
    with arena._lock:
        handles.clear()
    assert arena.stats().leaked == {"": 1}


def test_large_and_small_lie_apart_and_large_slabs_go_back_at_once() -> None:
    books = ledger(device=64 * MIB)
    arena = Arena(books, name="features", slab_nbytes=4 * MIB, keep=4 * MIB)
    small = arena.allocate((10,), torch.int8)
    assert arena.stats().nbytes == 4 * MIB // 16
    middle = arena.allocate((MIB,), torch.int8)
    huge = arena.allocate((20 * MIB + 5,), torch.int8)
    assert arena.stats().slabs == 3
    assert counted(books) == 4 * MIB // 16 + 4 * MIB + 20 * MIB + PAGE
    huge.release()
    assert counted(books) == 4 * MIB // 16 + 4 * MIB, "over the low water mark"
    middle.release()
    assert arena.stats().slabs == 2, "kept"
    assert arena.trim() == 4 * MIB
    small.release()
    assert arena.trim() == 4 * MIB // 16
    assert counted(books) == 0


def test_a_dedicated_slab_serves_again() -> None:
    arena = Arena(ledger(), name="features", slab_nbytes=MIB, keep=16 * MIB)
    for _ in range(50):
        arena.allocate((5 * MIB + 12_345,), torch.int8).release()
    assert arena.stats().slabs == 1


def test_takes_a_smaller_slab_where_the_usual_one_does_not_fit() -> None:
    books = ledger(device=3 * MIB)
    arena = Arena(books, name="features", slab_nbytes=64 * MIB)
    with arena.allocate((MIB,), torch.int8):
        assert counted(books) == MIB
    with pytest.raises(BudgetExceeded, match="features"):
        arena.allocate((4 * MIB,), torch.int8)
    assert arena.stats().refused == 1
    assert counted(books) == 0, "its own idle slab was given up for the attempt"


def test_an_idle_slab_makes_room_under_the_limit_for_a_larger_one() -> None:
    books = ledger()
    arena = Arena(books, name="features", slab_nbytes=MIB, limit=2 * MIB, keep=2 * MIB)
    arena.allocate((MIB,), torch.int8).release()
    with arena.allocate((2 * MIB,), torch.int8):
        assert counted(books) == 2 * MIB


def test_gives_idle_slabs_up_when_another_owner_needs_room() -> None:
    books = ledger(device=2 * MIB)
    arena = Arena(books, name="features", slab_nbytes=2 * MIB)
    arena.allocate((MIB,), torch.int8).release()
    assert counted(books) == 2 * MIB
    with books.reserve("device", "kv", 2 * MIB, "kv"):
        assert arena.stats().slabs == 0
    kept = arena.allocate((MIB,), torch.int8)
    with pytest.raises(BudgetExceeded, match="features"):
        books.reserve("device", "kv", 2 * MIB, "kv")
    assert kept.tensor.numel() == MIB


def test_close_leaves_what_a_tensor_shows_counted_until_it_is_gone() -> None:
    books = ledger(device=2 * MIB)
    with Arena(books, name="features", slab_nbytes=2 * MIB) as arena:
        handle = arena.allocate((MIB,), torch.int8)
        tensor = handle.tensor.fill_(3)
    assert counted(books) == 2 * MIB
    assert tensor.eq(3).all()
    del tensor
    books.reserve("device", "kv", 2 * MIB, "kv").release()
    assert counted(books) == 0


@pytest.mark.parametrize("turn", [1, 2, 3])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("out of memory"), ZeroDivisionError()])
def test_a_failed_allocation_leaks_nothing(
    monkeypatch: pytest.MonkeyPatch, turn: int, error: Exception
) -> None:
    books = ledger()
    arena = Arena(books, name="features", slab_nbytes=MIB, keep=0)
    fail_at(monkeypatch, turn, error)
    live = []
    # The second try of a growth is smaller; only where both fail is it an error.
    expected = BudgetExceeded if isinstance(error, torch.OutOfMemoryError) else type(error)
    failed = 0
    for _ in range(4):
        try:
            live.append(arena.allocate((MIB,), torch.int8))
        except expected:
            failed += 1
        assert counted(books) == arena.stats().nbytes == MIB * len(live)
    assert failed == 1
    assert arena.stats().refused == 1
    for handle in live:
        handle.release()
    assert counted(books) == 0


def test_fragmentation_says_what_lies_outside_the_largest_free_range() -> None:
    arena = Arena(ledger(), name="features", slab_nbytes=4 * MIB)
    parts = [arena.allocate((MIB,), torch.int8) for _ in range(4)]
    assert arena.stats().fragmentation == 0.0
    parts[0].release()
    parts[2].release()
    assert arena.stats().fragmentation == 0.5
    parts[1].release()
    assert arena.stats().fragmentation == 0.0
    assert arena.stats().largest_free == 3 * MIB


def test_pinned_needs_cuda() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ConfigError, match="CUDA"):
        Arena(ledger(), name="features", place="host", pinned=True)


def test_works_in_inference_mode_and_out_of_it() -> None:
    arena = Arena(ledger(), name="features")
    with torch.inference_mode():
        handle = arena.allocate((4,))
        handle.tensor.fill_(1.0)
    handle.tensor.mul_(2.0)
    weight = torch.ones(4, requires_grad=True)
    (weight * handle.tensor).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [2.0] * 4


def test_eight_threads() -> None:
    books = ledger()
    arena = Arena(books, name="features", slab_nbytes=MIB, limit=16 * MIB, keep=0)
    barrier = threading.Barrier(8)

    def work(number: int) -> None:
        rng = random.Random(number)
        live: list[tuple[Allocation, int]] = []
        barrier.wait()
        for step in range(60):
            if len(live) > 4 or (live and rng.random() < 0.4):
                handle, value = live.pop(rng.randrange(len(live)))
                assert is_stamped(handle, value)
                if rng.random() < 0.9:
                    handle.release()
            else:
                size = rng.choice([10, 3000, 100_000, 300_000])
                value = number * 16 + step % 16
                handle = arena.allocate((size,), torch.uint8, owner=str(number))
                stamp(handle, value)
                live.append((handle, value))
        for handle, value in live:
            assert is_stamped(handle, value)
            handle.release()

    with ThreadPoolExecutor(8) as threads:
        for done in [threads.submit(work, number) for number in range(8)]:
            done.result()
    stats = arena.stats()
    assert (stats.used, stats.lent, stats.handles) == (0, 0, 0)
    arena.trim()
    assert counted(books) == 0


def test_a_hundred_thousand_random_allocations_do_not_grow_the_process() -> None:
    rng = random.Random(0)
    arena = Arena(ledger(), name="features", limit=32 * MIB, slab_nbytes=8 * MIB)
    sizes = [100, 2_000, 30_000, 150_000, 300_000]
    process = psutil.Process()
    live: list[Allocation] = []
    before = slabs = 0
    for step in range(110_000):
        if step == 10_000:
            before, slabs = process.memory_info().rss, arena.stats().nbytes
        if len(live) > 48:
            at = rng.randrange(len(live))
            live[at], live[-1] = live[-1], live[at]
            live.pop().release()
        handle = arena.allocate((rng.choice(sizes),), torch.uint8)
        if step % 8 == 0:
            handle.tensor[::PAGE] = 1
        live.append(handle)
    assert arena.stats().nbytes - slabs <= 8 * MIB, "one slab more at most"
    assert process.memory_info().rss - before < 12 * MIB, "125 bytes for an allocation"
