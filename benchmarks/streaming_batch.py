"""Sixteen requests to a model of which a third fits: tokens a second, prompts included.

The checkpoint, the budgets, the cap and the rivals are those of :mod:`benchmarks.streaming`:

- ``octavo``: ``model.generate(requests)``.
- ``accelerate``: transformers' ``generate`` over the 16 prompts as one batch, padded on the left.
- ``accelerate, one by one``: the same model and the first two requests, each alone; more of them
  would take long and give the same rate.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.streaming import WAYS_MODULE, add_shared_arguments, checkpoint, measured
from benchmarks.streaming_process import in_a_process

SHARE: Final = 0.35
TARGETS: Final = {"over_accelerate": 3.0, "over_accelerate_one_by_one": 8.0}
_ALONE: Final = 2
#: Name → way of ``benchmarks.streaming_ways`` and what it is told beside.
WAYS: Final[Mapping[str, tuple[str, Mapping[str, int]]]] = {
    "octavo": ("octavo", {}),
    "accelerate": ("accelerate", {}),
    "accelerate, one by one": ("accelerate", {"one_by_one": _ALONE}),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_shared_arguments(parser)
    group = parser.add_argument_group("batch streaming")
    group.add_argument("--batch-streaming-rounds", type=int, default=3)
    group.add_argument("--batch-streaming-requests", type=int, default=16)
    group.add_argument("--batch-streaming-new", type=int, default=16, help="tokens of each answer")


def run(options: argparse.Namespace) -> Mapping[str, object]:
    count = 3 if options.fast else options.batch_streaming_requests
    prompts = [16 + 7 * (number % 5) for number in range(count)]
    task = {
        "measure": "batch",
        "prompts": prompts,
        "prompt": 2 * max(prompts),
        "new": 3 if options.fast else options.batch_streaming_new,
        "batch": count,
    }
    rows: list[dict[str, Any]] = []
    with checkpoint(options) as folder:
        task |= {"folder": str(folder), "dtype": "float32" if options.fast else "bfloat16"}
        sizes = in_a_process(WAYS_MODULE, {**task, "way": "describe"})
        for number in range(1 if options.fast else options.batch_streaming_rounds):
            names = [name for name in WAYS if _wanted(options, name)]
            for name in names if number % 2 == 0 else reversed(names):
                way, more = WAYS[name]
                threads = options.streaming_threads
                row = measured({**task, **more}, sizes, SHARE, way, threads)
                rows.append({"round": number, **row, "way": name})
                print(_line(rows[-1]), flush=True)
    return {"share": SHARE, "targets": TARGETS, **sizes, "ratios": _ratios(rows), "rows": rows}


def _wanted(options: argparse.Namespace, name: str) -> bool:
    return not options.streaming_way or name in options.streaming_way


def _line(row: Mapping[str, Any]) -> str:
    begin = f"{row['round'] + 1}: {row['way']:>24}"
    if "killed" in row:
        return f"{begin}: ended by the cap of {row['budget'] / 1e9:.2f} GB"
    return (
        f"{begin}: {row['tokens_per_s']:.2f} tokens/s, {row['disk_bytes'] / 1e9:.1f} GB read, "
        f"peak {row['peak_bytes'] / 1e9:.2f} of {row['budget'] / 1e9:.2f} GB"
    )


def _ratios(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    rates = {(row["round"], row["way"]): row["tokens_per_s"] for row in rows if "killed" not in row}
    found = {}
    for name, rival in (
        ("over_accelerate", "accelerate"),
        ("over_accelerate_one_by_one", "accelerate, one by one"),
    ):
        each = [
            rates[number, "octavo"] / rates[number, rival]
            for number in {row["round"] for row in rows}
            if (number, "octavo") in rates and (number, rival) in rates
        ]
        if each:
            found[name] = round(statistics.median(each), 2)
            print(f"  {name}: {found[name]}")
    return found
