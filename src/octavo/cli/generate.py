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
    words,
)
from octavo.cli._models import LOADING as LOADING_PANEL

if TYPE_CHECKING:
    from octavo.models.model import Model
    from octavo.requests import Request

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
    memory: Memory = None,
    device: Device = None,
    precision: OfAll = None,
    llm_precision: OfLanguage = None,
    vision_precision: OfVision = None,
    workload: Annotated[
        str | None, option(LOADING_PANEL, "As in octavo plan.", metavar="LIST")
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
        sampling=Sampling(temperature, top_p, top_k, repetition_penalty, seed, tuple(stop or ())),
    )
    loading = Loading(memory, device, precision, llm_precision, vision_precision, workload, verbose)
    with opened(model, loading) as loaded:
        if json_output:
            typer.echo(json_line(_facts(loaded, request)))
        else:
            for piece in loaded.stream(request):
                typer.echo(piece, nl=False)
            typer.echo()


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
