"""A trace played with every policy: the tables, and the same facts for ``--json``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from octavo.cli._errors import printable
from octavo.memory.replay import Outcome, best, compare, distinct_bytes
from octavo.memory.sizes import format_bytes
from octavo.memory.trace import Access


@dataclass(frozen=True, slots=True)
class Traced:
    """What a trace holds.

    Attributes:
        trace: its file.
        ops: how many of each.
        keys: that it names.
        nbytes: of all their values together.
        costs: whether it knows what values cost; else each counts 1.
        uniform: whether all values have one size and one cost.
    """

    trace: Path
    ops: Counter[str]
    keys: int
    nbytes: int
    costs: bool
    uniform: bool


@dataclass(frozen=True, slots=True)
class Played:
    """One capacity: the online policies, the best first, and Belady."""

    capacity: int
    online: Sequence[Outcome]
    belady: Outcome


def look(trace: Path, accesses: Sequence[Access]) -> Traced:
    reads = [access for access in accesses if access.op != "delete"]
    costs = {access.cost for access in reads}
    return Traced(
        trace,
        Counter(access.op for access in accesses),
        len({access.key for access in accesses}),
        distinct_bytes(accesses),
        costs != {1.0},
        len(costs) == 1 and len({access.nbytes for access in reads}) == 1,
    )


def play(accesses: Sequence[Access], capacity: int, on_progress: Callable[[str], None]) -> Played:
    def on_policy(name: str) -> None:
        on_progress(f"{name} with {format_bytes(capacity)}")

    *online, belady = compare(accesses, capacity, on_policy=on_policy)
    return Played(capacity, sorted(online, key=_missed), belady)


def facts(traced: Traced, played: Sequence[Played]) -> dict[str, Any]:
    """For ``--json``. A regret of null: Belady missed nothing, the policy something."""
    return {
        "trace": str(traced.trace),
        "gets": traced.ops["get"],
        "puts": traced.ops["put"],
        "deletes": traced.ops["delete"],
        "keys": traced.keys,
        "distinct_bytes": traced.nbytes,
        "capacities": [
            {
                "capacity": one.capacity,
                "best": best(one.online).name,
                "policies": [_outcome_facts(each, one.belady) for each in one.online],
                "belady": _outcome_facts(one.belady, one.belady),
            }
            for one in played
        ],
    }


def show(traced: Traced, played: Sequence[Played]) -> None:
    console = Console(highlight=False)
    counted = ", ".join(
        f"{traced.ops[op]:,} {op}{'' if traced.ops[op] == 1 else 's'}"
        for op in ("get", "put", "delete")
        if traced.ops[op]
    )
    console.print(
        Text(f"{printable(traced.trace.name)}: {counted} of ")
        + Text(f"{traced.keys:,} values, {format_bytes(traced.nbytes)} together"),
        soft_wrap=True,
    )
    for one in played:
        share = f", {one.capacity / traced.nbytes:.0%} of all values" if traced.nbytes else ""
        console.print(Text(f"\n{format_bytes(one.capacity)}{share}", style="bold"))
        console.print(_table(one, seconds=traced.costs))
    console.print(Text(f"\n{_explained(traced)}", style="dim"))


def _explained(traced: Traced) -> str:
    lines = ["Regret: missed beyond Belady, which knows the future."]
    if not traced.uniform:
        lines.append("Sizes or costs differ, so Belady is no bound: regret may be negative.")
    if not traced.costs:
        lines.append("The trace knows no costs: each miss counts 1.")
    return "\n".join(lines)


def _table(one: Played, *, seconds: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("policy", no_wrap=True)
    for name in ("hits", "hit %", "missed", "cost" if seconds else "misses", "evicted", "regret"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    least = _missed(best(one.online))
    for outcome in one.online:
        is_best = _missed(outcome) == least
        row = _cells(outcome, one.belady, seconds=seconds)
        table.add_row(*row, "best" if is_best else "", style="green" if is_best else None)
    table.add_row(*_cells(one.belady, one.belady, seconds=seconds), style="dim")
    return table


def _cells(outcome: Outcome, belady: Outcome, *, seconds: bool) -> list[str]:
    cost = outcome.missed_cost
    regret = outcome.regret(belady).cost_ratio
    return [
        outcome.name,
        f"{outcome.hits:,}",
        f"{100 * outcome.hit_ratio:.1f}",
        format_bytes(outcome.missed_bytes),
        _seconds(cost) if seconds else f"{cost:,.0f}",
        f"{outcome.evictions:,}",
        "" if outcome is belady else "-" if regret is None else f"{regret:+.1%}",
    ]


def _seconds(cost: float) -> str:
    return f"{cost:,.0f} s" if cost >= 99.5 else f"{cost:#.3g} s"


def _outcome_facts(outcome: Outcome, belady: Outcome) -> dict[str, Any]:
    facts = {key: value for key, value in asdict(outcome).items() if key != "capacity"}
    facts["hit_ratio"] = outcome.hit_ratio
    return facts | {"regret": asdict(outcome.regret(belady))}


def _missed(outcome: Outcome) -> tuple[float, int]:
    return outcome.missed_cost, outcome.missed_bytes
