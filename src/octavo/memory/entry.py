"""What the store knows of one value, and where its copies lie."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import torch

from octavo.errors import ConfigError
from octavo.memory.disk import Extent
from octavo.memory.ledger import Kind, Place, Reservation
from octavo.memory.payload import Payload
from octavo.memory.policies.base import Key


@dataclass(frozen=True, slots=True)
class Terms:
    """How a value wants to be kept.

    Attributes:
        kind, owner: under which its bytes stand in the ledger.
        max_error: how far an element may be off when it comes back; 0.0 is exact.
        cost: seconds to make it again; None: as long as it takes to read its bytes.
        droppable: whether it may be dropped when the lowest tier is full: it can be made again.

    Raises:
        ConfigError: ``max_error`` is negative or NaN.
    """

    kind: Kind = "features"
    owner: str = "store"
    max_error: float = 0.0
    cost: float | None = None
    droppable: bool = False

    def __post_init__(self) -> None:
        if not self.max_error >= 0:
            raise ConfigError(
                f"a largest error of {self.max_error}",
                where="max_error",
                next_step="give 0.0 for exact values, or a positive number",
            )


@dataclass(slots=True, eq=False)
class Entry:
    """One value; never a second one: a new value under the same key is a new entry.

    ``lock`` is held by whoever moves the bytes of this value. The copies below it change only
    under ``lock`` *and* the shelves' lock, and may be read under either; so may ``pins``.
    ``dead`` changes under the shelves' lock alone. At least one of ``tensor``, ``payload`` and
    ``extent`` is there until ``dead``.
    """

    key: Key
    dtype: torch.dtype
    shape: tuple[int, ...]
    nbytes: int
    terms: Terms
    lock: threading.Lock = field(default_factory=threading.Lock)
    tensor: torch.Tensor | None = None
    tensor_held: Reservation | None = None
    #: torch's count of in-place changes when ``tensor`` came; None where torch does not count.
    version: int | None = None
    payload: Payload | None = None
    payload_held: Reservation | None = None
    extent: Extent | None = None
    #: The payload without its data, for as long as ``extent`` has the data.
    header: dict[str, object] | None = None
    #: Encoded with loss: the payload is the value now, and is never made anew from ``tensor``.
    lossy: bool = False
    pins: int = 0
    #: Fetched ahead and not used since.
    prefetched: bool = False
    dead: bool = False

    @property
    def cost(self) -> float:
        """Seconds: of making it again, or of reading it at 1 GB/s."""
        return self.nbytes / 1e9 if self.terms.cost is None else self.terms.cost

    def places(self) -> tuple[Place, ...]:
        """Where its copies lie, highest first."""
        found: list[Place] = []
        if self.tensor is not None:
            found.append("device")
        if self.payload is not None:
            found.append("host")
        if self.extent is not None:
            found.append("disk")
        return tuple(found)


def version_of(tensor: torch.Tensor) -> int | None:
    """torch's count of in-place changes; inference tensors have none."""
    return None if tensor.is_inference() else tensor._version
