"""Fills the tables of docs/memory.md, and that of README.md, from ``benchmarks/results``.

``python tools/memory_tables.py`` writes them, ``--check`` only says whether they are up to date.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# As a script it is started without the project's root on the path.
sys.path.insert(0, str(ROOT))

from benchmarks.memory import policies, predictors  # noqa: E402
from tools import tables  # noqa: E402
from tools.tables import MISSING, Results, between, table, where  # noqa: E402

CLAIMS = ("policies", "disk", "store", "codecs", "pools")


def load(claim: str) -> Results | None:
    """The results of one claim; None where it was never measured."""
    return tables.load(f"memory-{claim}")


def updated(text: str) -> str:
    """``text`` with the table between each pair of markers made anew."""
    for name, (claim, made_by) in TABLES.items():
        results = load(claim)
        made = MISSING if results is None else f"{made_by(results)}\n\n{where(results)}"
        text = between(text, name, made)
    return between(text, "memory", _summary({claim: load(claim) for claim in CLAIMS}))


def _hits(results: Results) -> str:
    return table(["", "µs a hit"], [(name, f"{us:.2f}") for name, us in results["hit_us"].items()])


def _peaks(results: Results) -> str:
    keys = ("level", "budget_mb", "ledger_peak_mb", "measured_mb")
    head = ["level", "budget, MB", "ledger's peak, MB", "measured, MB"]
    return table(head, [[row[key] for key in keys] for row in results["peak"]])


def _disk(results: Results) -> str:
    return "\n\n".join((_bandwidth(results), _round_trips(results), _overlap(results)))


def _bandwidth(results: Results) -> str:
    rows = []
    for size, found in results["bandwidth"].items():
        if not isinstance(found, Mapping):
            continue
        rate = {name: f"{value / 1e9:.2f}" for name, value in found["bytes_per_s"].items()}
        rows.append(
            [
                f"values of {size}",
                f"{rate['tier read']} of {rate['bare read']} ({found['read_ratio']:.0%})",
                f"{rate['tier write']} of {rate['bare write']} ({found['write_ratio']:.0%})",
            ]
        )
    head = ["GB/s of a bare loop of direct I/O", "read", "write"]
    return table(head, rows)


def _round_trips(results: Results) -> str:
    capped = results["capped"]
    size, cap = capped["tensor_bytes"] >> 20, capped["cap_bytes"] >> 20
    rows = []
    for tool, taken in capped["seconds"].items():
        over = capped["speedup"].get(tool, {})
        beside = [f"{over[ours]:.2f}" if over else "" for ours in ("octavo disk", "octavo store")]
        rows.append([tool, f"{taken['write']:.2f}", f"{taken['read']:.2f}", *beside])
    head = [
        f"{capped['count']} tensors of {size} MiB, at most {cap} MiB of memory",
        "write, s",
        "read, s",
        "times as long as the disk tier",
        "as the store",
    ]
    return table(head, rows)


def _overlap(results: Results) -> str:
    overlap = results["overlap"]
    rows = [
        [name, f"{slower:.2f}", f"{overlap['read_bytes_per_s'].get(name, 0) / 1e9:.2f}"]
        for name, slower in overlap["slowdown"].items()
    ]
    return table(["a matrix product on all cores meanwhile", "of its time alone", "GB/s"], rows)


def _pools(results: Results) -> str:
    rows = []
    for workload, found in results.items():
        if not isinstance(found, Mapping) or "median" not in found:
            continue
        arena, plain = (found["median"][way] for way in found["median"])
        rows += [
            [f"{workload}: {name}", f"{arena[name]:.2f}", f"{plain[name]:.2f}"]
            for name in ("peak over live", "allocate, us", "all three, us")
        ]
    return table([f"{results['allocations']} allocations", "arena", "torch.empty"], rows)


def _codecs(results: Results) -> str:
    head = ["tensor", "codec", "ratio", "encode, GB/s", "decode, GB/s"]
    rows = []
    for tensor, found in results["tensors"].items():
        for name, row in found["codecs"].items():
            if name in _SHOWN:
                figures = (row["ratio"], row["encode_gb_per_s"], row["decode_gb_per_s"])
                rows.append([tensor, name, *(f"{figure:.2f}" for figure in figures)])
    return table(head, rows)


def _summary(claims: Mapping[str, Results | None]) -> str:
    """The README's: what was asked, what it is, what beside."""
    rows = [row for name, rows in _ROWS.items() if (found := claims[name]) for row in rows(found)]
    if not rows:
        return MISSING
    measured = [f"{name.capitalize()}: {where(found)}" for name, found in claims.items() if found]
    return table(["", "Octavo", "beside"], rows) + "\n\n" + "\n".join(measured)


