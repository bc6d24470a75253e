"""What the tools that fill tables share: markers, Markdown tables, where something was measured."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
MISSING: Final = "Not measured yet."

Results = Mapping[str, Any]


def load(name: str) -> Results | None:
    """``benchmarks/results/<name>.json``; None where it was never measured."""
    path = ROOT / "benchmarks" / "results" / f"{name}.json"
    if not path.exists():
        return None
    results: Results = json.loads(path.read_text(encoding="utf-8"))
    return results


def between(text: str, name: str, made: str) -> str:
    """``text`` with what stands between the markers of ``name`` replaced."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    block = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    return block.sub(lambda _: f"{begin}\n{made}\n{end}", text)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown; the first column is text, the others are numbers."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def where(results: Results) -> str:
    """Day, commit and machine."""
    machine = results["machine"]
    changes = " with changes" if machine["changed_files"] else ""
    return (
        f"{machine['date'][:10]}, commit {str(machine['commit'])[:8]}{changes}, "
        f"{machine['cores']} cores of {machine['cpu']}."
    )


def fill(pages: Sequence[Path], updated: Callable[[str], str], tool: str) -> int:
    """Writes the tables of ``pages`` anew; with ``--check`` only says whether they are old."""
    old = False
    for page in pages:
        text = page.read_text(encoding="utf-8")
        now = updated(text)
        if "--check" in sys.argv[1:]:
            old = old or now != text
        else:
            page.write_text(now, encoding="utf-8")
    if old:
        print(f"tables of results are old: python tools/{tool}", file=sys.stderr)
    return int(old)
