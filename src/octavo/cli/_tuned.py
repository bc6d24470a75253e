"""What was measured of a disk: every try, and the one that is kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from octavo.cli._errors import printable
from octavo.memory.sizes import format_bytes

if TYPE_CHECKING:
    from octavo.memory.disk.tuning import Tuning


def show(folder: Path, tuning: Tuning, kept_in: Path) -> None:
    console = Console(highlight=False)
    device = f" on {tuning.device}" if tuning.device else ""
    way = "direct I/O" if tuning.direct else "through the page cache"
    heading = f"{printable(folder)}{device}, {way}"
    console.print(Text(heading, style="bold"), soft_wrap=True)
    if tuning.note:
        console.print(Text(printable(tuning.note), style="yellow"))
    console.print(_table(tuning))
    console.print(Text(f"Kept in {printable(kept_in)}", style="dim"), soft_wrap=True)


def _table(tuning: Tuning) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("block", "at a time", "reads", "writes"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for trial in tuning.measured:
        best = (trial.block, trial.depth) == (tuning.block, tuning.depth)
        table.add_row(
            format_block(trial.block),
            str(trial.depth),
            f"{format_bytes(trial.read_bytes_per_s)}/s",
            f"{format_bytes(trial.write_bytes_per_s)}/s",
            "best" if best else "",
            style="green" if best else None,
        )
    return table


def format_block(nbytes: int) -> str:
    """Blocks are powers of two: ``256 KiB``, ``4 MiB``."""
    return f"{nbytes >> 20} MiB" if nbytes >= 1 << 20 else f"{nbytes >> 10} KiB"
