"""``octavo plan``: what a model takes on this machine, line by line, before anything is loaded."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from octavo.hardware.plan import Wanted
    from octavo.hardware.spec import ModelSpec
    from octavo.models.checkpoint import Checkpoint


def plan(
    model: Annotated[str, typer.Argument(help="A model's folder or name.")],
    memory: Annotated[
        str | None, typer.Option(help="Budget, such as 4GB; by default what is free here.")
    ] = None,
    workload: Annotated[
        str,
        typer.Option(help="Such as pages=20,dpi=200,prompt=300,new=4000,batch=1."),
    ] = "",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    precision: Annotated[
        str | None, typer.Option(help="Of all weights: bf16, fp32, fp16, int8, int4 or auto.")
    ] = None,
    llm_precision: Annotated[str | None, typer.Option(help="Of the decoder alone.")] = None,
    vision_precision: Annotated[str | None, typer.Option(help="Of the vision tower alone.")] = None,
    audio_precision: Annotated[str | None, typer.Option(help="Of the audio tower alone.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Say what a model takes, line by line, or what would make it fit; loads no weights."""
    from octavo.hardware.plan import Workload, spare
    from octavo.hardware.plan import plan as make
    from octavo.models.registry import family_of

    asked, kind = Workload.parse(workload), _device(device)
    wishes = {"language": llm_precision, "vision": vision_precision, "audio": audio_precision}
    checkpoint = _checkpoint(model)
    spec = family_of(checkpoint).describe(checkpoint)
    budget = _budget(memory, kind)
    found = make(
        spec,
        asked,
        budget=budget,
        reserve=spare(budget),
        device=kind,
        precisions=_precisions(spec, precision, wishes),
    )
    typer.echo(json.dumps(found.as_dict(), ensure_ascii=False) if json_output else found.explain())


def _checkpoint(model: str) -> Checkpoint:
    from octavo.models.hub import resolve

    return resolve(model, headers_only=True)


def _precisions(
    spec: ModelSpec, general: str | None, wishes: dict[str, str | None]
) -> dict[str, Wanted]:
    wanted: dict[str, Wanted] = {}
    for part in spec.components:
        # A projector turns the tower's features and goes with it.
        told = "vision" if part.name == "projector" else part.name
        wanted[part.name] = _precision(wishes.get(told) or general)
    return wanted


def _precision(text: str | None) -> Wanted:
    from octavo.errors import ConfigError
    from octavo.hardware.spec import Precision

    if text is None:
        return None
    if text == "auto":
        return "auto"
    try:
        return Precision(text)
    except ValueError:
        raise ConfigError(
            f"no precision {text!r}", next_step=f"use auto, {', '.join(Precision)}"
        ) from None


def _device(name: str) -> str:
    from octavo.errors import ConfigError
    from octavo.hardware.accelerators import DeviceKind

    kinds = [kind.value for kind in DeviceKind]
    if name not in kinds:
        raise ConfigError(f"no device {name!r}", next_step=f"use {', '.join(kinds)}")
    return name


def _budget(memory: str | None, device: str) -> int:
    from octavo.errors import ConfigError
    from octavo.hardware.probe import probe
    from octavo.memory.sizes import parse_bytes

    if memory is not None:
        return parse_bytes(memory)
    if device != "cpu":
        raise ConfigError(
            f"a plan for {device} needs its memory", next_step="give --memory, such as 8GB"
        )
    return probe().memory.available
