"""What towers made of pictures and films, kept by content over device, host and disk.

A key names everything that features follow from: the prepared pixels, their shape and type, the
grid, and the model's mark (family, weights, processor settings, precision). It holds no path and
no name, so the same picture is found under any name, and another picture never under an old one.
Each picture has a value of its own: requests that share one of several pictures share it.

Shape letters: l taps (what goes in place of the prompt's tokens, then deepstack layers), t
tokens, d width of the decoder.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import torch

from octavo.engine.features_mark import ModelMark, digest_of
from octavo.errors import BudgetExceeded, CodecError, TierError, TierFull

if TYPE_CHECKING:
    from octavo.engine.tower import Medium
    from octavo.memory.manager import MemoryManager

#: First item of the keys in the store, and the kind of their bytes in the ledger.
KIND: Final = "features"


@dataclass(frozen=True, slots=True)
class FeatureKey:
    """The name of one medium's features: 32 bytes.

    Schedulers take ``digest`` as the key of a medium, so that blocks of the KV cache follow from
    it too.
    """

    digest: bytes

    @classmethod
    def of(cls, medium: Medium, mark: ModelMark) -> FeatureKey:
        """SHA-256 over the medium's prepared tensor and all that it goes through.

        Args:
            medium: with pixels on the CPU, as the processor made them.
        """
        pixels = medium.pixels.detach().contiguous()
        facts = (
            mark.family, mark.revision.hex(), mark.settings.hex(), mark.precision.hex(),
            medium.kind, medium.grid, str(pixels.dtype), tuple(pixels.shape),
        )  # fmt: skip
        return cls(digest_of(repr(facts).encode(), _bytes_of(pixels)))

    @property
    def stored(self) -> tuple[str, bytes]:
        """The key in a store."""
        return (KIND, self.digest)


@dataclass(frozen=True, slots=True)
class FeatureStats:
    """What a cache did.

    Attributes:
        hits, misses: of what was asked for.
        hit_bytes, put_bytes: of features that were found, and that were put.
        refused: not kept, for no tier had room.
        crowded: there, but the device had no room to bring it up; counted as a miss too.
        lost: there, but damaged or gone from the disk; counted as a miss too. What a fetch ahead
            found lost is a miss alone.
    """

    hits: int = 0
    misses: int = 0
    hit_bytes: int = 0
    put_bytes: int = 0
    refused: int = 0
    crowded: int = 0
    lost: int = 0

    def plus(self, **more: int) -> FeatureStats:
        """With these counts added."""
        return replace(self, **{name: getattr(self, name) + n for name, n in more.items()})


@dataclass(slots=True, eq=False)
class FeatureCache:
    """Features by key in a memory manager, under its budgets. Safe to use from many threads.

    Values may be dropped when the lowest tier is full: they can be made again. A value that is
    held keeps its bytes reserved; hold it no longer than its tokens are computed.

    Args:
        memory: shared with others, or made for this alone; not closed here.
        max_error: how far a number may be off that comes back from a lower tier; 0.0, exact,
            keeps answers the same.
    """

    memory: MemoryManager
    max_error: float = 0.0
    _stats: FeatureStats = field(default_factory=FeatureStats, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def get(self, key: FeatureKey) -> torch.Tensor | None:
        """Shape (l, t, d), on the device, not to be changed; None where they must be made.

        What cannot be read is made again: a failure of the disk costs time, never an answer.
        """
        try:
            features_ltd = self.memory[key.stored]
        except KeyError:
            self._count(misses=1)
        except BudgetExceeded:
            self._count(misses=1, crowded=1)
        except (TierError, CodecError):
            self._count(misses=1, lost=1)
        else:
            self._count(hits=1, hit_bytes=features_ltd.nbytes)
            return features_ltd
        return None

    def put(self, key: FeatureKey, features_ltd: torch.Tensor, *, seconds: float) -> bool:
        """Keeps features; False where no tier has room.

        Args:
            features_ltd: not a view of something larger, and not to be changed afterwards.
            seconds: that the tower took for them.
        """
        try:
            self.memory.put(
                key.stored,
                features_ltd,
                kind=KIND,
                max_error=self.max_error,
                cost=seconds,
                droppable=True,
            )
        except (BudgetExceeded, TierFull):
            self._count(refused=1)
            return False
        self._count(put_bytes=features_ltd.nbytes)
        return True

    def prefetch(self, keys: Iterable[FeatureKey]) -> None:
        """Starts bringing features of requests that wait to the device, and returns at once."""
        self.memory.prefetch(key.stored for key in keys)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, FeatureKey) and key.stored in self.memory

    def clear(self) -> int:
        """Forgets all features, and says how many; other values of the manager stay."""
        count = 0
        for stored in list(self.memory):
            if isinstance(stored, tuple) and len(stored) == 2 and stored[0] == KIND:
                with suppress(KeyError):
                    del self.memory[stored]
                    count += 1
        return count

    @property
    def stats(self) -> FeatureStats:
        """What it did so far."""
        return self._stats

    def _count(self, **more: int) -> None:
        with self._lock:
            self._stats = self._stats.plus(**more)


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    numbers: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(numbers)
