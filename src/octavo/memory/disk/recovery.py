"""Between the index of a kept folder and extents."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

from octavo.memory.disk.extent import Extent
from octavo.memory.disk.index import Entry, Index
from octavo.memory.disk.slabs import slab_path
from octavo.memory.ledger import Ledger, Reservation

#: Key, header and place of a value that an earlier process committed.
Recovered = tuple[Hashable, Mapping[str, Any], Extent]


def entry_of(key: Hashable, header: Mapping[str, Any], extent: Extent) -> Entry:
    """What the index keeps of a value."""
    return Entry(
        key,
        header,
        extent.held.kind,
        extent.held.owner,
        extent.size,
        extent.slot,
        extent.nbytes,
        extent.block,
        extent.sums,
    )


def recovered(
    index: Index, folder: Path, ledger: Ledger, footprint: Callable[[int, int], int]
) -> tuple[list[Recovered], int]:
    """The values that are there and fit the budget, oldest first; and how many are not.

    They are reserved in the ledger, and the index holds no others afterwards.
    """
    lengths: dict[int, int] = {}
    kept: list[tuple[Entry, Reservation]] = []
    for entry in reversed(index.found):
        length = lengths.setdefault(entry.size, _length(slab_path(folder, entry.size)))
        if entry.size * entry.slot + entry.nbytes > length:
            continue
        taken = footprint(entry.nbytes, entry.size)
        held = ledger.try_reserve("disk", entry.kind, taken, entry.owner)
        if held is not None:
            kept.append((entry, held))
    try:
        index.keep_only(entry for entry, _ in reversed(kept))
    except BaseException:
        for _, held in kept:
            held.release()
        raise
    return [_value(entry, held) for entry, held in reversed(kept)], len(index.found) - len(kept)


def _value(entry: Entry, held: Reservation) -> Recovered:
    extent = Extent(entry.size, entry.slot, entry.nbytes, entry.block, entry.sums, held)
    return entry.key, entry.header, extent


def _length(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
