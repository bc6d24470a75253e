"""The table of families and platforms, read from ``platforms.toml`` beside this file.

Nothing is decided here: :mod:`octavo.hardware.platforms` recommends and refuses.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any, Final

from octavo.errors import ConfigError
from octavo.hardware.spec import Precision

__all__ = ["COMPONENTS", "Cell", "FamilyRow", "Level", "Platform", "Small", "cell", "family_row"]


class Platform(StrEnum):
    """What drives the arithmetic."""

    CUDA = "cuda"
    ROCM = "rocm"
    MPS = "mps"
    XPU = "xpu"
    OPENVINO = "openvino"
    QNN = "qnn"
    WEBNN = "webnn"
    WEBGPU = "webgpu"
    CPU = "cpu"


class Level(StrEnum):
    """How well a family runs: ``high`` at the platform's speed, ``medium`` all of it but slower
    or within bounds, ``limited`` with a caveat that matters, ``none`` not at all."""

    HIGH = "high"
    MEDIUM = "medium"
    LIMITED = "limited"
    NONE = "none"


#: Components that a family's inputs bring; what projects features goes with its tower.
COMPONENTS: Final[Mapping[str, str]] = {
    "text": "language", "image": "vision", "video": "vision", "audio": "audio",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class FamilyRow:
    """What is the same for a family on every platform.

    Attributes:
        kind: ``decoder``, ``small-decoder``, ``encoder`` or ``speech``.
        inputs: of ``text``, ``image``, ``video``, ``audio``.
        never: precisions that it cannot be computed in, and why.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    never: Mapping[Precision, str]

    @property
    def components(self) -> tuple[str, ...]:
        """Whose precision can be chosen."""
        return tuple(dict.fromkeys(COMPONENTS[name] for name in self.inputs))


@dataclass(frozen=True, slots=True)
class Cell:
    """A family on a platform.

    Attributes:
        level: how well it runs.
        reason: why not better; None where there is nothing to say.
        tried: whether Octavo's own tests run on the platform.
        precisions: recommended, by component; empty at level ``none``.
        batch: requests at a time.
        kv_tokens: of context for each request; None for models without a KV cache.
        attention, capture, power: see ``Settings``.
        never: precisions that the platform has no arithmetic for, and why.
    """

    family: str
    platform: Platform
    level: Level
    reason: str | None
    tried: bool
    precisions: Mapping[str, Precision]
    batch: int
    kv_tokens: int | None
    attention: str
    capture: str
    power: str
    never: Mapping[Precision, str]


@dataclass(frozen=True, slots=True)
class Small:
    """What changes below ``under_bytes`` of memory."""

    under_bytes: int
    language: Precision
    batch: int
    kv_tokens: int
    long_edge_px: int


def family_names() -> tuple[str, ...]:
    return tuple(_table()["families"])


def family_row(name: str) -> FamilyRow:
    """Raises ConfigError for a family that the table does not have."""
    rows = _table()["families"]
    check_known(name, rows, "family")
    row = rows[name]
    return FamilyRow(name, row["kind"], tuple(row["inputs"]), _never(row))


def cell(family: str, platform: Platform | str) -> Cell:
    """A family on a platform.

    Raises:
        ConfigError: no such family or platform; names the nearest.
    """
    row = family_row(family)
    check_known(str(platform), list(Platform), "platform")
    column = _table()["platforms"][str(platform)]
    found: dict[str, Any] = {
        **column,
        **column.get("kinds", {}).get(row.kind, {}),
        **column.get("families", {}).get(family, {}),
    }
    level = Level(found["level"])
    runs = level is not Level.NONE
    return Cell(
        family=family,
        platform=Platform(platform),
        level=level,
        # A reason that a platform gives for its level is not one for a higher level.
        reason=None if level is Level.HIGH else found.get("reason"),
        tried=found["tried"],
        precisions=_precisions(row, found) if runs else {},
        batch=found.get("batch", 1),
        kv_tokens=found.get("kv_tokens") if row.kind != "encoder" else None,
        attention=found.get("attention", "eager"),
        capture=found.get("capture", "none"),
        power=found.get("power", "balanced"),
        never=_never(column) | _never(found),
    )


def small() -> Small:
    found = _table()["small"]
    return Small(
        int(found["under_gb"] * 10**9),
        Precision(found["language"]),
        found["batch"],
        found["kv_tokens"],
        found["long_edge_px"],
    )


def check_known(name: str, known: Iterable[str], noun: str) -> None:
    """Raises ConfigError, with the nearest known name or all of them."""
    names = [str(one) for one in known]
    if name in names:
        return
    near = difflib.get_close_matches(name, names, 1, 0.5)
    raise ConfigError(
        f"no {noun} {name!r}",
        next_step=f"did you mean {near[0]}?" if near else f"use {', '.join(names)}",
    )


def _precisions(row: FamilyRow, found: Mapping[str, Any]) -> dict[str, Precision]:
    return {part: Precision(found.get(part, found["precision"])) for part in row.components}


def _never(found: Mapping[str, Any]) -> dict[Precision, str]:
    return {Precision(name): why for name, why in found.get("never", {}).items()}


@cache
def _table() -> dict[str, Any]:
    text = resources.files("octavo.hardware").joinpath("platforms.toml").read_text("utf-8")
    return tomllib.loads(text)
