"""Many threads on one tier, beside a plain dict."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from octavo.errors import TierFull
from octavo.memory.disk import DiskTier, Extent
from tests.memory.disk.tiers import KIB, MIB, get, ledger, on_disk, put, tier, value

SIZES = (100, 20 * KIB, 300 * KIB, MIB + 9)
VALUES = {(n, seed): value(n, seed=seed) for n in SIZES for seed in range(3)}


def work(made: DiskTier, seed: int, ready: threading.Barrier) -> int:
    """Random writes, reads and frees of this thread's own values; how often it was refused."""
    choose = random.Random(seed)
    model: dict[int, tuple[Extent, tuple[int, int]]] = {}
    refused = 0
    ready.wait()
    for _ in range(60):
        key = choose.randrange(4)
        if key not in model:
            which = choose.choice(list(VALUES))
            try:
                model[key] = (put(made, VALUES[which]), which)
            except TierFull:
                refused += 1
        elif choose.random() < 0.5:
            extent, which = model[key]
            assert torch.equal(get(made, extent), VALUES[which])
        else:
            made.free(model.pop(key)[0])
        if choose.random() < 0.05:
            made.trim()
    for extent, which in model.values():
        assert torch.equal(get(made, extent), VALUES[which])
        made.free(extent)
    return refused


@pytest.mark.parametrize("keep", [False, True])
def test_eight_threads_get_back_what_they_wrote(tmp_path: Path, keep: bool) -> None:
    budget = 10 * MIB
    books = ledger(disk=budget)
    ready = threading.Barrier(8)
    with tier(tmp_path, books, keep=keep) as made, ThreadPoolExecutor(8) as pool:
        refused = list(pool.map(lambda seed: work(made, seed, ready), range(8)))
        assert books.used("disk") == 0
        assert books.state("disk").peak <= budget
        assert on_disk(tmp_path) <= budget
        stats = made.stats()
        assert stats.errors == sum(refused)
        assert stats.peak_in_flight <= 32
        assert stats.extents == {}
        made.trim()
        assert on_disk(tmp_path) == 0


def test_closing_waits_for_what_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    begun, go_on = threading.Event(), threading.Event()
    real = os.preadv

    def slow(*given: object) -> int:
        begun.set()
        assert go_on.wait(30)
        return real(*given)

    with ThreadPoolExecutor(2) as pool, tier(tmp_path) as made:
        # One block, so that the reading thread itself is what has to be waited for.
        extent = put(made, value(64 * KIB))
        monkeypatch.setattr(os, "preadv", slow)
        reading = pool.submit(get, made, extent)
        assert begun.wait(30)
        closing = pool.submit(made.close)
        while not made._calls._changed._waiters and not closing.done():
            pass
        assert not closing.done()
        go_on.set()
        closing.result(30)
        assert torch.equal(reading.result(30), value(64 * KIB))
