"""``octavo pull``: a hub's model, after its size and licence were shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from octavo.cli._errors import json_line, printable
from octavo.cli._models import needs_models
from octavo.memory.sizes import format_bytes

if TYPE_CHECKING:
    from octavo.models.download import RemoteModel


def pull(
    *,
    model: Annotated[str, typer.Argument(help="owner/name, or a name that packages carry.")],
    revision: Annotated[
        str | None, typer.Option(help="A commit, tag or branch.", metavar="NAME")
    ] = None,
    look_only: Annotated[
        bool, typer.Option("--look", help="Only show size, licence and files.")
    ] = False,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Fetch a model with its checksums checked; run it again to go on after a stop.

    Weights in pickle files are never fetched: they can run code.
    """
    with needs_models():
        from octavo.models.download import look
        from octavo.models.download import pull as fetch
        from octavo.models.packaged import missing_packages, opened, packaged
    carried = packaged(model)
    if carried is not None and not missing_packages(carried):
        _say(model, str(opened(carried)), carried.licence, json_output)
        return
    from octavo.cli._waiting import Waiting

    remote = look(model, revision)
    if not json_output or look_only:
        _show(remote, json_output)
    if look_only:
        return
    with Waiting() as waiting:
        folder = fetch(
            remote,
            lambda progress: waiting(
                f"{progress.file}: {format_bytes(progress.done)} of "
                f"{format_bytes(progress.nbytes)} in all"
            ),
        )
    _say(model, str(folder), remote.licence, json_output)


def _show(remote: RemoteModel, json_output: bool) -> None:
    if json_output:
        facts = {
            "model": remote.name,
            "revision": remote.revision,
            "licence": remote.licence,
            "bytes": remote.nbytes,
            "files": {file.name: file.nbytes for file in remote.files},
        }
        typer.echo(json_line(facts))
        return
    licence = printable(remote.licence or "not stated: see its page")
    typer.echo(f"{remote.name} at {remote.revision[:12]}")
    typer.echo(f"  licence  {licence}")
    typer.echo(f"  size     {format_bytes(remote.nbytes)} in {len(remote.files)} files")


def _say(model: str, where: str, licence: str | None, json_output: bool) -> None:
    if json_output:
        facts = {"model": model, "path": where, "licence": licence, "status": "ok"}
        typer.echo(json_line(facts))
    else:
        typer.echo(f"{model} is at {where}")
