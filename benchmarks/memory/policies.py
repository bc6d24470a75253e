"""Every policy and Belady on every trace and capacity; how far the adaptive one is from the best.

Constants of the policies were chosen on the seeds in ``TUNED_ON``; everything reported comes from
the seeds in ``EVALUATED_ON``, which were not looked at for that. First uses count as misses. An
online policy may be better than Belady here, because sizes and costs differ: see
``octavo.memory.policies.belady``.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from typing import Any, cast

from benchmarks.memory import predictors
from benchmarks.memory.traces import TRACES, make
from octavo.memory.policies import ARC, LRU, Clock, CostAware, PinnedSet, PolicyFactory
from octavo.memory.policies.adaptive import Adaptive
from octavo.memory.policies.learned import Learned
from octavo.memory.replay import Outcome, best, compare, distinct_bytes

TUNED_ON = (1, 2, 3, 11, 12, 13)
EVALUATED_ON = (4, 5, 6)
#: Capacities as shares of the bytes of all keys.
SHARES = (0.1, 0.25, 0.5, 0.75)
POLICIES: dict[str, PolicyFactory] = {
    policy.name: policy for policy in (LRU, Clock, ARC, CostAware, PinnedSet, Learned, Adaptive)
}
FAST_SCALE = 0.15
#: Keys of the tiers whose hits are timed.
_TIMED_KEYS = (66, 1000, 20_000)
_TIMED_ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Row:
    """All policies on one trace, drawn from one seed, at one capacity."""

    trace: str
    seed: int
    share: float
    outcomes: Mapping[str, Outcome]

    @property
    def best_online(self) -> Outcome:
        """The best that is not the adaptive one."""
        return best(
            outcome
            for name, outcome in self.outcomes.items()
            if name not in ("belady", Adaptive.name)
        )

    @property
    def adaptive_over_best(self) -> float:
        return _ratio(self.outcomes[Adaptive.name].missed_cost, self.best_online.missed_cost)

    def over_belady(self, name: str) -> float:
        return _ratio(self.outcomes[name].missed_cost, self.outcomes["belady"].missed_cost)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("policies")
    group.add_argument(
        "--seeds", type=int, nargs="+", default=list(EVALUATED_ON), help="of the traces"
    )


def run(options: argparse.Namespace) -> Mapping[str, object]:
    seeds = options.seeds[:1] if options.fast else options.seeds
    scale = FAST_SCALE if options.fast else 1.0
    rows = _play(seeds, scale)
    results: dict[str, object] = {
        "tuned_on_seeds": list(TUNED_ON),
        "evaluated_on_seeds": list(seeds),
        "rows": [_as_json(row) for row in rows],
        "adaptive_over_best": _adaptive(rows),
        "pinned_over_belady_on_layer_scan": {
            f"{row.share:.0%}, seed {row.seed}": round(row.over_belady(PinnedSet.name), 5)
            for row in rows
            if row.trace == "layer scan"
        },
        "predictors": predictors.measure(seeds[0], TUNED_ON[0], scale),
        "hit_microseconds": _time_hits(),
    }
    _show(results)
    return results


def table(results: Mapping[str, object]) -> str:
    """Markdown: missed cost over Belady's by trace and capacity, all seeds together."""
    names = list(POLICIES)
    head = ["trace", "capacity", *names, "adaptive / best", "best"]
    lines = ["| " + " | ".join(head) + " |", "| --- " + "| ---: " * (len(head) - 2) + "| --- |"]
    cells: dict[tuple[str, float], list[Mapping[str, Mapping[str, float]]]] = {}
    for row in cast(list[dict[str, Any]], results["rows"]):
        cells.setdefault((row["trace"], row["share"]), []).append(row["policies"])
    for (trace, share), played in cells.items():
        cost = {name: sum(one[name]["missed_cost"] for one in played) for name in played[0]}
        winner = min((name for name in names if name != Adaptive.name), key=cost.__getitem__)
        figures = [f"{_ratio(cost[name], cost['belady']):.2f}" for name in names]
        over = f"{_ratio(cost[Adaptive.name], cost[winner]):.3f}"
        lines.append("| " + " | ".join([trace, f"{share:.0%}", *figures, over, winner]) + " |")
    return "\n".join(lines)


