"""What a store counts."""

from __future__ import annotations

from dataclasses import dataclass, field

from octavo.memory.ledger import PLACES, Place


@dataclass(slots=True)
class Counters:
    """Counts since the store was opened; changed under the shelves' lock."""

    hits: dict[Place, int] = field(default_factory=lambda: dict.fromkeys(PLACES, 0))
    misses: int = 0
    puts: int = 0
    demotions: dict[Place, int] = field(default_factory=lambda: dict.fromkeys(PLACES, 0))
    demoted_bytes: dict[Place, int] = field(default_factory=lambda: dict.fromkeys(PLACES, 0))
    dropped: int = 0
    raw_bytes: int = 0
    encoded_bytes: int = 0
    codecs: dict[str, int] = field(default_factory=dict)
    prefetches: int = 0
    prefetch_hits: int = 0
    prefetch_failures: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    lost: int = 0

    def failed(self, error: Exception) -> None:
        name = type(error).__name__
        self.failures[name] = self.failures.get(name, 0) + 1

    def stats(self, *, values: int, copies: dict[Place, int], lent_bytes: int) -> StoreStats:
        """These counts, as they are now, beside what the store holds."""
        return StoreStats(
            values=values,
            copies=copies,
            hits=dict(self.hits),
            misses=self.misses,
            puts=self.puts,
            demotions=dict(self.demotions),
            demoted_bytes=dict(self.demoted_bytes),
            dropped=self.dropped,
            encoded_ratio=self.raw_bytes / self.encoded_bytes if self.encoded_bytes else None,
            codecs=dict(self.codecs),
            prefetches=self.prefetches,
            prefetch_hits=self.prefetch_hits,
            prefetch_failures=self.prefetch_failures,
            failures=dict(self.failures),
            lost=self.lost,
            lent_bytes=lent_bytes,
        )


@dataclass(frozen=True, slots=True)
class StoreStats:
    """What a store did and holds.

    Attributes:
        values: keys; ``copies`` of them by place.
        hits: reads answered by place, best first.
        misses: reads of keys that are not there.
        puts: new values.
        demotions, demoted_bytes: copies given up to make room, by place.
        dropped: droppable values that were dropped because the lowest tier was full.
        encoded_ratio: raw bytes by encoded bytes of all that was encoded; None before.
        codecs: how many payloads each codec made.
        prefetches, prefetch_hits, prefetch_failures: values fetched ahead; those then used.
        failures: errors met while moving values, by class; the values stayed where they were.
        lost: values that a damaged or vanished file took.
        lent_bytes: of tensors no longer in the store that callers still hold.
    """

    values: int
    copies: dict[Place, int]
    hits: dict[Place, int]
    misses: int
    puts: int
    demotions: dict[Place, int]
    demoted_bytes: dict[Place, int]
    dropped: int
    encoded_ratio: float | None
    codecs: dict[str, int]
    prefetches: int
    prefetch_hits: int
    prefetch_failures: int
    failures: dict[str, int]
    lost: int
    lent_bytes: int

    @property
    def hit_ratio(self) -> float | None:
        """Share of reads that the top tier answered; None before the first read."""
        reads = sum(self.hits.values()) + self.misses
        return self.hits["device"] / reads if reads else None
