"""Signs of devices that the system itself shows: nothing is loaded, nothing can crash.

Read from what the kernel's drivers publish: ``/proc/driver/nvidia``, sysfs's ``class/drm``
(``mem_info_vram_*`` of amdgpu: Documentation/gpu/amdgpu/driver-misc.rst) and device nodes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from octavo.hardware.probe import whole_number

#: PCI vendors of display devices.
VENDORS: Final = {0x10DE: "NVIDIA", 0x1002: "AMD", 0x8086: "Intel"}
#: Device nodes without which no library reaches a device: WSL, AMD, displays, Intel NPU, Tegra.
_NODES: Final = (
    "dev/nvidiactl", "dev/nvidia0", "dev/nvhost-gpu", "dev/nvhost-ctrl-gpu", "dev/dxg", "dev/kfd",
    "dev/dri", "dev/accel", "proc/driver/nvidia/version",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Card:
    """A display device as the kernel shows it.

    Attributes:
        vendor: the maker; None for one that is not in ``VENDORS``.
        name: the kernel's, such as ``card0``, or the driver's.
        total_bytes, free_bytes: of its own memory, where the driver publishes them.
    """

    vendor: str | None
    name: str
    total_bytes: int | None = None
    free_bytes: int | None = None


def nvidia_driver(root: Path = Path("/")) -> str | None:
    """The version of the loaded NVIDIA kernel module; None without one."""
    text = _read(root / "proc/driver/nvidia/version") or ""
    found = re.search(r"Module(?: for \S+)?\s+(\d[\d.]+)", text)
    return found[1] if found else None


def cards(root: Path = Path("/")) -> tuple[Card, ...]:
    """Display devices, NVIDIA's first, by the names that the driver gives them."""
    return (*_nvidia(root), *_drm(root))


def may_have_devices(root: Path = Path("/")) -> bool:
    """Whether a library could reach any device but the processor.

    Only Linux shows that in its file system; elsewhere the answer is yes.
    """
    if sys.platform != "linux":
        return True
    return any((root / node).exists() for node in _NODES)


def _nvidia(root: Path) -> Iterator[Card]:
    for path in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        found = re.search(r"^Model:\s*(.+)$", _read(path) or "", re.MULTILINE)
        yield Card("NVIDIA", found[1].strip() if found else "unknown")


def _drm(root: Path) -> Iterator[Card]:
    by_driver = any(_nvidia(root))
    for device in sorted((root / "sys/class/drm").glob("card*/device")):
        vendor = VENDORS.get(_hexadecimal(_read(device / "vendor")) or 0)
        if vendor == "NVIDIA" and by_driver:
            continue
        total = whole_number(_read(device / "mem_info_vram_total"))
        used = whole_number(_read(device / "mem_info_vram_used"))
        free = None if total is None or used is None else max(total - used, 0)
        yield Card(vendor, device.parent.name, total, free)


def _hexadecimal(text: str | None) -> int | None:
    try:
        return int((text or "").strip(), 16)
    except ValueError:
        return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
