"""Statistics of every part, and the same in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from octavo.memory.disk import DiskStats
from octavo.memory.ledger import Holding, Place, PlaceState
from octavo.memory.lifetimes import Leak
from octavo.memory.pools import PoolStats, SlotStats
from octavo.memory.pressure import Pressure
from octavo.memory.sizes import format_bytes
from octavo.memory.store_stats import StoreStats


@dataclass(frozen=True, slots=True)
class ManagerStats:
    """One moment of a manager.

    Attributes:
        level, device: as it was set up.
        places: budget, use and peak by place; sizes in bytes.
        holdings: who holds what, largest first.
        store, disk: what they did; ``disk`` is None without one.
        pools: of those that were used, by name.
        pressure: the latest reading; None where it is not watched.
        leaks: references that look forgotten.
    """

    level: str
    device: str
    places: Mapping[Place, PlaceState]
    holdings: list[Holding]
    store: StoreStats
    disk: DiskStats | None
    pools: Mapping[str, PoolStats | SlotStats]
    pressure: Pressure | None
    leaks: list[Leak]


def explained(stats: ManagerStats) -> str:
    """Lines for a person."""
    return "\n".join(_lines(stats))


def _lines(stats: ManagerStats) -> Iterator[str]:
    yield f"memory, level {stats.level}, tensors on {stats.device}"
    for place, state in stats.places.items():
        if not state.budget and not state.used:
            continue
        share = state.used / state.budget if state.budget else 0.0
        yield (
            f"  {place:<7} {format_bytes(state.used):>8} of {format_bytes(state.budget)} "
            f"({share:.0%}), peak {format_bytes(state.peak)}, "
            f"{stats.store.copies[place]} values"
        )
        for kind, nbytes in state.by_kind.items():
            peak = state.peak_by_kind[kind]
            if peak:
                yield f"    {kind:<12} {format_bytes(nbytes):>8}, peak {format_bytes(peak)}"
    yield from _store_lines(stats.store)
    for name, pool in stats.pools.items():
        yield f"  pool {name}: {format_bytes(pool.nbytes)}"
    if stats.disk is not None and stats.disk.note:
        yield f"  disk: {stats.disk.note}"
    if stats.pressure is not None and stats.pressure.level != "none":
        free = format_bytes(stats.pressure.available_bytes)
        yield f"  pressure {stats.pressure.level}: {free} of main memory left"
    for leak in stats.leaks:
        yield (
            f"  leak? {leak.owner} holds {leak.count} values of {leak.key_class}, "
            f"{format_bytes(leak.nbytes)}, for {leak.age} phases"
        )


def _store_lines(store: StoreStats) -> Iterator[str]:
    hits = ", ".join(f"{place} {count}" for place, count in store.hits.items())
    ratio = f" ({store.hit_ratio:.0%} at once)" if store.hit_ratio is not None else ""
    yield f"  reads: {hits}, missing {store.misses}{ratio}"
    down = ", ".join(
        f"{place} {count} ({format_bytes(store.demoted_bytes[place])})"
        for place, count in store.demotions.items()
        if count
    )
    if down:
        yield f"  made room: {down}, dropped {store.dropped}"
    if store.encoded_ratio is not None:
        made = ", ".join(f"{name} {count}" for name, count in store.codecs.items())
        yield f"  encoded {store.encoded_ratio:.2f} to 1: {made}"
    if store.prefetches:
        yield f"  fetched ahead: {store.prefetches}, used {store.prefetch_hits}"
    if store.lent_bytes:
        yield f"  held by callers after leaving: {format_bytes(store.lent_bytes)}"
    for name, count in store.failures.items():
        yield f"  failed {count} times: {name}"
    if store.lost:
        yield f"  lost to a damaged disk: {store.lost} values"
