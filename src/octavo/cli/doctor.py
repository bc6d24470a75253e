"""``octavo doctor``: what this machine has, what is missing, and the command that mends it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from octavo.errors import OutputError

if TYPE_CHECKING:
    from octavo.cli._checks import Check
    from octavo.hardware import Hardware
    from octavo.hardware.bandwidth import Bandwidth

_MARKS = {
    "ok": ("ok", "green"),
    "missing": ("missing", "bold red"),
    "optional": ("-", "dim"),
    "note": ("look", "yellow"),
}


def doctor(
    bench: Annotated[
        bool, typer.Option("--bench", help="Measure memory, products and disk, and keep it.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say what this machine has, what is missing and the command that mends it.

    Exit code: 0 when documents can be parsed, 1 when something needed is missing.
    """
    from octavo._version import __version__
    from octavo.cli._checks import all_checks
    from octavo.hardware import probe

    hardware = probe()
    checks = all_checks(hardware, bench=partial(_measure, hardware) if bench else None)
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


def _measure(hardware: Hardware, with_torch: bool) -> Bandwidth:
    """Measures where models are kept, and keeps the figures."""
    from octavo.cli._waiting import Waiting
    from octavo.hardware.bandwidth import measure, save_measured
    from octavo.hardware.home import octavo_home

    home = octavo_home()
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"no folder can be made to measure in: {error.strerror or error}",
            where=str(home),
            next_step="set OCTAVO_HOME to a folder that this user may write to",
        ) from error
    with Waiting() as waiting:
        found = measure(home, hardware=hardware, with_torch=with_torch, on_progress=waiting)
    save_measured(found)
    return found


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
