"""``octavo doctor``: what this machine has, what is missing, and the command that mends it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from octavo.cli._checks import Check

_MARKS = {
    "ok": ("ok", "green"),
    "missing": ("missing", "bold red"),
    "optional": ("-", "dim"),
    "note": ("look", "yellow"),
}


def doctor(
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say what this machine has, what is missing and the command that mends it.

    Exit code: 0 when documents can be parsed, 1 when something needed is missing.
    """
    from octavo._version import __version__
    from octavo.cli._checks import all_checks
    from octavo.hardware import probe

    hardware = probe()
    checks = all_checks(hardware)
    missing = any(check.state == "missing" for check in checks)
    if json_output:
        facts = {
            "octavo": __version__,
            "status": "missing" if missing else "ok",
            "hardware": asdict(hardware),
            "checks": [asdict(check) for check in checks],
        }
        typer.echo(json.dumps(facts, ensure_ascii=False, default=str))
    else:
        _print(checks, missing)
    raise typer.Exit(int(missing))


def _print(checks: Sequence[Check], missing: bool) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    group = ""
    for check in checks:
        if check.group != group:
            group = check.group
            table.add_row(Text(group, style="bold"))
        mark, style = _MARKS[check.state]
        table.add_row(f"  {check.name}", Text(mark, style=style), Text(check.value))
    console.print(table)
    fixes = [check for check in checks if check.fix]
    if fixes:
        console.print(Text("\nTo mend or add", style="bold"))
    for check in fixes:
        console.print(Text(f"  {check.name}: {check.fix}"), soft_wrap=True)
    console.print(
        Text("\nSomething that parsing needs is missing.", style="bold red")
        if missing
        else Text("\nDocuments can be parsed.", style="green")
    )
