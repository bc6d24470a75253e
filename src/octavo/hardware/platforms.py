"""Settings for a family on a platform: what is recommended, and what cannot be."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from octavo.errors import ConfigError
from octavo.hardware.accelerators import Accelerator, DeviceKind
from octavo.hardware.kernels import AttentionKernel
from octavo.hardware.platform_rules import Case, check
from octavo.hardware.platform_table import (
    Cell,
    FamilyRow,
    Level,
    Platform,
    cell,
    check_known,
    family_names,
    family_row,
    small,
)
from octavo.hardware.probe import Hardware
from octavo.hardware.spec import Precision

__all__ = [
    "Cell",
    "Level",
    "Platform",
    "Settings",
    "cell",
    "detected",
    "family_names",
    "recommended",
]

#: Names that an override may have, and the component whose precision it sets.
_PRECISIONS: Final[Mapping[str, str]] = {
    "llm_precision": "language", "vision_precision": "vision", "audio_precision": "audio",
}  # fmt: skip
OVERRIDES: Final = (
    "precision", *_PRECISIONS, "batch", "kv_tokens", "attention", "capture", "power", "threads",
    "lazy", "long_edge_px",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """Recommended settings of a family on a platform, overrides included.

    Attributes:
        precisions: by component (``language``, ``vision``, ``audio``); a projector goes with its
            tower.
        batch: requests at a time.
        kv_tokens: context of each request; None for models without a KV cache.
        attention: ``sdpa``, ``eager``, ``flash_attention_2`` or ``flex_attention``.
        capture: of decoding steps: ``none``, ``compile`` (torch.compile) or ``graphs`` (CUDA
            graphs). What a runner does not have yet, it runs uncaptured.
        power: ``performance`` uses every core, ``balanced`` the physical ones, ``low`` half of
            these.
        threads: that follow from ``power``; None where the cores are not known, or on a device.
        lazy: whether towers are loaded one at a time, when a request needs them.
        long_edge_px: pictures are drawn no larger than this; None: as they are.
        notes: what to know about the choice.
    """

    family: str
    platform: Platform
    level: Level
    precisions: Mapping[str, Precision]
    batch: int
    kv_tokens: int | None
    attention: str
    capture: str
    power: str
    threads: int | None = None
    lazy: bool = False
    long_edge_px: int | None = None
    notes: tuple[str, ...] = field(default=())


def recommended(
    family: str,
    platform: Platform | str,
    *,
    hardware: Hardware | None = None,
    device: Accelerator | None = None,
    kernels: Sequence[AttentionKernel] | None = None,
    inputs: Collection[str] = (),
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """The table's settings, fitted to the machine, with what the caller wants otherwise.

    Args:
        hardware: of :func:`octavo.hardware.probe`; without it the processor is unknown.
        device: the accelerator; without it a current one is taken.
        kernels: of :func:`octavo.hardware.kernels.attention_kernels`.
        inputs: that requests will bring: ``text``, ``image``, ``video``, ``audio``.
        overrides: by name, those in :data:`OVERRIDES`.

    Raises:
        ConfigError: an unknown name (says the nearest), or a combination that is impossible
            (says why).
    """
    row, found = family_row(family), cell(family, platform)
    if found.level is Level.NONE:
        raise ConfigError(
            f"{family} does not run on {found.platform}: {found.reason}",
            next_step="use cpu, or another of octavo platforms",
        )
    _check_inputs(row, inputs)
    case = Case(row, found, hardware, device, kernels)
    settings = _fitted(case)
    given = dict(overrides or {})
    for name in given:
        check_known(name, OVERRIDES, "setting")
    settings = _overridden(settings, row, given)
    settings = replace(settings, threads=given.get("threads", _threads(settings.power, case)))
    return replace(settings, notes=(*settings.notes, *check(settings, case)))


def detected(devices: Iterable[Accelerator]) -> set[Platform]:
    """Platforms that are on this machine; devices that no library can use do not count."""
    known = {platform.value for platform in Platform}
    found = {one.kind.value for one in devices if one.ready is not False} & known
    return {Platform.CPU, *map(Platform, found)}


def _check_inputs(row: FamilyRow, inputs: Collection[str]) -> None:
    for name in inputs:
        if name not in row.inputs:
            able = [one for one in family_names() if name in family_row(one).inputs]
            raise ConfigError(
                f"{row.name} takes no {name}",
                where=f"inputs={name}",
                next_step=f"families that do: {', '.join(able)}" if able else f"use {row.inputs}",
            )


def _fitted(case: Case) -> Settings:
    """The cell's settings for this processor or device."""
    found, notes = case.cell, list(case.device.limits if case.device else ())
    precisions = dict(found.precisions)
    for part, precision in precisions.items():
        able = _nearest_able(precision, case)
        if able is not precision:
            notes.append(f"{part} in {able}: {precision} is not for this machine")
            precisions[part] = able
    settings = Settings(
        found.family,
        found.platform,
        found.level,
        precisions,
        found.batch,
        found.kv_tokens,
        found.attention,
        found.capture,
        found.power,
        notes=tuple(notes),
    )
    if settings.capture == "graphs" and not found.tried:
        settings = replace(
            settings, notes=(*settings.notes, "graphs of decoding steps: not measured by Octavo")
        )
    memory = case.memory_bytes
    if memory is not None and memory < small().under_bytes:
        settings = _smaller(settings, case.family, memory)
    return settings


