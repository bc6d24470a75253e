"""How much a vision tower may take at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from octavo.errors import BudgetExceeded, ConfigError
from octavo.hardware.plan_towers import CHUNKED, FIRST_CHUNK, chunked_working, vision_working
from octavo.hardware.plan_working import Working
from octavo.hardware.spec import ModelSpec

#: As good as none.
_ALL: Final = 1 << 62
#: The smallest chunk that is tried.
_LEAST_CHUNK: Final = 64


@dataclass(frozen=True, slots=True)
class TowerBudget:
    """What one pass through a tower may take.

    Attributes:
        patches: of all media of a pass together; a larger medium goes alone. 0 sends each alone.
        chunk: patches that attention and MLP take at once inside a pass, for families that know
            how; None takes all. It holds activations of large pages down at no cost in speed
            unless it is very small.
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
        most = _most(lambda patches: vision_working(spec, patches, itemsize), nbytes)
        return cls(most, chunk)


def budget_for(
    spec: ModelSpec, itemsize: int, free_bytes: int, device: str = "cpu", patches: int = 0
) -> TowerBudget:
    """How to run a model's tower in so many bytes: the largest chunk with which a pass fits, and
    as many patches a pass as fit with it.

    Media that fit together go together; one that does not goes alone.

    Args:
        itemsize: bytes of a number in the tower: 2 or 4.
        free_bytes: for intermediate results of one pass and the features that it hands on.
        patches: of the largest medium; a smaller chunk is taken if it fits with that one only.

    Raises:
        BudgetExceeded: ``patches``, or a single one, do not fit even in the smallest chunks.
    """
    if spec.vision is None or spec.family not in CHUNKED:
        return TowerBudget.within(free_bytes, spec, itemsize)
    chunk = FIRST_CHUNK["cpu" if device == "cpu" else "cuda"]
    most = _most(partial(_chunked, spec, itemsize, chunk), free_bytes)
    while most < max(patches, chunk) and chunk > _LEAST_CHUNK:
        chunk //= 2
        most = _most(partial(_chunked, spec, itemsize, chunk), free_bytes)
    if most < max(patches, 1):
        raise BudgetExceeded(
            f"a vision tower cannot take {max(patches, 1)} patches in {free_bytes} bytes",
            where=spec.name,
            next_step="give the model more memory, or smaller pictures",
        )
    return TowerBudget(most, chunk)


def _chunked(spec: ModelSpec, itemsize: int, chunk: int, patches: int) -> Working:
    return chunked_working(spec, patches, chunk, itemsize)


def _most(working: Callable[[int], Working], nbytes: int) -> int:
    """Patches that fit, 0 for none. What a pass takes grows with them, so halving finds them."""
    if working(1).nbytes > nbytes:
        return 0
    low, high = 1, 2
    while working(high).nbytes <= nbytes:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if working(middle).nbytes <= nbytes else (low, middle)
    return low
