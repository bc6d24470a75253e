"""The checks of ``octavo doctor``, in the order in which it prints them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from octavo.hardware import Hardware
from octavo.hardware.disks import disk_kind
from octavo.hardware.home import octavo_home

if TYPE_CHECKING:
    from octavo.hardware.bandwidth import Bandwidth

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


def all_checks(
    hardware: Hardware, *, bench: Callable[[bool], Bandwidth] | None = None
) -> list[Check]:
    """Everything, in a few seconds: native libraries are loaded in processes of their own.

    Args:
        bench: measures, with torch or without; what was measured before is shown by default.
    """
    from octavo.cli._accelerators import ask_accelerators, gpu_checks
    from octavo.cli._measured import speed_checks
    from octavo.cli._packages import ask_natives, package_checks
    from octavo.cli._present import model_checks
    from octavo.hardware.bandwidth import load_measured

    with ThreadPoolExecutor(2) as pool:
        natives = pool.submit(ask_natives)
        answers = ask_accelerators()
        torch = answers.get("torch")
        loads = torch is not None and torch.found is not None
        packages = list(package_checks(natives.result()))
    home = octavo_home()
    found = bench(loads) if bench else load_measured(home, hardware=hardware)
    return [
        *machine_checks(hardware),
        *speed_checks(home, found, torch_loads=loads),
        *packages,
        *model_checks(),
        *gpu_checks(answers),
    ]


def machine_checks(hardware: Hardware) -> Iterator[Check]:
    cpu, memory, disk = hardware.cpu, hardware.memory, hardware.disk
    yield Check("Machine", "Python", "ok", f"{hardware.python} ({hardware.implementation})")
    yield Check("Machine", "platform", "ok", hardware.platform)

    cores = f"{cpu.usable} usable of {cpu.logical}" if cpu.usable is not None else "unknown"
    if cpu.quota is not None:
        cores += f", limited to {cpu.quota:g} by the control group"
    yield Check("Machine", "cores", "ok", cores)
    sets = {"AVX2": cpu.avx2, "AVX-512": cpu.avx512, "bf16": cpu.bf16, "VNNI": cpu.vnni}
    present = ", ".join(name for name, there in sets.items() if there) or "none of AVX2 and up"
    yield Check("Machine", "CPU", "ok", f"{cpu.name or 'unknown'} ({_known(sets, present)})")

    amount = f"{size(memory.available)} free of {size(memory.usable)}"
    if memory.limit is not None and memory.limit < memory.total:
        amount += f", limited by the control group (the machine has {size(memory.total)})"
    yield _enough("memory", amount, memory.available < LOW_MEMORY, "close other programs")
    if disk.free is None or disk.total is None:
        yield Check("Machine", "disk", "note", f"{disk.folder}: unknown")
    else:
        kind = disk_kind(disk.folder)
        named = f"{kind}, " if kind else ""
        room = f"{named}{size(disk.free)} free of {size(disk.total)} at {disk.folder}"
        yield _enough("disk", room, disk.free < LOW_DISK, "free some, or give another --out")


def size(number: int) -> str:
    """Bytes in GB of 10**9, as disks and vendors count."""
    return f"{number / 1e9:.1f} GB"


def _enough(name: str, value: str, short: bool, fix: str) -> Check:
    return Check("Machine", name, "note" if short else "ok", value, fix if short else None)


def _known(named: dict[str, bool | None], present: str) -> str:
    return "instruction sets unknown" if None in named.values() else present
