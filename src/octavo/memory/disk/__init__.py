"""Values on a disk: slab files, direct reads and writes on threads, checksums, a kept index."""

from octavo.memory.disk.extent import DiskStats, Extent
from octavo.memory.disk.tier import DiskTier
from octavo.memory.disk.tune import tune
from octavo.memory.disk.tuning import Trial, Tuning, load_tuning, save_tuning

__all__ = [
    "DiskStats",
    "DiskTier",
    "Extent",
    "Trial",
    "Tuning",
    "load_tuning",
    "save_tuning",
    "tune",
]
