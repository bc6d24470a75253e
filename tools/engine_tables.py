"""Fills the tables of docs/engine.md and README.md from ``benchmarks/results/engine-*.json``.

``python tools/engine_tables.py`` writes them, ``--check`` only says whether they are up to date.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# As a script it is started without the project's root on the path.
sys.path.insert(0, str(ROOT))

from tools import tables  # noqa: E402
from tools.tables import MISSING, Results, between, table, where  # noqa: E402

PAGES = (ROOT / "docs" / "engine.md", ROOT / "README.md")
HEAD = ("", "Octavo", "beside")
Rows = Iterator[list[str]]
#: Columns of a model larger than memory: what is said, and the name of the ratio.
STREAMING = (
    ("tokens a second, accelerate = 1", "decode_over_accelerate"),
    ("transformers over mmap = 1", "decode_over_transformers"),
    ("share of what the disk can read", "of_disk"),
    ("prefill time, all resident = 1", "prefill_over_resident"),
    ("accelerate = 1", "prefill_over_accelerate"),
    ("transformers = 1", "prefill_over_transformers"),
)


def load(claim: str) -> Results | None:
    """The results of one claim; None where it was never measured."""
    return tables.load(f"engine-{claim}")


def updated(text: str) -> str:
    """``text`` with the tables between the markers made anew."""
    found = {claim: results for claim in CLAIMS if (results := load(claim)) is not None}
    for marker, claims in (("engine", CLAIMS), ("engine-short", SHORT)):
        rows = [row for claim in claims if claim in found for row in claims[claim](found[claim])]
        notes = "\n".join(
            f"{claim.replace('_', ' ').capitalize()}: {where(found[claim])}"
            for claim in claims
            if claim in found
        )
        made = f"{table(HEAD, rows)}\n\n{notes}" if rows else MISSING
        if marker == "engine" and "streaming" in found:
            made = f"{_by_memory(found['streaming'])}\n\n{made}"
        text = between(text, marker, made)
    return text


def _by_memory(results: Results) -> str:
    ratios = results["ratios"]
    rows = []
    for share in sorted({row["share"] for row in results["rows"]}, reverse=True):
        at = f"at_{share:.0%}".removesuffix("%")
        peaks = [
            row["peak_bytes"] / row["budget"]
            for row in results["rows"]
            if row["way"] == "octavo" and row["share"] == share
        ]
        values = [ratios.get(f"{key}_{at}") for _, key in STREAMING]
        told = ["—" if value is None else f"{value:.2f}" for value in values]
        rows.append([f"{share:.0%}", *told, f"{max(peaks):.2f}"])
    head = ("memory for", *(words for words, _ in STREAMING), "peak, budget = 1")
    return table(head, rows)


def _streaming(results: Results) -> Rows:
    value = results["ratios"]["decode_over_accelerate_at_50"]
    words = "a model of 2.4 B in memory for half of it: tokens a second"
    yield [words, f"{value:.1f}", "accelerate from disk: 1"]


def _batch_streaming(results: Results) -> Rows:
    (tokens,) = {row["tokens"] for row in results["rows"] if row["way"] == "octavo"}
    words = (
        f"16 requests of {tokens // 16} tokens each in memory for {results['share']:.0%} of the "
        "weights: tokens a second"
    )
    for key, rival in (
        ("over_accelerate", "accelerate, the same batch: 1"),
        ("over_accelerate_one_by_one", "accelerate, one by one: 1"),
    ):
        if key in results["ratios"]:
            yield [words, f"{results['ratios'][key]:.1f}", rival]


def _batching(results: Results) -> Rows:
    for name, found in results.items():
        if isinstance(found, dict) and "by_round" in found:
            words = f"48 requests with lengths like pages, {name}: tokens a second"
            yield [words, f"{found['over_static']:.1f}", "transformers, static batches of 8: 1"]
            yield [words, f"{found['over_alone']:.1f}", "transformers, one at a time: 1"]


def _capacity(results: Results) -> Rows:
    for precision, ratio in results["capacity"]["over_dynamic"].items():
        if precision != "DynamicCache":
            words = f"keys and values, {precision}: tokens in the same bytes"
            yield [words, f"{ratio:.2f}", "DynamicCache: 1"]


def _kv(results: Results) -> Rows:
    yield from _capacity(results)
    tier = results["lower_tier"]
    same = ", ".join(name for name, alike in tier["same_as_with_room"].items() if alike)
    yield [
        f"keys and values, a disk below: length in the same bytes (same tokens: {same})",
        f"{tier['over_dynamic']:.2f}",
        "DynamicCache: 1",
    ]
    decode = results["decode"]
    for name, ratio in decode["ratios"].items():
        precision, _, rival = name.partition(" over ")
        words = f"keys and values, {precision}: decode after {decode['history']} tokens"
        yield [words, f"{ratio:.2f}", f"{rival}: 1"]
    for precision, more in results["perplexity"]["over_dynamic"].items():
        if precision in ("int8", "int4"):
            yield [f"perplexity of SmolLM2, {precision}: more", f"{more:+.3f}", "exact: 0"]


def _peak(results: Results) -> Rows:
    for row in results["rows"]:
        wide, high = row["page"]
        same = "same tokens" if row["same_tokens"] else "other tokens"
        words = f"{row['checkpoint']}, a page of {wide} x {high}: peak above weights, keys, values"
        yield [words, f"{1 - row['saved']:.2f} ({same})", "whole tower and prompt: 1"]


def _second_question(results: Results) -> Rows:
    for way in ("prefix", "features"):
        words = f"second question about a picture, {way} shared: first token, times sooner"
        yield [words, f"{results['sooner'][way]:.1f}", "transformers: 1"]


def _faults(results: Results) -> Rows:
    yield [
        f"{results['faults']} allocations made to fail: requests lost, of {results['requests']}",
        f"{results['lost']} ({results['wrong']} with other tokens)",
        f"transformers: {results['rival_lost']} of {results['rival_requests']}"
        if "rival_lost" in results
        else "transformers: each",
    ]


def _long_run(results: Results) -> Rows:
    flat = "flat" if results["summary"]["flat"] else "not flat"
    yield [f"{results['requests']} requests: memory", flat, "—"]


def _compile(results: Results) -> Rows:
    for model, found in results.items():
        for size, one in found.items() if isinstance(found, dict) else ():
            if size.startswith("batch_"):
                words = f"compiled decoder, {model}, {size.replace('_', ' of ')}: tokens a second"
                yield [words, f"{one['over_eager']:.2f}", "not compiled: 1"]


CLAIMS: Mapping[str, Callable[[Results], Rows]] = {
    "streaming": lambda _: iter(()),
    "batch_streaming": _batch_streaming,
    "batching": _batching,
    "kv": _kv,
    "peak": _peak,
    "second_question": _second_question,
    "faults": _faults,
    "long_run": _long_run,
    "compile": _compile,
}
#: What the front page shows.
SHORT: Mapping[str, Callable[[Results], Rows]] = {
    "streaming": _streaming,
    "batch_streaming": _batch_streaming,
    "batching": lambda results: (row for row in _batching(results) if "tiny" not in row[0]),
    "kv": _capacity,
    "peak": _peak,
    "second_question": _second_question,
    "faults": _faults,
}


def main() -> int:
    return tables.fill(PAGES, updated, "engine_tables.py")


if __name__ == "__main__":
    raise SystemExit(main())
