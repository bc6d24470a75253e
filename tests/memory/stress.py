"""Threads that read and write a store at random, each checking itself against a plain dict.

Run it longer by hand: ``python -m tests.memory.stress --seconds 120``.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

from octavo.memory.entry import Terms
from octavo.memory.ledger import PLACES
from octavo.memory.prediction import LearnedOrder
from octavo.memory.store import TieredStore
from tests.memory.stores import KIB, PACKED, at_rest, ledger_of, make_store, same

SIZES = (0, 100, 4 * KIB, 16 * KIB, 40 * KIB, 300 * KIB)


def content(owner: int, key: int, version: int) -> torch.Tensor:
    """Bytes that say whose value this is; every third kind packs well."""
    nbytes = SIZES[(key + version) % len(SIZES)]
    if key % 3 == 0:
        return torch.full((nbytes,), (owner * 31 + key * 7 + version) % 251, dtype=torch.uint8)
    made = torch.Generator().manual_seed(owner * 1_000_003 + key * 1009 + version)
    return torch.randint(0, 256, (nbytes,), generator=made, dtype=torch.uint8)


class Worker:
    """Owns the keys ``(owner, n)`` and shares ``("shared", n)`` with the others.

    Its own keys must behave as its dict does. A shared one holds whatever some thread wrote
    last: whole, or not at all.
    """

    def __init__(self, store: TieredStore, owner: int, seed: int) -> None:
        self.store = store
        self.owner = owner
        self.random = random.Random(seed)
        self.model: dict[int, int] = {}
        self.version = 0

    def step(self) -> None:
        key = self.random.randrange(24)
        act = self.random.choices(
            [self.put, self.get, self.delete, self.share, self.hint, self.pin],
            [30, 45, 5, 10, 5, 5],
        )[0]
        act(key)

    def put(self, key: int) -> None:
        self.version += 1
        self.store[self.owner, key] = content(self.owner, key, self.version)
        self.model[key] = self.version

    def get(self, key: int) -> None:
        found = self.store.get((self.owner, key))
        if key not in self.model:
            assert found is None, f"{(self.owner, key)} was deleted"
            return
        assert found is not None, f"{(self.owner, key)} is lost"
        assert same(found, content(self.owner, key, self.model[key])), f"{(self.owner, key)}"

    def delete(self, key: int) -> None:
        if self.model.pop(key, None) is None:
            assert self.store.pop((self.owner, key), None) is None
        else:
            del self.store[self.owner, key]

    def share(self, key: int) -> None:
        shared = ("shared", key % 6)
        chance = self.random.random()
        if chance < 0.4:
            filled = torch.full((30 * KIB,), self.random.randrange(256), dtype=torch.uint8)
            self.store.put(shared, filled, Terms(droppable=True))
        elif chance < 0.5:
            self.store.pop(shared, None)
        else:
            found = self.store.get(shared)
            assert found is None or (found == found[0]).all(), f"{shared} is torn"

    def hint(self, key: int) -> None:
        self.store.prefetch([(self.owner, other) for other in range(key, key + 3)])

    def pin(self, key: int) -> None:
        if key in self.model and key % 6 < 3:
            with self.store.pinned((self.owner, key)) as tensor:
                assert same(tensor, content(self.owner, key, self.model[key]))


def run(store: TieredStore, *, threads: int, more: Callable[[int], bool]) -> int:
    """Steps of all threads together, while ``more(steps of this thread)``.

    Raises:
        AssertionError: the store and a model disagree.
        BaseException: whatever a thread met first.
    """
    start = threading.Barrier(threads)
    failures: list[BaseException] = []
    steps = [0] * threads

    def work(index: int) -> None:
        worker = Worker(store, index, seed=index)
        start.wait()
        try:
            while not failures and more(steps[index]):
                worker.step()
                steps[index] += 1
            for key in range(24):
                worker.get(key)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            failures.append(error)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join()
    if failures:
        raise failures[0]
    return sum(steps)


def stressed_store(folder: Path) -> TieredStore:
    """Small enough that values go through every tier, large enough for what threads hold."""
    store = make_store(folder, device=6 << 20, host=8 << 20, disk=256 << 20, settings=PACKED)
    store.follow(LearnedOrder())
    return store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--threads", type=int, default=8)
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    with tempfile.TemporaryDirectory() as folder:
        store = stressed_store(Path(folder))
        steps = run(store, threads=options.threads, more=lambda _: time.monotonic() < end)
        store._fetchers.shutdown(wait=True)
        at_rest(store)
        print(store.stats())
        store.close()
        assert all(ledger_of(store).used(place) == 0 for place in PLACES)
        print(f"{steps} steps, {options.threads} threads: nothing lost, wrong or leaked")


if __name__ == "__main__":
    main()
