"""The checks of ``octavo doctor``, in the order in which it prints them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from octavo.hardware import Hardware

#: ``missing``: documents cannot be parsed without it; ``optional``: not there, and not needed for
#: the base; ``note``: there, but something about it wants a look.
State = Literal["ok", "missing", "optional", "note"]

#: Below this a run over a long document may fill the disk with page pictures.
LOW_DISK = 1 << 30
#: The embedded reader holds its models and a few drawn pages in this.
LOW_MEMORY = 1 << 30


@dataclass(frozen=True, slots=True)
class Check:
    """One line: what was looked at, how it is, and the command that mends it."""

    group: str
    name: str
    state: State
    value: str
    fix: str | None = None


def all_checks(hardware: Hardware) -> list[Check]:
    """Everything, in a second or two: native libraries are loaded in a process of their own."""
    from octavo.cli._accelerators import accelerator_checks
    from octavo.cli._packages import package_checks

    return [*machine_checks(hardware), *package_checks(), *accelerator_checks()]


def machine_checks(hardware: Hardware) -> Iterator[Check]:
    cpu, memory, disk = hardware.cpu, hardware.memory, hardware.disk
    yield Check("Machine", "Python", "ok", f"{hardware.python} ({hardware.implementation})")
    yield Check("Machine", "platform", "ok", hardware.platform)

    cores = f"{cpu.usable} usable of {cpu.logical}" if cpu.usable is not None else "unknown"
    if cpu.quota is not None:
        cores += f", limited to {cpu.quota:g} by the control group"
    yield Check("Machine", "cores", "ok", cores)
    named = {"AVX2": cpu.avx2, "AVX-512": cpu.avx512, "bf16": cpu.bf16, "VNNI": cpu.vnni}
    present = ", ".join(name for name, there in named.items() if there) or "none of AVX2 and up"
    yield Check("Machine", "CPU", "ok", f"{cpu.name or 'unknown'} ({_known(named, present)})")

    amount = f"{size(memory.available)} free of {size(memory.usable)}"
    if memory.limit is not None and memory.limit < memory.total:
        amount += f", limited by the control group (the machine has {size(memory.total)})"
    yield _enough("memory", amount, memory.available < LOW_MEMORY, "close other programs")
    if disk.free is None or disk.total is None:
        yield Check("Machine", "disk", "note", f"{disk.folder}: unknown")
    else:
        room = f"{size(disk.free)} free of {size(disk.total)} at {disk.folder}"
        yield _enough("disk", room, disk.free < LOW_DISK, "free some, or give another --out")


def size(number: int) -> str:
    """Bytes in GB of 10**9, as disks and vendors count."""
    return f"{number / 1e9:.1f} GB"


def _enough(name: str, value: str, short: bool, fix: str) -> Check:
    return Check("Machine", name, "note" if short else "ok", value, fix if short else None)


def _known(named: dict[str, bool | None], present: str) -> str:
    return "instruction sets unknown" if None in named.values() else present
