"""``octavo transcribe``: speech to text, with times."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octavo.cli._errors import json_line
from octavo.cli._models import (
    LOADING,
    OUTPUT,
    Json,
    Loading,
    Verbose,
    existing,
    opened,
    option,
)
from octavo.errors import ConfigError

if TYPE_CHECKING:
    from octavo.requests import Transcript


def transcribe(
    *,
    source: Annotated[Path, typer.Argument(metavar="FILE", help="Sound, or a film with sound.")],
    model: Annotated[str, option(LOADING, "A Whisper model.", metavar="NAME")] = "whisper-base",
    form: Annotated[
        str, option(OUTPUT, "text, times or srt.", "--format", metavar="FORM")
    ] = "text",
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write down what is said in a recording or film."""
    from octavo.requests import Part

    if form not in ("text", "times", "srt"):
        raise ConfigError(f"no format {form!r}", next_step="use text, times or srt")
    part = Part.audio(existing(source))
    with opened(model, Loading(verbose=verbose)) as loaded:
        heard = loaded.transcribe(part)
    if json_output:
        typer.echo(json_line(asdict(heard)))
    else:
        typer.echo(_written(heard, form))


def _written(heard: Transcript, form: str) -> str:
    if form == "text":
        return heard.text
    if form == "times":
        return "\n".join(
            f"{_clock(part.start)[:-4]}  {part.text.strip()}" for part in heard.segments
        )
    return "\n".join(
        f"{number}\n{_clock(part.start)} --> {_clock(part.end)}\n{part.text.strip()}\n"
        for number, part in enumerate(heard.segments, 1)
    )


def _clock(seconds: float) -> str:
    """``00:01:02,500``, as SubRip writes it."""
    whole = round(seconds * 1000)
    hours, rest = divmod(whole, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02},{rest % 1000:03}"
