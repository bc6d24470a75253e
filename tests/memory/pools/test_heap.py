"""The heap against a list of bytes."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.memory.pools.heap import Heap

GRANULE = 4
REGIONS = {0: 40, 1000: 64}


def free_runs(taken: dict[int, bool]) -> list[tuple[int, int]]:
    """Size and start of every maximal run of free bytes."""
    runs = []
    for base, size in REGIONS.items():
        start = None
        for address in range(base, base + size + 1):
            is_free = address < base + size and not taken[address]
            if is_free and start is None:
                start = address
            elif not is_free and start is not None:
                runs.append((address - start, start))
                start = None
    return sorted(runs)


def check(heap: Heap, taken: dict[int, bool]) -> None:
    runs = free_runs(taken)
    assert heap._by_size == runs, "the free ranges are the maximal runs of free bytes"
    assert heap.free == sum(size for size, _ in runs)
    assert heap.largest == max((size for size, _ in runs), default=0)
    for base, size in REGIONS.items():
        assert heap.is_idle(base, size) == ((size, base) in runs)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 80))
def test_equals_the_list_of_bytes(seed: int, steps: int) -> None:
    rng = random.Random(seed)
    heap = Heap(GRANULE)
    for base, size in REGIONS.items():
        heap.add(base, size)
    taken = {
        address: False for base, size in REGIONS.items() for address in range(base, base + size)
    }
    held: list[tuple[int, int]] = []
    for _ in range(steps):
        if held and rng.random() < 0.45:
            start, size = held.pop(rng.randrange(len(held)))
            heap.give(start, size)
            taken.update(dict.fromkeys(range(start, start + size), False))
        else:
            wanted = rng.randint(1, 30)
            size = -(-wanted // GRANULE) * GRANULE
            fitting = [run for run in free_runs(taken) if run[0] >= size]
            found = heap.take(wanted)
            assert found == ((min(fitting)[1], size) if fitting else None), "best fit, lowest first"
            if found is None:
                continue
            held.append(found)
            assert not any(taken[address] for address in range(found[0], sum(found)))
            taken.update(dict.fromkeys(range(found[0], sum(found)), True))
        check(heap, taken)
    for start, size in held:
        heap.give(start, size)
    assert heap._by_size == sorted((size, base) for base, size in REGIONS.items())


def test_a_region_taken_out_is_not_handed_out() -> None:
    heap = Heap(1)
    heap.add(0, 10)
    heap.add(100, 20)
    heap.remove(100, 20)
    assert heap.take(11) is None
    assert heap.take(10) == (0, 10)
    heap.clear()
    assert (heap.free, heap.largest, heap.take(1)) == (0, 0, None)
