"""``octavo embed``: texts and pictures as search vectors, or ranked by a question."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octavo.cli._errors import json_line, printable
from octavo.cli._models import (
    MEDIA,
    OUTPUT,
    Device,
    Json,
    Loading,
    Memory,
    ModelName,
    OfAll,
    Verbose,
    existing,
    opened,
    option,
)
from octavo.errors import ConfigError, OutputError

if TYPE_CHECKING:
    from octavo.requests import Part


def embed(
    *,
    model: ModelName,
    texts: Annotated[list[str] | None, typer.Argument(help="Texts.")] = None,
    image: Annotated[
        list[Path] | None, option(MEDIA, "A picture; may be repeated.", metavar="FILE")
    ] = None,
    lines: Annotated[
        Path | None, option(MEDIA, "A file with one text a line.", metavar="FILE")
    ] = None,
    query: Annotated[
        str | None, option(OUTPUT, "Rank everything by likeness to this.", metavar="TEXT")
    ] = None,
    out: Annotated[
        Path | None, option(OUTPUT, "Write the vectors as .npy.", "--out", "-o", metavar="FILE")
    ] = None,
    memory: Memory = None,
    device: Device = None,
    precision: OfAll = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Turn texts and pictures into search vectors, or rank them by a question.

    octavo embed all-minilm-l6-v2 "a cat" "an invoice" --query "pets"
    """
    from octavo.requests import Part

    parts: list[Part] = [Part.text(text) for text in texts or ()]
    parts += [Part.text(text) for text in _lines(lines)]
    parts += [Part.image(existing(path)) for path in image or ()]
    if not parts:
        raise ConfigError("nothing to embed", next_step="give texts, --lines or --image")
    if query is None and out is None and not json_output:
        raise ConfigError(
            "where should the vectors go?", next_step="give --query, --out FILE or --json"
        )
    asked = [] if query is None else [Part.text(query)]
    with opened(model, Loading(memory, device, precision, verbose=verbose)) as loaded:
        vectors_nd = loaded.embed([*parts, *asked])
    if out is not None:
        _save(out, vectors_nd[: len(parts)])
    likeness = None if query is None else (vectors_nd[:-1] @ vectors_nd[-1]).tolist()
    _show(parts, vectors_nd, likeness, json_output)


def _show(
    parts: list[Part], vectors_nd: Any, likeness: list[float] | None, json_output: bool
) -> None:
    order = list(range(len(parts)))
    if likeness is not None:
        order.sort(key=lambda row: -likeness[row])
    if json_output:
        rows = [
            {"input": parts[row].where, "likeness": likeness[row]}
            if likeness is not None
            else {"input": parts[row].where, "vector": vectors_nd[row].tolist()}
            for row in order
        ]
        typer.echo(json_line(rows))
    elif likeness is not None:
        for row in order:
            typer.echo(f"{likeness[row]:6.3f}  {printable(parts[row].where)}")


def _lines(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        text = existing(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("cannot be read as UTF-8 text", where=str(path)) from error
    return [line for line in text.splitlines() if line.strip()]


def _save(path: Path, vectors_nd: Any) -> None:
    import numpy as np

    try:
        with path.open("wb") as file:
            np.save(file, vectors_nd)
    except OSError as error:
        raise OutputError(
            f"cannot be written: {error.strerror or error}",
            where=str(path),
            next_step="give another --out",
        ) from error
