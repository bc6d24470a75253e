"""``octavo caption``, ``ask-image`` and ``classify``: pictures and films, in one line each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from octavo.cli._errors import json_line, printable
from octavo.cli._models import (
    ANSWERING,
    Device,
    Json,
    Loading,
    Memory,
    ModelName,
    OfAll,
    Tokens,
    Verbose,
    existing,
    opened,
    option,
    words,
)
from octavo.errors import ConfigError

#: Files with these endings are films for ``classify``.
FILMS = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".gif"})


def caption(
    *,
    model: ModelName,
    images: Annotated[list[Path], typer.Argument(help="Pictures.")],
    max_new_tokens: Tokens = 64,
    memory: Memory = None,
    device: Device = None,
    precision: OfAll = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Say in one sentence what is in each picture. One that cannot be read stops no other."""
    from octavo.cli._errors import NOTHING, OK, PARTIAL, error_line
    from octavo.errors import OctavoError
    from octavo.requests import Part

    failed = 0
    loading = Loading(memory, device, precision, verbose=verbose)
    if len(images) == 1:
        existing(images[0])
    with opened(model, loading) as loaded:
        for path in images:
            try:
                text = loaded.caption(Part.image(path), max_new_tokens=max_new_tokens)
            except OctavoError as error:
                failed += 1
                typer.echo(error_line(error), err=True)
                continue
            if json_output:
                typer.echo(json_line({"image": str(path), "text": text}))
            else:
                head = f"{printable(path)}: " if len(images) > 1 else ""
                typer.echo(f"{head}{text.strip()}")
    raise typer.Exit(OK if not failed else NOTHING if failed == len(images) else PARTIAL)


def ask_image(
    *,
    model: ModelName,
    image: Annotated[Path, typer.Argument(help="A picture.")],
    question: Annotated[str, typer.Argument(help="The question; - reads standard input.")],
    max_new_tokens: Tokens = 256,
    memory: Memory = None,
    device: Device = None,
    precision: OfAll = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Answer a question about one picture."""
    from octavo.requests import Part

    part, asked = Part.image(existing(image)), words(question)
    with opened(model, Loading(memory, device, precision, verbose=verbose)) as loaded:
        text = loaded.ask(part, asked, max_new_tokens=max_new_tokens)
    if json_output:
        facts = {"image": str(image), "question": asked, "text": text}
        typer.echo(json_line(facts))
    else:
        typer.echo(text.strip())


def classify(
    *,
    model: ModelName,
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A picture or a film.")],
    label: Annotated[list[str], option(ANSWERING, "What it may show; repeat it.", "--label", "-l")],
    template: Annotated[
        str | None, option(ANSWERING, "Words around a label: 'a photo of a {}'.", metavar="TEXT")
    ] = None,
    memory: Memory = None,
    device: Device = None,
    precision: OfAll = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Say which of some labels fits a picture or a film, without training (CLIP, X-CLIP)."""
    from octavo.requests import Part

    if template is not None and "{}" not in template:
        raise ConfigError("the template has no {} for the label", where=template)
    existing(source)
    wording = {"template": template} if template is not None else {}
    with opened(model, Loading(memory, device, precision, verbose=verbose)) as loaded:
        if source.suffix.lower() in FILMS:
            shares = loaded.classify_video(Part.video(source), label, **wording)
        else:
            shares = loaded.classify(Part.image(source), label, **wording)
    if json_output:
        typer.echo(json_line({"source": str(source), "labels": shares}))
        return
    wide = max(map(len, shares))
    for name, share in shares.items():
        typer.echo(f"{printable(name):{wide}}  {100 * share:5.1f} %")
