"""Fills the tables of docs/engine.md and README.md from ``benchmarks/results/engine-*.json``.

``python tools/engine_tables.py`` writes them, ``--check`` only says whether they are up to date.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# As a script it is started without the project's root on the path.
sys.path.insert(0, str(ROOT))

from tools import tables  # noqa: E402
from tools.tables import MISSING, Results, between, table, where  # noqa: E402

PAGES = (ROOT / "docs" / "engine.md", ROOT / "README.md")
Rows = Iterator[list[str]]


def load(claim: str) -> Results | None:
    """The results of one claim; None where it was never measured."""
    return tables.load(f"engine-{claim}")


def updated(text: str) -> str:
    """``text`` with the table between the markers made anew."""
    found = {claim: results for claim in CLAIMS if (results := load(claim)) is not None}
    rows = [row for claim, results in found.items() for row in CLAIMS[claim](results)]
    if not rows:
        return between(text, "engine", MISSING)
    notes = "\n".join(
        f"{claim.replace('_', ' ').capitalize()}: {where(results)}"
        for claim, results in found.items()
    )
    return between(text, "engine", f"{table(['', 'Octavo', 'beside'], rows)}\n\n{notes}")


def _streaming(results: Results) -> Rows:
    ratios = results["ratios"]
    size = f"{results['parameters'] / 1e9:.1f} B in bf16" if "parameters" in results else "2.4 B"
    for key, words, beside in (
        ("decode_over_accelerate", "tokens a second", "accelerate from disk: 1"),
        ("decode_over_transformers", "tokens a second", "transformers over mmap: 1"),
        ("of_disk", "decode, share of what the disk can read", "bare direct reads: 1"),
        ("prefill_over_resident", "prefill, times as long as all resident", "1"),
        ("prefill_over_accelerate", "prefill, times as long", "accelerate from disk: 1"),
    ):
        for share in (100, 75, 50, 35):
            value = ratios.get(f"{key}_at_{share}")
            if value is not None:
                yield [
                    f"{size}, memory for {share}% of the weights: {words}",
                    f"{value:.2f}",
                    beside,
                ]
    over = [row["peak_bytes"] / row["budget"] for row in results["rows"] if row["way"] == "octavo"]
    yield [f"{size}: measured peak over the budget, at most", f"{max(over):.2f}", "at most 1"]


def _batch_streaming(results: Results) -> Rows:
    share = f"{results['share']:.0%}"
    for key, rival in (
        ("over_accelerate", "accelerate, the same batch: 1"),
        ("over_accelerate_one_by_one", "accelerate, one by one: 1"),
    ):
        if key in results["ratios"]:
            words = f"16 requests, memory for {share} of the weights: tokens a second"
            yield [words, f"{results['ratios'][key]:.2f}", rival]


def _batching(results: Results) -> Rows:
    for name, found in results.items():
        if isinstance(found, dict) and "over_static" in found:
            yield [
                f"48 requests like pages, {name}: tokens a second",
                "1",
                f"static batches of 8: {1 / found['over_static']:.2f}, "
                f"one at a time: {1 / found['over_alone']:.2f}",
            ]


def _kv(results: Results) -> Rows:
    for precision, ratio in results["capacity"]["over_dynamic"].items():
        words = f"keys and values, {precision}: tokens in the same bytes"
        yield [words, f"{ratio:.2f}", "DynamicCache: 1"]
    for name, ratio in results["decode"]["ratios"].items():
        yield [f"decode at {results['decode']['history']} tokens, {name}", f"{ratio:.2f}", "1"]
    tier = results["lower_tier"]
    same = ", ".join(name for name, alike in tier["same_as_with_room"].items() if alike)
    yield [
        f"keys and values, a disk below: length in the same bytes (same tokens: {same})",
        f"{tier['over_dynamic']:.2f}",
        "DynamicCache: 1",
    ]
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
    for way, beside in (("prefix", "transformers: 1"), ("features", "transformers: 1")):
        words = f"second question about a picture, {way} shared: first token, times sooner"
        yield [words, f"{results['sooner'][way]:.1f}", beside]


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


CLAIMS: dict[str, Callable[[Results], Rows]] = {
    "streaming": _streaming,
    "batch_streaming": _batch_streaming,
    "batching": _batching,
    "kv": _kv,
    "peak": _peak,
    "second_question": _second_question,
    "faults": _faults,
    "long_run": _long_run,
}


def main() -> int:
    return tables.fill(PAGES, updated, "engine_tables.py")


if __name__ == "__main__":
    raise SystemExit(main())
