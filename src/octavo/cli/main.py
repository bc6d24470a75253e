"""The program ``octavo``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from octavo._version import __version__
from octavo.cli import (
    doctor,
    embed,
    generate,
    memory,
    parse,
    plan,
    platforms,
    pull,
    see,
    transcribe,
)
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
    """Documents into reports, and models in the memory you have."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(OK)


#: A line each in the list of commands; what they say of themselves is longer.
for _name, _words, _command in (
    ("parse", "Documents into reports: JSON, Markdown, HTML.", parse.parse),
    ("generate", "Ask about text, pictures, sound and films.", generate.generate),
    ("caption", "Say in one sentence what is in a picture.", see.caption),
    ("ask-image", "Answer a question about one picture.", see.ask_image),
    ("classify", "Which of some labels fits a picture or film.", see.classify),
    ("embed", "Search vectors of texts and pictures.", embed.embed),
    ("transcribe", "Write down what is said.", transcribe.transcribe),
    ("plan", "Whether a model fits, line by line.", plan.plan),
    ("pull", "Fetch a model from a hub, checked.", pull.pull),
    ("platforms", "Which family runs how well where.", platforms.platforms),
    ("doctor", "What is here, what is missing, what mends it.", doctor.doctor),
):
    app.command(name=_name, short_help=_words)(_command)
app.add_typer(memory.app, name="memory")


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and ends the process with its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with Reported(arguments):
        code = app(arguments, prog_name="octavo", standalone_mode=False)
    sys.exit(code)