def _play(seeds: Sequence[int], scale: float) -> list[Row]:
    """Only counts come out of this, no times, so the processes may share the machine."""
    jobs = [(name, seed, scale) for name, seed in product(TRACES, seeds)]
    context = get_context("spawn")
    with ProcessPoolExecutor(min(os.cpu_count() or 1, 4), mp_context=context) as pool:
        return [row for rows in pool.map(_play_one, jobs) for row in rows]


def _play_one(job: tuple[str, int, float]) -> list[Row]:
    name, seed, scale = job
    trace = make(name, seed, scale)
    total = distinct_bytes(trace)
    rows = []
    for share in SHARES:
        outcomes = compare(trace, int(total * share), POLICIES)
        rows.append(Row(name, seed, share, {outcome.name: outcome for outcome in outcomes}))
    return rows


def _as_json(row: Row) -> dict[str, object]:
    belady = row.outcomes["belady"]
    return {
        "trace": row.trace,
        "seed": row.seed,
        "share": row.share,
        "capacity": belady.capacity,
        "reads": belady.accesses,
        "best_online": row.best_online.name,
        "adaptive_over_best": round(row.adaptive_over_best, 4),
        "policies": {
            name: {
                "hit_ratio": round(outcome.hit_ratio, 4),
                "missed_bytes": outcome.missed_bytes,
                "missed_cost": round(outcome.missed_cost, 4),
                "regret": round(row.over_belady(name) - 1, 4),
            }
            for name, outcome in row.outcomes.items()
        },
    }


def _adaptive(rows: Sequence[Row]) -> dict[str, object]:
    worst = max(rows, key=lambda row: row.adaptive_over_best)
    return {
        "worst": round(worst.adaptive_over_best, 4),
        "worst_at": f"{worst.trace}, {worst.share:.0%}, seed {worst.seed}",
        "mean": round(statistics.mean(row.adaptive_over_best for row in rows), 4),
        "worst_by_trace": {
            name: round(max(row.adaptive_over_best for row in rows if row.trace == name), 4)
            for name in TRACES
        },
        "learned_alone_over_best_other_worst": round(max(_learned_over_others(r) for r in rows), 4),
    }


def _learned_over_others(row: Row) -> float:
    others = [row.outcomes[name] for name in POLICIES if name not in ("learned", "adaptive")]
    return _ratio(row.outcomes[Learned.name].missed_cost, best(others).missed_cost)


def _time_hits() -> dict[str, dict[str, float]]:
    """Microseconds of one hit in a full tier: the median round, policies in turn."""
    timed: dict[str, dict[str, float]] = {}
    for count in _TIMED_KEYS:
        keys = [f"value {i}" for i in range(count)]
        tiers = {name: factory(count) for name, factory in POLICIES.items()}
        for tier in tiers.values():
            for key in keys:
                tier.admits(key, 1)
                tier.insert(key, 1)
        hits = random.Random(count).choices(keys, k=20_000)
        rounds: dict[str, list[float]] = {name: [] for name in tiers}
        for _ in range(_TIMED_ROUNDS):
            for name, tier in tiers.items():
                touch = tier.touch
                start = time.perf_counter()
                for key in hits:
                    touch(key)
                rounds[name].append((time.perf_counter() - start) / len(hits) * 1e6)
        timed[f"{count} keys"] = {
            name: round(statistics.median(times), 3) for name, times in rounds.items()
        }
    return timed


def _show(results: Mapping[str, object]) -> None:
    print("\nmissed cost over Belady's, first uses included")
    print(table(results))
    print(f"\nadaptive over the best online policy: {results['adaptive_over_best']}")
    print(f"pinned over Belady, layer scan: {results['pinned_over_belady_on_layer_scan']}")
    print("\nwhat the predictors name, per cent")
    print(predictors.table(cast(predictors.Measured, results["predictors"])))
    print(f"\nmicroseconds of a hit: {results['hit_microseconds']}")


def _ratio(cost: float, base: float) -> float:
    return cost / base if base else (1.0 if not cost else float("inf"))
