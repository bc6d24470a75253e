"""How much a vision tower may take at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from octavo.errors import BudgetExceeded, ConfigError
from octavo.hardware.plan_towers import vision_working
from octavo.hardware.plan_working import Working, highest
from octavo.hardware.spec import ModelSpec

#: As good as none.
_ALL: Final = 1 << 62
#: Families whose towers can take a pass in chunks.
CHUNKED: Final = frozenset({"qwen3-vl", "qwen2.5-vl", "dots.ocr"})
#: Chunks by device, largest first. On a CPU more than the first is no faster (measured), only
#: higher; a GPU wants more rows for each kernel.
_CHUNKS: Final = {"cpu": (512, 256, 128, 64)}
_CHUNKS_ELSEWHERE: Final = (4096, 2048, 1024, 512, 256, 128, 64)
_FLOAT32: Final = 4
#: Patches that make one token of the decoder.
_CELL: Final = 4


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
    for chunk in _CHUNKS.get(device, _CHUNKS_ELSEWHERE):
        most = _most(partial(_chunked, spec, itemsize, chunk), free_bytes)
        if most >= max(patches, chunk):
            return TowerBudget(most, chunk)
    if most < max(patches, 1):
        raise BudgetExceeded(
            f"a vision tower cannot take {max(patches, 1)} patches in {free_bytes} bytes",
            where=spec.name,
            next_step="give the model more memory, or smaller pictures",
        )
    return TowerBudget(most, chunk)


def chunked_working(spec: ModelSpec, patches: int, chunk: int, itemsize: int) -> Working:
    """Intermediate results while ``patches`` go through a tower in chunks, features included;
    pixels as they were prepared are not, nor what libraries take once they compute.

    Hidden states, queries, keys and values of one layer and what turns them stand for all
    patches; the rest for a chunk.
    """
    shape = spec.vision
    assert shape is not None
    wide = patches * shape.hidden * itemsize
    turns = 2 * patches * (shape.hidden // shape.heads) * _FLOAT32
    features = (1 + shape.deepstack) * (patches // _CELL) * shape.out_hidden * itemsize
    rows = min(chunk, patches)
    standing = 4 * wide + turns + features
    # The kernels order keys and values of all patches anew for each chunk of queries.
    ordered = 2 * wide
    ffn = (3 if shape.gated else 2) * shape.ffn * itemsize
    found = highest(
        Working("MLP", standing + rows * (2 * shape.hidden * itemsize + ffn)),
        Working("attention", standing + ordered + 2 * rows * shape.hidden * itemsize),
        Working("rotary positions", standing + rows * shape.hidden * (4 * itemsize + 6 * _FLOAT32)),
        # Features of all taps are put together in the end.
        Working("features", wide + turns + 2 * features + rows * 6 * shape.hidden * itemsize),
    )
    return Working(f"{found.name}, {patches} patches in chunks of {rows}", found.nbytes)


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
