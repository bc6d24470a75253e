"""Size classes: every extent of a slab file has the same size, so that a free one always fits."""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB
#: From here on extents are multiples of this and start on one.
STEP: Final = 4 * MIB
SMALL: Final = (16 * KIB, 64 * KIB, 256 * KIB, 1 * MIB)


def class_of(nbytes: int) -> int:
    """Bytes of the smallest extent that holds ``nbytes``.

    16 KiB, 64 KiB, 256 KiB, 1 MiB, then multiples of 4 MiB, each at most a quarter larger than
    the one before where 4 MiB is not more than that. The room that a value leaves in its extent
    is address space of a sparse file, not disk.
    """
    for size in SMALL:
        if nbytes <= size:
            return size
    size = STEP
    while size < nbytes:
        size = max(size + STEP, size * 5 // 4 // STEP * STEP)
    return size