def _policy_rows(results: Results) -> Iterator[list[str]]:
    over = results["adaptive_over_best"]
    yield [
        "cost missed by the adaptive policy, over the best single one on each of 72 replays",
        f"worst {over['worst']:.2f}, mean {over['mean']:.2f}",
        "LRU: up to " + f"{_worst(results, 'lru'):.1f}",
    ]


def _worst(results: Results, name: str) -> float:
    """The most that a policy alone misses over the best single one."""
    worst = 0.0
    for row in results["rows"]:
        cost = {key: one["missed_cost"] for key, one in row["policies"].items()}
        best = min(value for key, value in cost.items() if key not in ("adaptive", "belady"))
        worst = max(worst, cost[name] / best if best else 1.0)
    return worst


def _disk_rows(results: Results) -> Iterator[list[str]]:
    found = [row for row in results["bandwidth"].values() if isinstance(row, Mapping)]
    for way in ("read", "write"):
        ratios = [row[f"{way}_ratio"] for row in found]
        yield [
            f"disk tier, {way}: share of a bare loop of direct I/O, values of 1 to 256 MiB",
            f"{min(ratios):.0%} to {max(ratios):.0%}",
            "bare loop: 100%",
        ]
    capped = results["capped"]
    for ours in ("octavo disk", "octavo store"):
        others = ", ".join(f"{tool} {over[ours]:.2f}" for tool, over in capped["speedup"].items())
        yield [f"write and read back under a memory cap, {ours}: times as long", "1", others]
    slower = results["overlap"]["slowdown"]
    yield [
        "matrix product while the disk is read: times as long as alone",
        f"{slower['tier']:.2f}",
        f"bare loop {slower['bare loop']:.2f}, numpy.fromfile {slower['numpy.fromfile']:.2f}",
    ]


def _store_rows(results: Results) -> Iterator[list[str]]:
    hit = results["hit_us"]
    yield [
        "a hit in the top tier, µs (minimal, balanced, aggressive)",
        ", ".join(
            f"{hit[f'octavo, {level}']:.1f}" for level in ("minimal", "balanced", "aggressive")
        ),
        f"LRU dict under a lock {hit['LRU dict under a lock']:.1f}",
    ]
    worst = max(row["measured_mb"] / row["budget_mb"] for row in results["peak"])
    yield ["measured peak over the budget, values of twice the budget", f"{worst:.2f}", "at most 1"]


#: Codecs shown of those measured.
_SHOWN = (
    "fp16",
    "bf16",
    "int8",
    "int4",
    "sparse",
    "zstd",
    "blosc2 zstd level 1",
    "blosc2 lz4 level 5",
)

#: Marker → claim and how its results are shown.
TABLES: dict[str, tuple[str, Callable[[Results], str]]] = {
    "policies": ("policies", policies.table),
    "predictors": ("policies", lambda results: predictors.table(results["predictors"])),
    "hits": ("store", _hits),
    "peaks": ("store", _peaks),
    "disk": ("disk", _disk),
    "pools": ("pools", _pools),
    "codecs": ("codecs", _codecs),
}

_ROWS: dict[str, Callable[[Results], Iterator[list[str]]]] = {
    "policies": _policy_rows,
    "disk": _disk_rows,
    "store": _store_rows,
}

PAGES = (ROOT / "docs" / "memory.md", ROOT / "README.md")


def main() -> int:
    return tables.fill(PAGES, updated, "memory_tables.py")


if __name__ == "__main__":
    raise SystemExit(main())
