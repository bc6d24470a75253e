"""A model larger than its budget: how fast it answers, and how near that is to the disk.

A Qwen3-VL of 2.4 B parameters in bfloat16 with random weights, at budgets that leave room for 100,
75, 50 and 35 % of them. A budget is that share of the weights, and all else that the planner counts
at its highest phase for this request (the process before loading, keys and values, activations,
workspace), over 0.98: the planner keeps 1 % free, and as much is for the difference between
processes. Each case is a process of its own, in a control group of exactly its budget where the
machine can make one (page cache counts in it), and else only checked by its resident set:

- ``octavo``: ``octavo.load(folder, memory=budget)``.
- ``accelerate``: ``device_map="auto"`` with the same share of the weights as ``max_memory`` and the
  rest offloaded to disk, which is the checkpoint's own safetensors.
- ``transformers``: plain ``from_pretrained``, whose weights are mapped and read by page faults; at
  100 % this is the resident model.

Before each case another process reads all bytes with O_DIRECT into a few huge pages, which says
what the disk gives at that time and leaves no burst and no cached page. Ratios are made within a
round and the median over rounds is reported; ``of_disk`` is the time in which the disk gives the
bytes that a token was seen to take (the kernel's count of what it read for the process), over the
time that the token took.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.checkpoints import make
from benchmarks.streaming_process import in_a_process

SHARES: Final = (1.0, 0.75, 0.5, 0.35)
TARGETS: Final = {
    "decode_over_accelerate_at_50": 3.0,
    "prefill_over_resident_at_50": 1.15,
    "of_disk": 0.8,
    "resident_prefill_and_decode_over_transformers": 1.02,
}
WAYS_MODULE: Final = "benchmarks.streaming_ways"
Row = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_shared_arguments(parser)
    group = parser.add_argument_group("streaming")
    group.add_argument("--streaming-rounds", type=int, default=3)
    group.add_argument("--streaming-prompt", type=int, default=1024, help="words of the prefill")
    group.add_argument("--streaming-new", type=int, default=10, help="tokens of the decode")
    group.add_argument("--streaming-repeats", type=int, default=1, help="decodes of a process")
    group.add_argument("--streaming-share", type=float, action="append", help="of the weights")


#: Tokens of the chat's own around the question, and some more.
_CHAT: Final = 32


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """What both claims about streaming take; added once where they run together."""
    if "--streaming-shape" in parser._option_string_actions:
        return
    group = parser.add_argument_group("models larger than memory")
    group.add_argument("--streaming-shape", default="2.4b", help="of qwen3-vl")
    group.add_argument("--streaming-folder", type=Path, help="a checkpoint of that shape, or where")
    group.add_argument("--streaming-threads", type=int, help="that compute; else torch's default")
    group.add_argument("--streaming-way", action="append", help="one of them; may be repeated")


def run(options: argparse.Namespace) -> Mapping[str, object]:
    rounds = 1 if options.fast else options.streaming_rounds
    shares = options.streaming_share or (SHARES[::2] if options.fast else SHARES)
    words = 40 if options.fast else options.streaming_prompt
    task: dict[str, Any] = {
        "measure": "single",
        "long_words": words,
        "short_words": 16,
        "new": 3 if options.fast else options.streaming_new,
        "repeats": 1 if options.fast else options.streaming_repeats,
    }
    # The chat's own words around the question are tokens too.
    task["prompt"] = words + _CHAT
    rows: list[Row] = []
    with checkpoint(options) as folder:
        task |= {"folder": str(folder), "dtype": "float32" if options.fast else "bfloat16"}
        sizes = in_a_process(WAYS_MODULE, {**task, "way": "describe"})
        for number in range(rounds):
            cases = [(share, way) for share in shares for way in _ways(options, share)]
            for share, way in cases if number % 2 == 0 else reversed(cases):
                row = measured(task, sizes, share, way, options.streaming_threads)
                rows.append({"round": number, **row})
                print(_line(rows[-1]), flush=True)
    return {"rounds": rounds, "targets": TARGETS, **sizes, "ratios": _ratios(rows), "rows": rows}


@contextmanager
def checkpoint(options: argparse.Namespace) -> Iterator[Path]:
    """The one that was named, if it is there; one that was made is deleted, unless a place for it
    was named."""
    shape = "tiny" if options.fast else options.streaming_shape
    named: Path | None = options.streaming_folder
    with tempfile.TemporaryDirectory() as own:
        folder = named or Path(own) / "model"
        if not (folder / "config.json").exists():
            make("qwen3-vl", folder, shape)
        yield folder


def measured(
    task: Mapping[str, Any], sizes: Mapping[str, int], share: float, way: str, threads: int | None
) -> Row:
    """One case beside the disk's own rate just before."""
    weights = int(share * sizes["weights"])
    budget = int((weights + sizes["others"]) / 0.98)
    disk = in_a_process(WAYS_MODULE, {**task, "way": "raw"})
    found = in_a_process(
        WAYS_MODULE,
        {**task, "way": way, "budget": budget, "weights_budget": weights},
        cap=budget,
        threads=threads,
    )
    row = {"share": share, "way": way, "budget": budget, **disk, **found}
    if "bytes_per_token" in row:
        least_s = row["bytes_per_token"] / row["disk_bytes_per_s"]
        row["of_disk"] = least_s * row["decode_tokens_per_s"]
    if "peak_bytes" in row:
        row["over_the_cap"] = row["peak_bytes"] > budget
    return row


