"""How well each predictor names what comes, on the traces of the policies.

Before each use a predictor names up to k keys. Precision: of those named, the share that is among
the next k uses. Recall: of the distinct keys of the next k uses, the share that was named. Hidden:
of the misses of an LRU tier that holds a quarter of the bytes, the share whose key was named in
one of the k calls before, so that it could have been fetched meanwhile.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence

from benchmarks.memory.traces import TRACES, make
from octavo.memory.policies import LRU, Key
from octavo.memory.prediction import LearnedOrder, Predictor, Recorded, Schedule
from octavo.memory.replay import distinct_bytes
from octavo.memory.trace import Access

#: Trace → predictor → figure; None is the precision of a predictor that named nothing.
Measured = Mapping[str, Mapping[str, Mapping[str, float | None]]]

AHEAD = (1, 4)
#: Of the uses of a run, the share that an earlier run of the same program did not have, and the
#: share that only the earlier one had.
DIFFERENT = 0.03


def measure(seed: int, other_seed: int, scale: float) -> Measured:
    """Trace → predictor → figures. ``other_seed`` draws the recorded run on other data."""
    return {
        name: {
            predictor: _score(trace, made, misses)
            for predictor, made in _predictors(name, trace, other_seed, scale).items()
        }
        for name in TRACES
        for trace in (make(name, seed, scale),)
        for misses in (_misses(trace),)
    }


def table(measured: Measured) -> str:
    """As Markdown, in per cent."""
    head = ["trace", "predictor"]
    head += [f"{what}, k={k}" for k in AHEAD for what in ("precision", "recall", "misses hidden")]
    lines = ["| " + " | ".join(head) + " |", "| --- | --- " + "| ---: " * (len(head) - 2) + "|"]
    for trace, by_predictor in measured.items():
        for predictor, figures in by_predictor.items():
            cells = [
                "–" if value is None else f"{100 * value:.0f}"
                for k in AHEAD
                for what in ("precision", "recall", "hidden")
                for value in (figures[f"{what}_{k}"],)
            ]
            lines.append("| " + " | ".join([trace, predictor, *cells]) + " |")
    return "\n".join(lines)


def _predictors(
    name: str, trace: Sequence[Access], other_seed: int, scale: float
) -> dict[str, Predictor]:
    keys = [access.key for access in trace if access.op != "delete"]
    other = [access.key for access in make(name, other_seed, scale) if access.op != "delete"]
    return {
        "schedule": Schedule(keys),
        "recorded": Recorded(_earlier_run(keys)),
        "recorded, other data": Recorded(other),
        "learned": LearnedOrder(),
    }


def _earlier_run(keys: Sequence[str]) -> list[str]:
    """The same run with some uses left out and some others in their place."""
    draw = random.Random(len(keys))
    run = []
    for key in keys:
        if draw.random() >= DIFFERENT:
            run.append(key)
        if draw.random() < DIFFERENT:
            run.append(draw.choice(keys))
    return run


def _misses(trace: Sequence[Access]) -> set[int]:
    """The places in a trace at which a quarter-sized LRU tier misses."""
    capacity = distinct_bytes(trace) // 4
    tier, sizes, used = LRU(capacity), dict[str, int](), 0
    missed = set()
    for place, access in enumerate(trace):
        if access.key in sizes:
            if access.op == "delete":
                tier.remove(access.key)
                used -= sizes.pop(access.key)
            else:
                tier.touch(access.key)
            continue
        if access.op == "get":
            missed.add(place)
        if access.op == "delete" or access.nbytes > capacity:
            continue
        while used + access.nbytes > capacity:
            victim = str(next(tier.victims()))
            tier.evict(victim)
            used -= sizes.pop(victim)
        tier.insert(access.key, access.nbytes)
        sizes[access.key] = access.nbytes
        used += access.nbytes
    return missed


def _score(
    trace: Sequence[Access], predictor: Predictor, misses: set[int]
) -> dict[str, float | None]:
    counts: Counter[str] = Counter()
    keys = [access.key for access in trace if access.op != "delete"]
    named_until: dict[int, dict[Key, int]] = {k: {} for k in AHEAD}
    number = 0
    for place, access in enumerate(trace):
        if access.op == "delete":
            predictor.forget(access.key)
            continue
        for k in AHEAD:
            named, coming = predictor.upcoming(k), set(keys[number : number + k])
            counts[f"named_{k}"] += len(named)
            counts[f"right_{k}"] += len(coming.intersection(named))
            counts[f"coming_{k}"] += len(coming)
            named_until[k].update((key, number + k) for key in named)
            counts[f"hidden_{k}"] += place in misses and named_until[k].get(access.key, -1) > number
        predictor.observe(access.key)
        number += 1
    return {
        f"{what}_{k}": _share(counts[f"{part}_{k}"], whole)
        for k in AHEAD
        for what, part, whole in (
            ("precision", "right", counts[f"named_{k}"]),
            ("recall", "right", counts[f"coming_{k}"]),
            ("hidden", "hidden", len(misses)),
        )
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
