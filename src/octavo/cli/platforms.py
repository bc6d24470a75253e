"""``octavo platforms``: which family runs how well where, and what is here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from octavo.hardware.accelerators import Accelerator
    from octavo.hardware.platforms import Cell, Platform

_STYLES = {"high": "green", "medium": "yellow", "limited": "dark_orange", "none": "dim"}
_HERE = "●"
#: Columns from which the table has room for whole words.
_WIDE = 110
_SHORT = {"medium": "med", "limited": "lim", "none": "-", "openvino": "ov"}


def platforms(
    family: Annotated[
        str | None, typer.Argument(help="Only this family, with its settings.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say which family of models runs how well on which platform.

    Platforms of this machine are marked.
    """
    from octavo.hardware.accelerators import accelerators
    from octavo.hardware.platforms import Platform, cell, detected, family_names

    names = family_names() if family is None else (family,)
    rows = [[cell(name, platform) for platform in Platform] for name in names]
    devices = accelerators()
    here = detected(devices)
    if json_output:
        typer.echo(json.dumps(_facts(rows, here, devices), ensure_ascii=False))
        return
    from rich.console import Console

    console = Console(highlight=False)
    if family is None:
        _show_table(console, rows, here)
        _show_reasons(console, rows)
    else:
        _show_family(console, rows[0], here)
    _show_here(console, here, devices)
    tried = ", ".join(cell.platform for cell in rows[0] if cell.tried)
    console.print(f"Octavo's own tests run on {tried} only.", style="dim")


def _facts(
    rows: Sequence[Sequence[Cell]], here: set[Platform], devices: Sequence[Accelerator]
) -> dict[str, Any]:
    return {
        "detected": sorted(here),
        "devices": [
            {
                "kind": one.kind,
                "name": one.name,
                "total_bytes": one.total_bytes,
                "ready": one.ready,
                "limits": one.limits,
            }
            for one in devices
        ],
        "cells": [
            {**asdict(cell), "detected": cell.platform in here} for row in rows for cell in row
        ],
    }


def _show_table(console: Console, rows: Sequence[Sequence[Cell]], here: set[Platform]) -> None:
    from rich.table import Table
    from rich.text import Text

    wide = console.width >= _WIDE
    # One space apart: nine platforms beside the longest family fit into 80 columns.
    table = Table(box=None, pad_edge=False, padding=(0, 2 if wide else 1, 0, 0))
    table.add_column("", no_wrap=True)
    for cell in rows[0]:
        name = cell.platform.value if wide else _SHORT.get(cell.platform.value, cell.platform.value)
        mark = _HERE if cell.platform in here else ""
        style = "bold" if mark else "dim"
        table.add_column(Text(f"{name}{mark}", style=style), no_wrap=True)
    for row in rows:
        words = [(cell.level.value, _STYLES[cell.level]) for cell in row]
        table.add_row(
            row[0].family,
            *(Text(word if wide else _SHORT.get(word, word), style=style) for word, style in words),
        )
    console.print(table)
    if not wide:
        short = ", ".join(f"{short}: {word}" for word, short in _SHORT.items())
        console.print(Text(short, style="dim"))


def _show_reasons(console: Console, rows: Sequence[Sequence[Cell]]) -> None:
    """Why not better, each reason once, with the families that it concerns."""
    from rich.table import Table
    from rich.text import Text

    console.print(Text("\nWhy not better", style="bold"))
    concerned: dict[tuple[str, str, str], list[str]] = {}
    for cell in (cell for row in rows for cell in row if cell.reason):
        key = (cell.platform.value, cell.level.value, cell.reason or "")
        concerned.setdefault(key, []).append(cell.family)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    order = {cell.platform.value: number for number, cell in enumerate(rows[0])}
    for (platform, level, reason), families in sorted(
        concerned.items(), key=lambda item: order[item[0][0]]
    ):
        whom = "" if len(families) > len(rows) // 2 else f"{', '.join(families)}: "
        table.add_row(f"  {platform}", Text(level, style=_STYLES[level]), f"{whom}{reason}")
    console.print(table)


def _show_family(console: Console, row: Sequence[Cell], here: set[Platform]) -> None:
    from rich.table import Table
    from rich.text import Text

    console.print(Text(row[0].family, style="bold"))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("", "level", "precision", "batch", "context", "capture"):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    for cell in row:
        mark = f" {_HERE}" if cell.platform in here else ""
        level = Text(cell.level.value, style=_STYLES[cell.level])
        if not cell.precisions:
            table.add_row(f"{cell.platform}{mark}", level, "", "", "", "")
            continue
        table.add_row(
            f"{cell.platform}{mark}",
            level,
            _precisions(cell),
            str(cell.batch),
            "" if cell.kv_tokens is None else str(cell.kv_tokens),
            cell.capture,
        )
    console.print(table)
    _show_reasons(console, [row])


def _precisions(cell: Cell) -> str:
    """``bf16``, or with what differs from the most: ``bf16, language int8``."""
    used = list(cell.precisions.values())
    most = max(used, key=used.count) if len(set(used)) < len(used) else used[-1]
    others = (f"{part} {one}" for part, one in cell.precisions.items() if one is not most)
    return ", ".join((most.value, *others))


def _show_here(console: Console, here: set[Platform], devices: Sequence[Accelerator]) -> None:
    from rich.text import Text

    console.print(Text(f"\n{_HERE} on this machine: {', '.join(sorted(here))}", style="bold"))
    for one in devices:
        state = "" if one.ready is not False else " (not usable)"
        console.print(Text(f"  {one.kind}: {one.name or 'unknown'}{state}"), soft_wrap=True)
        for limit in one.limits:
            console.print(Text(f"    {limit}", style="dim"), soft_wrap=True)
