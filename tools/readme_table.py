"""Fills the table of results in README.md from ``benchmarks/results/documents-*.json``.

``python tools/readme_table.py`` writes it, ``--check`` only says whether it is up to date.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
NOT_MEASURED = "—"

#: Tools in the order of the columns.
TOOLS: Mapping[str, str] = {
    "octavo": "Octavo",
    "octavo-fast": "Octavo, fast",
    "kreuzberg": "kreuzberg",
    "markitdown": "markitdown",
    "rapidocr": "RapidOCR alone",
    "text-layer": "bare text layer",
}
#: Classes of rules in the order of the rows.
CLASSES: Mapping[str, str] = {
    "columns": "several columns, in order",
    "furniture": "running heads and page numbers left out",
    "tables": "table cells beside their neighbours",
    "small": "small print",
    "old": "old letters and print",
    "headings": "headings and their levels",
}

Results = Mapping[str, Any]
Row = tuple[str, Mapping[str, str]]


def load(claim: str) -> Results | None:
    """The results of one claim; None where it was never measured."""
    path = ROOT / "benchmarks" / "results" / f"documents-{claim}.json"
    if not path.exists():
        return None
    results: Results = json.loads(path.read_text(encoding="utf-8"))
    return results


def rendered() -> str:
    """Everything between the markers."""
    accuracy, speed, memory = (load(claim) for claim in ("accuracy", "speed", "memory"))
    rows = [*_accuracy(accuracy), *_speed(speed), *_memory(memory)]
    tools = [name for name in TOOLS if any(name in cells for _, cells in rows)]
    lines = [
        _line("", *(TOOLS[name] for name in tools)),
        _line("---", *("---:" for _ in tools)),
        *(_line(head, *(cells.get(name, NOT_MEASURED) for name in tools)) for head, cells in rows),
    ]
    return "\n".join([*lines, "", *_notes(accuracy, speed, memory)])


def updated(text: str) -> str:
    """``text`` of a README with the present results between its markers."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"README.md has no {BEGIN} and {END}")
    return f"{head}{begin}\n{rendered()}\n{end}{tail}"


def _accuracy(results: Results | None) -> list[Row]:
    if results is None:
        return []
    tools = results["tools"]
    rows: list[Row] = []
    for group, head in CLASSES.items():
        of = max(tool["classes"][group]["of"] for tool in tools.values())
        cells = {name: str(tool["classes"][group]["passed"]) for name, tool in tools.items()}
        rows.append((f"{head}, of {of}", cells))
    whole = {name: f"{tool['passed']} ({tool['percent']} %)" for name, tool in tools.items()}
    rows.append((f"all facts, of {results['rules']} on {results['pages']} pages", whole))
    return rows


def _speed(results: Results | None) -> list[Row]:
    if results is None:
        return []
    return [
        (f"{kind} pages a second", _each(results[kind], lambda t: f"{t['pages_per_second']:.2f}"))
        for kind in ("born-digital", "scanned")
        if kind in results
    ]


def _memory(results: Results | None) -> list[Row]:
    if results is None:
        return []
    pages = results["pages"]
    return [
        (f"{pages} pages: peak memory, MB", _each(results, lambda t: f"{t['peak_mb']:.0f}")),
        (
            f"{pages} pages: growth a page, MB",
            _each(results, lambda t: f"{t['slope_mb_per_page']:.3f}"),
        ),
        (f"{pages} pages: seconds", _each(results, lambda t: f"{t['seconds']:.0f}")),
    ]


def _each(results: Results, show: Callable[[Any], str]) -> dict[str, str]:
    return {name: show(tool) for name, tool in results["tools"].items()}


def _notes(*claims: Results | None) -> list[str]:
    """Versions, machine, date and commit: the claims may come from different days."""
    measured = [claim for claim in claims if claim is not None]
    notes = []
    for claim in measured:
        facts = claim["machine"]
        name = str(claim["claim"]).removeprefix("documents-").capitalize()
        changed = " with changes" if facts["changed_files"] else ""
        notes.append(
            f"{name}: {facts['date'][:10]}, commit {facts['commit'][:8]}{changed}, "
            f"{facts['cores']} cores of {facts['cpu']}, Python {facts['python']}."
        )
    versions = {
        name: tool["version"]
        for claim in measured
        for part in (claim, claim.get("born-digital", {}), claim.get("scanned", {}))
        for name, tool in part.get("tools", {}).items()
        if tool["version"] and not name.startswith("octavo")
    }
    if versions:
        named = (f"{TOOLS[name]} {versions[name]}" for name in TOOLS if name in versions)
        notes.append(f"Versions: {', '.join(named)}.")
    return notes


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> int:
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    wanted = updated(text)
    if "--check" in sys.argv[1:]:
        if text == wanted:
            return 0
        print("the table in README.md is old: python tools/readme_table.py", file=sys.stderr)
        return 1
    readme.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
