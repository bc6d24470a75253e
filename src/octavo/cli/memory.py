"""``octavo memory``: eviction policies on a recorded trace, and how a disk is best read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octavo.cli._errors import OK
from octavo.errors import BrokenFile, ConfigError, MissingDependency, SourceNotFound

if TYPE_CHECKING:
    from octavo.memory.trace import Access

#: Shares of all distinct bytes that a trace is played with where no capacity is given.
SHARES = ("25%", "50%", "75%")

#: Bytes; with less there is nothing to compare.
LEAST_MEASURED = 8 << 20

app = typer.Typer(add_completion=False)


@app.callback(invoke_without_command=True)
def memory(context: typer.Context) -> None:
    """Compare eviction policies on a trace; measure a disk."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(OK)


@app.command()
def replay(
    trace: Annotated[Path, typer.Argument(help="Recorded accesses, one JSON object a line.")],
    capacity: Annotated[
        list[str] | None,
        typer.Option(
            "--capacity",
            help=f"Such as 512MB, or 40% of all values; may be repeated. [{', '.join(SHARES)}]",
            metavar="SIZE",
        ),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Play a recorded trace with every eviction policy: what each would have hit.

    Regret is what a policy missed beyond Belady's choice, which knows the future.
    """
    from octavo.cli._waiting import Waiting

    with _extra_installed():
        from octavo.cli import _replayed
    with Waiting() as waiting:
        accesses = _accesses(trace)
        traced = _replayed.look(trace, accesses)
        sizes = _capacities(capacity or SHARES, traced.nbytes)
        played = [_replayed.play(accesses, size, waiting) for size in sizes]
    if json_output:
        typer.echo(json.dumps(_replayed.facts(traced, played), ensure_ascii=False))
    else:
        _replayed.show(traced, played)


@app.command()
def tune(
    folder: Annotated[Path, typer.Argument(help="Where the disk tier will be.")],
    size: Annotated[
        str, typer.Option(help="Of the file to measure with, removed afterwards.", metavar="SIZE")
    ] = "256MiB",
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Measure the block size and queue depth that suit a folder's disk, and keep them.

    A disk tier on this disk uses them from then on.
    """
    from octavo.cli._waiting import Waiting
    from octavo.memory.sizes import parse_bytes

    total_bytes = parse_bytes(size, name="--size")
    if total_bytes < LEAST_MEASURED:
        raise ConfigError(
            f"{size} is too little to measure a disk with",
            where="--size",
            next_step="give 8MiB or more; 256MiB tells more",
        )
    if not folder.is_dir():
        raise SourceNotFound(
            "there is no such folder", where=str(folder), next_step="create it, or check the path"
        )
    with _extra_installed():
        from octavo.memory.disk.tune import tune as measure
        from octavo.memory.disk.tuning import save_tuning
    with Waiting() as waiting:
        tuning = measure(folder, total_bytes=total_bytes, on_progress=waiting)
        kept_in = save_tuning(tuning, folder)
    if json_output:
        facts = {"folder": str(folder), **asdict(tuning), "kept_in": str(kept_in)}
        typer.echo(json.dumps(facts, ensure_ascii=False))
    else:
        from octavo.cli import _tuned

        _tuned.show(folder, tuning, kept_in)


def _accesses(trace: Path) -> Sequence[Access]:
    from octavo.memory.trace import read_trace

    accesses = list(read_trace(trace))
    if not any(access.op == "get" for access in accesses):
        raise BrokenFile(
            "nothing is read in this trace" if accesses else "the trace is empty",
            where=str(trace),
            next_step="record a run that reads values",
        )
    return accesses


def _capacities(wanted: Sequence[str], everything: int) -> list[int]:
    """Bytes of each size, or of each share of ``everything``."""
    from octavo.memory.sizes import parse_bytes

    found = []
    for size in wanted:
        share = size.strip().removesuffix("%")
        if share == size.strip():
            found.append(parse_bytes(size, name="--capacity"))
            continue
        try:
            found.append(round(everything * float(share) / 100))
        except (ValueError, OverflowError) as error:
            raise ConfigError(
                f"{size!r} is not a share",
                where="--capacity",
                next_step='write it such as "40%"',
            ) from error
    if min(found) <= 0:
        raise ConfigError(
            "a tier of no bytes holds nothing",
            where="--capacity",
            next_step='give a size such as "512MB" or "40%"',
        )
    return found


@contextmanager
def _extra_installed() -> Iterator[None]:
    """Tells which command installs what an import lacks."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("octavo"):
            raise
        raise MissingDependency(
            f"{error.name} is not installed", next_step="pip install 'octavo[memory]'"
        ) from error