def _ways(options: argparse.Namespace, share: float) -> Sequence[str]:
    # With room for all weights accelerate offloads nothing: it is plain transformers.
    ways = ("octavo", "transformers") if share >= 1 else ("octavo", "accelerate", "transformers")
    return [way for way in ways if not options.streaming_way or way in options.streaming_way]


def _line(row: Row) -> str:
    begin = f"{row['round'] + 1}: {row['share']:4.0%} {row['way']:>12}"
    if "killed" in row:
        return f"{begin}: ended by the cap of {row['budget'] / 1e9:.2f} GB"
    return (
        f"{begin}: prefill {row['prefill_s']:.2f} s, decode {row['decode_tokens_per_s']:.2f} "
        f"tokens/s, {row['bytes_per_token'] / 1e9:.2f} GB a token, {row['of_disk']:.0%} of a disk "
        f"with {row['disk_bytes_per_s'] / 1e9:.2f} GB/s, peak {row['peak_bytes'] / 1e9:.2f} of "
        f"{row['budget'] / 1e9:.2f} GB"
    )


def _ratios(rows: Sequence[Row]) -> dict[str, float]:
    """By share; what was not measured is left out."""
    found = {}
    for share in sorted({row["share"] for row in rows}, reverse=True):
        at = f"at_{share:.0%}".removesuffix("%")
        for rival in ("accelerate", "transformers"):
            found[f"decode_over_{rival}_{at}"] = _ratio(
                rows, (share, "octavo"), (share, rival), lambda a, b: _decode(a) / _decode(b)
            )
            found[f"prefill_over_{rival}_{at}"] = _ratio(
                rows, (share, "octavo"), (share, rival), lambda a, b: _prefill(a) / _prefill(b)
            )
        if share < 1:
            found[f"prefill_over_resident_{at}"] = _ratio(
                rows, (share, "octavo"), (1.0, "octavo"), lambda a, b: _prefill(a) / _prefill(b)
            )
            found[f"of_disk_{at}"] = _ratio(
                rows, (share, "octavo"), (share, "octavo"), lambda a, _: float(a["of_disk"])
            )
    known = {name: round(value, 3) for name, value in found.items() if value is not None}
    for name, value in known.items():
        print(f"  {name}: {value}")
    return known


def _ratio(
    rows: Sequence[Row],
    one: tuple[float, str],
    other: tuple[float, str],
    of: Callable[[Row, Row], float],
) -> float | None:
    """Median over rounds in which both ended well."""
    ended = {(row["round"], row["share"], row["way"]): row for row in rows if "killed" not in row}
    pairs = [
        (ended[number, *one], ended[number, *other])
        for number in {row["round"] for row in rows}
        if (number, *one) in ended and (number, *other) in ended
    ]
    return statistics.median(of(a, b) for a, b in pairs) if pairs else None


def _decode(row: Row) -> float:
    return float(row["decode_tokens_per_s"])


def _prefill(row: Row) -> float:
    return float(row["prefill_s"])
