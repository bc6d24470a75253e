"""Fills the tables of docs/models.md, and the rows of README.md, from ``benchmarks/results``.

``python tools/model_tables.py`` writes them, ``--check`` only says whether they are up to date.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# As a script it is started without the project's root on the path.
sys.path.insert(0, str(ROOT))

from tools import tables  # noqa: E402
from tools.tables import MISSING, Results, between, table, where  # noqa: E402

CLAIMS = ("load", "first_token", "plan", "quantized")
PAGES = (ROOT / "docs" / "models.md", ROOT / "README.md")


def load(claim: str) -> Results | None:
    """The results of one claim; None where it was never measured."""
    return tables.load(f"models-{claim}")


def updated(text: str) -> str:
    """``text`` with the table between each pair of markers made anew."""
    for name, made_by in TABLES.items():
        results = load(name)
        made = MISSING if results is None else f"{made_by(results)}\n\n{where(results)}"
        text = between(text, f"models-{name}", made)
    return between(text, "models", _summary())


def _load(results: Results) -> str:
    rows = []
    for way, found in results["medians"].items():
        forward = f"{found['forward_s']:.2f}" if "forward_s" in found else "—"
        peak = f"{found['peak_bytes'] / 1e9:.2f}"
        rows.append([way, f"{found['ready_s']:.2f}", forward, peak])
    head = ["", "ready, s", "first forward, s", "peak, GB"]
    ratios = "\n".join(
        f"- {words}: {results['ratios'][key]:.2f}"
        for key, words in (
            ("of_disk", "share of the disk's bandwidth while loading"),
            ("transformers_over_octavo_to_first_forward", "transformers over Octavo, to the end of "
             "the first forward"),
            ("int8_over_bf16", "int8 over bf16 until ready"),
        )
    )  # fmt: skip
    size = f"{results['bytes'] / 1e9:.1f} GB, median of {results['rounds']} rounds."
    return f"{table(head, rows)}\n\n{ratios}\n\n{size}"


def _first_token(results: Results) -> str:
    rows = [
        [way, f"{results['medians_s'][way]:.2f}", f"{results['over_all'][way]:.2f}"]
        for way in results["medians_s"]
    ]
    return table(["", "first token, s", "over `all`"], rows)


def _plan(results: Results) -> str:
    head = ["checkpoint", "precision", "budget", "predicted, MB", "measured, MB", "error"]
    return table(head, [_plan_row(row) for row in results["rows"]])


def _plan_row(row: Mapping[str, Any]) -> list[str]:
    named = ", ".join(f"{part} {kind}" for part, kind in row["precisions"].items())
    what = [
        f"{row['checkpoint']}, {row['parameters'] / 1e9:.2f} B",
        named or "as stored",
        f"{row['share']:.0%}",
    ]
    if "measured" not in row:
        return [*what, "refused", "—", "—"]
    streamed = sum(row["streamed"].values())
    if streamed:
        what[2] += f", {streamed} layers streamed"
    megabytes = (f"{row[key] / 1e6:.0f}" for key in ("predicted", "measured"))
    return [*what, *megabytes, f"{row['error']:+.1%}"]


def _quantized(results: Results) -> str:
    made = []
    for name, found in results.items():
        if not isinstance(found, Mapping) or "median" not in found:
            continue
        keys = list(next(iter(found["median"].values())))
        rows = [
            [way, *(f"{values[key]:.3g}" if key in values else "—" for key in keys)]
            for way, values in found["median"].items()
        ]
        made.append(f"{name}:\n\n{table(['', *keys], rows)}")
    return "\n\n".join(made)


def _summary() -> str:
    found = {claim: load(claim) for claim in CLAIMS}
    rows: list[list[str]] = []
    for claim, made_by in _ROWS.items():
        results = found[claim]
        if results is not None:
            rows += made_by(results)
    if not rows:
        return MISSING
    notes = "\n".join(
        f"{claim.replace('_', ' ').capitalize()}: {where(results)}"
        for claim in _ROWS
        if (results := found[claim]) is not None
    )
    return f"{table(['', 'Octavo', 'beside'], rows)}\n\n{notes}"


def _plan_rows(results: Results) -> Iterator[list[str]]:
    ran = [row for row in results["rows"] if "error" in row]
    cases = len({row["checkpoint"] for row in ran})
    yield [
        f"predicted against measured peak, {cases} checkpoints, {len(ran)} runs: largest error",
        f"{results['largest_error']:.1%}",
        "—",
    ]


def _load_rows(results: Results) -> Iterator[list[str]]:
    ratios = results["ratios"]
    yield [
        f"cold load of {results['bytes'] / 1e9:.1f} GB: share of the disk's bandwidth",
        f"{ratios['of_disk']:.0%}",
        "bare direct reads: 100%",
    ]
    yield [
        "cold load and first forward: times as long",
        "1",
        f"transformers {ratios['transformers_over_octavo_to_first_forward']:.2f}",
    ]
    yield ["int8 while reading: times as long as bf16", f"{ratios['int8_over_bf16']:.2f}", "—"]


def _first_token_rows(results: Results) -> Iterator[list[str]]:
    over = results["over_all"]
    yield [
        "first token for words while the tower is still read: times as long as loading all first",
        f"{over['at once']:.2f} (tower left out: {over['lazy']:.2f})",
        f"transformers {over['transformers']:.2f}",
    ]


TABLES: dict[str, Callable[[Results], str]] = {
    "load": _load,
    "first_token": _first_token,
    "plan": _plan,
    "quantized": _quantized,
}
_ROWS: dict[str, Callable[[Results], Iterator[list[str]]]] = {
    "plan": _plan_rows,
    "load": _load_rows,
    "first_token": _first_token_rows,
}


def main() -> int:
    return tables.fill(PAGES, updated, "model_tables.py")


if __name__ == "__main__":
    raise SystemExit(main())
