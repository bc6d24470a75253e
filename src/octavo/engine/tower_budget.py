"""How much a vision tower may take at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from octavo.errors import BudgetExceeded, ConfigError
from octavo.hardware.plan_towers import vision_working
from octavo.hardware.spec import ModelSpec

#: As good as none.
_ALL: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class TowerBudget:
    """What one pass through a tower may take.

    Attributes:
        patches: of all media of a pass together; a larger medium goes alone. 0 sends each alone.
        chunk: patches that attention and MLP take at once inside a pass, for families that know
            how; None takes all. It holds activations of large pages down, at some cost in speed.
    """

    patches: int = _ALL
    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.patches < 0 or (self.chunk is not None and self.chunk < 1):
            raise ConfigError(
                f"a tower that takes {self.patches} patches, {self.chunk} at once",
                next_step="give 0 patches or more, and a chunk of 1 or more",
            )

    @classmethod
    def within(
        cls, nbytes: int, spec: ModelSpec, itemsize: int, chunk: int | None = None
    ) -> TowerBudget:
        """As many patches as keep the planned activations of a pass under ``nbytes``.

        Args:
            itemsize: bytes of a number in the tower: 2 or 4.

        Raises:
            BudgetExceeded: not even a single patch fits.
        """
        if spec.vision is None:
            return cls(chunk=chunk)
        if vision_working(spec, 1, itemsize).nbytes > nbytes:
            raise BudgetExceeded(
                f"a vision tower cannot work in {nbytes} bytes",
                where=spec.name,
                next_step="give the model more memory",
            )
        # The plan grows with patches, so the most that fit are found by halving.
        low, high = 1, 2
        while vision_working(spec, high, itemsize).nbytes <= nbytes:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            fits = vision_working(spec, middle, itemsize).nbytes <= nbytes
            low, high = (middle, high) if fits else (low, middle)
        return replace(cls(chunk=chunk), patches=low)
