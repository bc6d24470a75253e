"""Does a pool hold less memory than plain allocation, and what does an allocation cost?

A hundred thousand tensors of the sizes of features and of text embeddings are made and held in a
window of live bytes, out of which random ones go to make room for the next. One process makes
them in an arena, another with ``torch.empty`` each time. Every page of every tensor is touched,
so that resident memory is what the tensors really cost. Resident memory is read every hundred
steps; the base, taken before the first tensor, is subtracted. An arena holds its slabs whole:
its overhead over the live bytes is what the ledger must count for them.

Rounds are interleaved and every process begins fresh; figures are medians over rounds.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import torch

from octavo.memory.buffers import PAGE
from octavo.memory.ledger import Ledger
from octavo.memory.pools import Allocation, Arena

ROUNDS = 3
COUNT = 100_000
_FAST_COUNT = 4_000
_LOOK_EVERY = 100
WAYS = ("arena", "torch.empty")

#: Workload → window of live bytes, tokens from and to, values per token. Values have two bytes.
WORKLOADS: dict[str, tuple[int, int, int, int]] = {
    "features": (384 * 10**6, 64, 1600, 1536),
    "text embeddings": (64 * 10**6, 4, 512, 1024),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("pools")
    group.add_argument("--pool-rounds", type=int, default=ROUNDS)


def run(options: argparse.Namespace) -> Mapping[str, object]:
    rounds = 1 if options.fast else options.pool_rounds
    count = _FAST_COUNT if options.fast else COUNT
    measured: dict[str, object] = {"rounds": rounds, "allocations": count}
    for workload in WORKLOADS:
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for number in range(rounds):
            for way in WAYS:
                runs[way].append(_in_a_process(way, workload, count, number))
        measured[workload] = _report(workload, runs)
    return measured


def _in_a_process(way: str, workload: str, count: int, seed: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", __name__, way, workload, str(count), str(seed)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


def _report(workload: str, runs: Mapping[str, list[dict[str, float]]]) -> dict[str, object]:
    medians = {
        way: {name: statistics.median(one[name] for one in several) for name in several[0]}
        for way, several in runs.items()
    }
    print(f"\n{workload}")
    names = list(medians[WAYS[0]])
    print(f"  {'':<28}" + "".join(f"{way:>14}" for way in WAYS) + f"{'ratio':>9}")
    ratios = {}
    for name in names:
        arena, plain = (medians[way][name] for way in WAYS)
        ratios[name] = round(arena / plain, 3) if plain else None
        print(f"  {name:<28}{arena:>14.2f}{plain:>14.2f}{ratios[name] or 0:>9.2f}")
    return {"median": medians, "arena_over_torch_empty": ratios, "rounds": runs}


class _Books:
    """What was held and what was resident, in bytes."""

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.base = self.process.memory_info().rss
        self.live = self.peak_live = self.peak_resident = 0
        self.over: list[float] = []

    def look(self) -> int:
        resident = self.process.memory_info().rss - self.base
        self.peak_resident = max(self.peak_resident, resident)
        self.peak_live = max(self.peak_live, self.live)
        self.over.append(resident / max(self.live, 1))
        return resident


def _measure(way: str, workload: str, count: int, seed: int) -> dict[str, float]:
    torch.set_num_threads(1)
    window, fewest, most, width = WORKLOADS[workload]
    rng = random.Random(f"{workload}/{seed}")
    make, drop = _way(way, 2 * window)
    drop(make(1024)[0])
    books = _Books()
    live: list[tuple[object, int]] = []
    allocating = releasing = touching = 0
    for step in range(count):
        nbytes = rng.randint(fewest, most) * width * 2
        while live and books.live + nbytes > window:
            at = rng.randrange(len(live))
            live[at], live[-1] = live[-1], live[at]
            old, size = live.pop()
            start = time.perf_counter_ns()
            drop(old)
            del old
            releasing += time.perf_counter_ns() - start
            books.live -= size
        start = time.perf_counter_ns()
        held, data = make(nbytes)
        made = time.perf_counter_ns()
        data[::PAGE] = 1
        touching += time.perf_counter_ns() - made
        allocating += made - start
        live.append((held, nbytes))
        del held, data
        books.live += nbytes
        if step % _LOOK_EVERY == 0:
            books.look()
    resident = books.look()
    settled = books.over[len(books.over) // 2 :]
    return {
        "resident at end, MB": resident / 1e6,
        "live at end, MB": books.live / 1e6,
        "peak resident, MB": books.peak_resident / 1e6,
        "peak over live": books.peak_resident / books.peak_live,
        "resident over live, median": statistics.median(settled),
        "allocate, us": allocating / count / 1e3,
        "touch every page, us": touching / count / 1e3,
        "release, us": releasing / count / 1e3,
        "all three, us": (allocating + touching + releasing) / count / 1e3,
    }


def _way(
    way: str, limit: int
) -> tuple[Callable[[int], tuple[object, torch.Tensor]], Callable[[object], None]]:
    """How to make a tensor of so many bytes, and how to let it go."""
    if way == "torch.empty":

        def plain(nbytes: int) -> tuple[object, torch.Tensor]:
            tensor = torch.empty(nbytes, dtype=torch.uint8)
            return tensor, tensor

        return plain, lambda _: None
    arena = Arena(Ledger({"host": limit}), name="features", kind="features", place="host")

    def pooled(nbytes: int) -> tuple[object, torch.Tensor]:
        handle = arena.allocate((nbytes,), torch.uint8)
        return handle, handle.tensor

    def release(handle: object) -> None:
        if isinstance(handle, Allocation):
            handle.release()

    return pooled, release


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
