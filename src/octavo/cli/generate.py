"""``octavo generate``: a question with any mix of pictures, sound and film, and its answer."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octavo.cli._errors import json_line
from octavo.cli._models import (
    ANSWERING,
    MEDIA,
    Device,
    Json,
    Loading,
    Memory,
    ModelName,
    OfAll,
    OfLanguage,
    OfVision,
    Tokens,
    Verbose,
    existing,
    opened,
    option,
    read_text,
    words,
)
from octavo.cli._models import LOADING as LOADING_PANEL
from octavo.errors import ConfigError

if TYPE_CHECKING:
    from octavo.models.model import Model
    from octavo.requests import Request
    from octavo.response import ResponseForm

Files = list[Path] | None


def generate(
    *,
    model: ModelName,
    prompt: Annotated[str, typer.Argument(help="The question; - reads standard input.")],
    image: Annotated[Files, option(MEDIA, "A picture; may be repeated.", metavar="FILE")] = None,
    audio: Annotated[Files, option(MEDIA, "A sound; may be repeated.", metavar="FILE")] = None,
    video: Annotated[Files, option(MEDIA, "A film; may be repeated.", metavar="FILE")] = None,
    frames: Annotated[int | None, option(MEDIA, "Of each film.", metavar="N")] = None,
    sampling: Annotated[
        str, option(MEDIA, "uniform, rate or scene.", "--frame-sampling", metavar="HOW")
    ] = "uniform",
    system: Annotated[str | None, option(ANSWERING, "Who the model is.", metavar="TEXT")] = None,
    max_new_tokens: Tokens = 256,
    temperature: Annotated[float, option(ANSWERING, "0 takes the likeliest.", metavar="T")] = 0.0,
    top_p: Annotated[float, option(ANSWERING, "Share of probability.", metavar="P")] = 1.0,
    top_k: Annotated[int, option(ANSWERING, "Likeliest tokens; 0 is all.", metavar="K")] = 0,
    repetition_penalty: Annotated[
        float, option(ANSWERING, "Above 1 repeats less.", metavar="X")
    ] = 1.0,
    seed: Annotated[int | None, option(ANSWERING, "Makes it repeatable.", metavar="N")] = None,
    stop: Annotated[
        list[str] | None, option(ANSWERING, "Ends the answer; may be repeated.", metavar="TEXT")
    ] = None,
    loop_limit: Annotated[
        int, option(ANSWERING, "Ends at so many repetitions; 0 at none.", metavar="N")
    ] = 0,
    schema: Annotated[
        Path | None, option(ANSWERING, "JSON Schema of the answer.", metavar="FILE")
    ] = None,
    regex: Annotated[
        str | None, option(ANSWERING, "What all of the answer must fit.", metavar="TEXT")
    ] = None,
    choice: Annotated[
        list[str] | None, option(ANSWERING, "One of them; repeat it.", metavar="TEXT")
    ] = None,
    memory: Memory = None,
    device: Device = None,
    precision: OfAll = None,
    llm_precision: OfLanguage = None,
    vision_precision: OfVision = None,
    workload: Annotated[
        str | None, option(LOADING_PANEL, "As in octavo plan.", metavar="LIST")
    ] = None,
    kv_precision: Annotated[
        str | None, option(LOADING_PANEL, "exact, int8, int4: of keys and values.", metavar="TYPE")
    ] = None,
    kv_cache_max_length: Annotated[
        int | None, option(LOADING_PANEL, "Tokens of prompt and answer.", metavar="N")
    ] = None,
    json_output: Json = False,
    verbose: Verbose = False,
) -> None:
    """Ask a model about text, pictures, sound and films.

    octavo generate smollm2-135m-instruct "What is the capital of France?"
    """
    from octavo.requests import Part, Request, Sampling, VideoSampling

    film = VideoSampling(strategy=sampling, temporal_resolution=frames)  # type: ignore[arg-type]
    parts = [
        *(Part.image(existing(path)) for path in image or ()),
        *(Part.audio(existing(path)) for path in audio or ()),
        *(Part.video(existing(path), film) for path in video or ()),
        Part.text(words(prompt)),
    ]
    request = Request.of(
        *parts,
        system=system,
        max_new_tokens=max_new_tokens,
        sampling=Sampling(
            temperature, top_p, top_k, repetition_penalty, seed, tuple(stop or ()), loop_limit
        ),
        response=_form(schema, regex, choice),
    )
    loading = Loading(
        memory,
        device,
        precision,
        llm_precision,
        vision_precision,
        workload,
        verbose,
        kv_precision,
        kv_cache_max_length,
    )
    with opened(model, loading) as loaded:
        if json_output:
            typer.echo(json_line(_facts(loaded, request)))
        else:
            for piece in loaded.stream(request):
                typer.echo(piece, nl=False)
            typer.echo()


def _form(schema: Path | None, regex: str | None, choice: list[str] | None) -> ResponseForm | None:
    """The form that the answer must have, by the one option that says it."""
    from octavo.response import ResponseForm

    if sum(one is not None for one in (schema, regex, choice or None)) > 1:
        raise ConfigError(
            "an answer has one form",
            where="--schema, --regex, --choice",
            next_step="give one of them; --choice may be repeated",
        )
    if schema is not None:
        return ResponseForm.json_schema(read_text(existing(schema)))
    if regex is not None:
        return ResponseForm.regex(regex)
    return ResponseForm.choice(choice) if choice else None


def _facts(model: Model, request: Request) -> dict[str, Any]:
    (completion,) = model.generate([request])
    facts = asdict(completion.check())
    facts.pop("failure")
    return {
        "model": model.spec.name,
        "family": model.spec.family,
        "mode": request.mode,
        **facts,
        "plan": model.plan.as_dict() if model.plan is not None else None,
    }
