"""The program ``octavo``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from octavo._version import __version__
from octavo.cli import doctor, embed, generate, memory, parse, platforms, pull, see, transcribe
from octavo.cli._errors import OK, Reported


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"octavo {__version__}")
        raise typer.Exit


# A setting may be written as in Python or as on a command line: --pdf_dpi, --pdf-dpi.
app = typer.Typer(
    name="octavo",
    rich_markup_mode="rich",
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda token: token.replace("_", "-"),
    },
)


@app.callback(invoke_without_command=True)
def octavo(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Documents into structured reports: [bold]octavo parse[/bold] paper.pdf -o out"""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(OK)


app.command(name="parse")(parse.parse)
app.command(name="doctor")(doctor.doctor)
app.command(name="platforms")(platforms.platforms)
app.command(name="pull")(pull.pull)
app.command(name="generate")(generate.generate)
app.command(name="caption")(see.caption)
app.command(name="ask-image")(see.ask_image)
app.command(name="classify")(see.classify)
app.command(name="embed")(embed.embed)
app.command(name="transcribe")(transcribe.transcribe)
app.add_typer(memory.app, name="memory")


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and ends the process with its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with Reported(arguments):
        code = app(arguments, prog_name="octavo", standalone_mode=False)
    sys.exit(code)
