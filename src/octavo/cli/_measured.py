"""What was measured of this machine, and what the disk tier was tuned to."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from octavo.cli._checks import Check
from octavo.hardware.home import octavo_home

if TYPE_CHECKING:
    from octavo.hardware.bandwidth import Bandwidth

_GROUP = "Speed"
_FIX = "octavo doctor --bench"


def speed_checks(folder: Path, found: Bandwidth | None, *, torch_loads: bool) -> Iterator[Check]:
    """Rates that were measured before, or just now."""
    if found is None:
        yield Check(_GROUP, "measured", "optional", "not yet", _FIX)
    else:
        yield from _rates(found)
    if torch_loads and _tuned_before():
        yield from _tuned(folder)


def _rates(found: Bandwidth) -> Iterator[Check]:
    day = time.strftime("%Y-%m-%d", time.localtime(found.measured_at))
    yield Check(_GROUP, "measured", "ok", f"{day}; octavo doctor --bench measures again")
    disk = found.disk
    if disk.read_bytes_per_s is None:
        yield Check(_GROUP, "disk", "note", disk.note or "not measured", _FIX)
    else:
        way = "direct" if disk.direct else disk.note
        value = f"reads {rate(disk.read_bytes_per_s)} ({disk.nbytes / 1e6:.0f} MB, {way})"
        yield Check(_GROUP, "disk", "ok" if disk.direct else "note", value)
    if found.copy_one is not None:
        value = f"copies {rate(found.copy_one)} with 1 thread"
        if found.copy_all is not None and found.threads > 1:
            value += f", {rate(found.copy_all)} with {found.threads}"
        yield Check(_GROUP, "memory", "ok", value)
    if found.products:
        yield Check(_GROUP, "matrix products", "ok", _products(found.products))
    for device in found.devices:
        value = (
            f"{rate(device.to_device)} to it, {rate(device.from_device)} back, "
            f"{_products(device.products)}"
        )
        yield Check(_GROUP, device.name, "ok", value)
    for note in found.notes:
        yield Check(_GROUP, "not measured", "note", note)


def _products(products: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {count / 1e9:.0f} GFLOP/s" for name, count in products.items())


def _tuned(folder: Path) -> Iterator[Check]:
    """The memory tier's disk, where ``octavo memory tune`` has been."""
    from octavo.cli._tuned import format_block
    from octavo.memory.disk.tuning import load_tuning

    tuning = load_tuning(folder)
    if tuning is None:
        return
    value = (
        f"{format_block(tuning.block)} blocks, {tuning.depth} at a time: reads "
        f"{rate(tuning.read_bytes_per_s)}, writes {rate(tuning.write_bytes_per_s)}"
    )
    yield Check(_GROUP, "disk tier", "ok", value)


def _tuned_before() -> bool:
    """Asked first, because what reads the file loads torch, which takes seconds."""
    return (octavo_home() / "disks.json").is_file()


def rate(bytes_per_s: float) -> str:
    return f"{bytes_per_s / 1e9:.2f} GB/s"
