"""Named settings of the parts, nothing more: three levels, and profiles of small machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LevelName = Literal["minimal", "balanced", "aggressive"]


@dataclass(frozen=True, slots=True)
class Level:
    """How much machinery works for the values.

    Attributes:
        name: of the level.
        policy: of the device and host tiers, by its name in ``policies.ONLINE``.
        compress: whether values are encoded on their way down where that pays.
        min_ratio: raw bytes by encoded bytes from which it pays.
        movers: threads per tier that encode and write, and as many that fetch ahead.
        learn: whether a predictor learns the order of uses and fetches ahead.
        lookahead: keys fetched ahead, of a learned or a given order.
        watch_pressure: whether free memory of the machine is watched, and room made in time.
    """

    name: LevelName
    policy: str
    compress: bool
    min_ratio: float
    movers: int
    learn: bool
    lookahead: int
    watch_pressure: bool


LEVELS: dict[str, Level] = {
    level.name: level
    for level in (
        Level("minimal", "lru", False, 1.0, 1, False, 1, False),
        Level("balanced", "adaptive", True, 1.5, 2, False, 2, True),
        Level("aggressive", "adaptive", True, 1.15, 4, True, 4, True),
    )
}


@dataclass(frozen=True, slots=True)
class Profile:
    """What a kind of machine cannot do, and budgets that suit it.

    Attributes:
        name: of the profile.
        device, host: bytes.
        level: the level to work at.
        max_tensor: bytes over which a tensor is kept in parts.
    """

    name: str
    device: int
    host: int
    level: LevelName
    max_tensor: int


#: ``laptop``: 8 GB, four cores, and a Pascal card (compute capability 6.1) of 2 GB or more.
PROFILES: dict[str, Profile] = {
    "laptop": Profile(
        name="laptop",
        device=1_500_000_000,
        host=2_500_000_000,
        level="balanced",
        max_tensor=512 * 1024 * 1024,
    )
}
