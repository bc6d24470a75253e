"""Where a value lies on the disk, and what the tier did so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from octavo.memory.ledger import Reservation


@dataclass(frozen=True, slots=True, eq=False)
class Extent:
    """A value's place. Two extents are the same only if they are the same object.

    Attributes:
        size: bytes of its size class: which slab file.
        slot: which extent of that file, from 0.
        nbytes: of the value.
        block: bytes that were written, and are verified, as one; the last may be shorter.
        sums: XXH3 (64 bits) of each block.
        held: the bytes of disk that the ledger granted.
    """

    size: int
    slot: int
    nbytes: int
    block: int
    sums: tuple[int, ...]
    held: Reservation

    @property
    def offset(self) -> int:
        """First byte in the slab file."""
        return self.size * self.slot


@dataclass(frozen=True, slots=True)
class DiskStats:
    """What a disk tier holds and did.

    Attributes:
        used_bytes: disk that its values take, as in the ledger.
        idle_bytes: disk that freed extents still take until it is reused or given back.
        extents: values by size class.
        reads, writes: values moved without an error.
        read_bytes, written_bytes: of those values.
        read_seconds, write_seconds: sums over calls, which may overlap.
        errors: calls that failed, a full disk included.
        lost: kept values that were not there, or did not fit the budget, at opening.
        peak_in_flight: the most reads and writes that the disk had to do at once.
        direct, note: whether direct I/O is used, and if not, why.
    """

    used_bytes: int
    idle_bytes: int
    extents: Mapping[int, int]
    reads: int
    writes: int
    read_bytes: int
    written_bytes: int
    read_seconds: float
    write_seconds: float
    errors: int
    lost: int
    peak_in_flight: int
    direct: bool
    note: str | None