def _nearest_able(wanted: Precision, case: Case) -> Precision:
    """``wanted``, or the first float that the machine computes and the family bears."""
    for precision in (wanted, Precision.FP16, Precision.FP32):
        if precision is Precision.FP16 and case.cell.platform is Platform.CPU:
            continue  # slower there than float32
        if case.unable(precision) is None and not case.emulated(precision):
            return precision
    return Precision.FP32


def _smaller(settings: Settings, family: FamilyRow, memory: int) -> Settings:
    limits = small()
    precisions = dict(settings.precisions)
    decodes = family.kind == "decoder"
    if decodes and limits.language not in family.never:
        precisions["language"] = limits.language
    return replace(
        settings,
        precisions=precisions,
        batch=min(settings.batch, limits.batch) if decodes else settings.batch,
        kv_tokens=min(settings.kv_tokens, limits.kv_tokens) if settings.kv_tokens else None,
        lazy=decodes and len(precisions) > 1,
        long_edge_px=limits.long_edge_px if "vision" in precisions else None,
        notes=(*settings.notes, f"fitted to {memory / 1e9:.1f} GB of memory"),
    )


def _overridden(settings: Settings, row: FamilyRow, given: Mapping[str, Any]) -> Settings:
    precisions = dict(settings.precisions)
    if given.get("precision") is not None:
        precisions = dict.fromkeys(precisions, _precision(given["precision"], "precision"))
    for name, part in _PRECISIONS.items():
        if given.get(name) is None:
            continue
        if part not in precisions:
            raise ConfigError(
                f"{row.name} has no {part} component",
                where=name,
                next_step=f"it has {', '.join(precisions)}",
            )
        precisions[part] = _precision(given[name], name)
    rest = {
        name: value
        for name, value in given.items()
        if name not in ("precision", "threads", *_PRECISIONS)
    }
    return replace(settings, precisions=precisions, **rest)


def _precision(value: Any, name: str) -> Precision:
    known = [precision.value for precision in Precision]
    try:
        check_known(str(value), known, "precision")
    except ConfigError as error:
        raise ConfigError(error.what, where=name, next_step=error.next_step) from None
    return Precision(value)


def _threads(power: str, case: Case) -> int | None:
    """Threads of the processor that ``power`` grants."""
    hardware = case.hardware
    on_device = case.device is not None and case.device.kind is not DeviceKind.CPU
    if hardware is None or hardware.cpu.usable is None or on_device:
        return None
    usable = hardware.cpu.usable
    physical = min(usable, hardware.cpu.physical or usable)
    share = {"performance": usable, "balanced": physical, "low": max(1, physical // 2)}
    return share.get(power)
