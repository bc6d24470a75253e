"""Rates of this machine, measured once and kept: memory, matrix products, disk, devices.

Kept in a file for each machine and disk, so that a home folder on a network serves every machine
with its own figures.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from octavo.errors import OutputError
from octavo.hardware.asking import installed
from octavo.hardware.disk_rate import DiskRate, disk_rate
from octavo.hardware.disks import DiskKind, disk_identity, disk_kind
from octavo.hardware.home import octavo_home
from octavo.hardware.probe import Hardware, probe
from octavo.hardware.rates import COPIED, DeviceRate, copy_rate, device_rates, product_rates

__all__ = ["Bandwidth", "load_measured", "machine_facts", "measure", "save_measured"]

_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """What was measured. Rates are in bytes per second, products in operations per second (a
    multiply-add counts twice).

    Attributes:
        machine: facts that tell this machine from others.
        disk_id: tells the disk from others of the machine.
        kind: of the disk; None: unknown.
        disk: how fast it is read.
        threads: that copied at once for ``copy_all``.
        copy_one, copy_all: bytes copied by one thread, and by all together; None where memory
            was too short to measure.
        products: of the processor, by precision; empty without torch.
        devices: copies to and from each, and products on it.
        measured_at: seconds since 1970.
        notes: what could not be measured, and why.
    """

    machine: Mapping[str, str | int | None]
    disk_id: str
    kind: DiskKind | None
    disk: DiskRate
    threads: int
    copy_one: float | None
    copy_all: float | None
    products: Mapping[str, float]
    devices: tuple[DeviceRate, ...]
    measured_at: float
    notes: tuple[str, ...] = ()


def measure(
    folder: Path,
    *,
    hardware: Hardware | None = None,
    with_torch: bool = True,
    on_progress: Callable[[str], None] | None = None,
) -> Bandwidth:
    """Measures for about ten seconds; a file in ``folder`` comes and goes.

    Args:
        folder: on the disk that models will be read from.
        hardware: of :func:`probe`.
        with_torch: whether matrix products and devices are measured, which loads torch.
        on_progress: told what is measured.

    Raises:
        SourceNotFound: there is no such folder.
    """
    machine = hardware or probe(folder)
    tell = on_progress or (lambda _: None)
    threads = machine.cpu.usable or 1
    notes: list[str] = []
    tell("reading from the disk")
    disk = disk_rate(folder)
    tell("copying memory")
    copy_one, copy_all = _copies(machine, threads, notes)
    products: Mapping[str, float] = {}
    devices: tuple[DeviceRate, ...] = ()
    torch = _torch(notes) if with_torch else None
    if torch is not None:
        tell("multiplying matrices")
        products = product_rates(torch)
        try:
            devices = device_rates(torch)
        except RuntimeError as error:  # a card that is full, or in a mode that refuses work
            notes.append(f"devices not measured: {str(error).strip().splitlines()[0]}")
    return Bandwidth(
        machine_facts(machine),
        disk_identity(folder),
        disk_kind(folder),
        disk,
        threads,
        copy_one,
        copy_all,
        products,
        devices,
        time.time(),
        tuple(notes),
    )


def machine_facts(hardware: Hardware, root: Path = Path("/")) -> dict[str, str | int | None]:
    """What must be the same for a measurement to still hold."""
    identity = None
    for name in ("etc/machine-id", "var/lib/dbus/machine-id"):
        if identity is None and (root / name).is_file():
            # Hashed: machine-id(5) asks that it stays on the machine.
            text = (root / name).read_text(encoding="utf-8", errors="replace").strip()
            identity = hashlib.sha256(f"octavo {text}".encode()).hexdigest()[:16] if text else None
    return {
        "machine": identity,
        "cpu": hardware.cpu.name,
        "cores": hardware.cpu.usable,
        # Kernels differ by a few MB in what they count as theirs.
        "memory_gib": round(hardware.memory.usable / (1 << 30)),
    }


def save_measured(found: Bandwidth) -> Path:
    """Keeps a measurement for its machine and disk; where it was written.

    Raises:
        OutputError: the folder cannot be written to.
    """
    path = _file(found.machine, found.disk_id)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"format": _FORMAT, **asdict(found)}, indent=1)
        fresh.write_text(text + "\n", encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise OutputError(
            f"the measurement cannot be kept: {error.strerror or error}",
            where=str(path),
            next_step="set OCTAVO_HOME to a folder that this user may write to",
        ) from error
    return path


def load_measured(folder: Path, *, hardware: Hardware | None = None) -> Bandwidth | None:
    """What was measured on this machine for the disk of ``folder``; None if nothing sound was."""
    facts = machine_facts(hardware or probe(folder))
    try:
        disk_id = disk_identity(folder)
        found = json.loads(_file(facts, disk_id).read_text(encoding="utf-8"))
        sound = _sound(found)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return sound if dict(sound.machine) == facts and sound.disk_id == disk_id else None


def _sound(found: Any) -> Bandwidth:
    """Raises KeyError, TypeError or ValueError for what ``save_measured`` did not write."""
    if found.pop("format") != _FORMAT:
        raise ValueError("another format")
    found["kind"] = None if found["kind"] is None else DiskKind(found["kind"])
    found["disk"] = DiskRate(**found["disk"])
    found["devices"] = tuple(DeviceRate(**rate) for rate in found["devices"])
    found["notes"] = tuple(found["notes"])
    return Bandwidth(**found)


def _file(facts: Mapping[str, str | int | None], disk_id: str) -> Path:
    text = json.dumps([dict(facts), disk_id], sort_keys=True)
    return octavo_home() / "bandwidth" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def _copies(machine: Hardware, threads: int, notes: list[str]) -> tuple[float | None, float | None]:
    """By one thread and by all, as far as a quarter of the free memory allows."""
    room = machine.memory.available // 4 // (2 * COPIED)
    if room < 1:
        notes.append("too little memory is free to measure how fast it is copied")
        return None, None
    if room < threads:
        notes.append(f"memory for {room} of {threads} threads only")
        return copy_rate(1), None
    return copy_rate(1), copy_rate(threads)


def _torch(notes: list[str]) -> Any:
    if not installed("torch"):
        notes.append("torch is not installed: no products measured")
        return None
    try:
        return importlib.import_module("torch")
    except (ImportError, OSError, RuntimeError) as error:
        notes.append(f"torch does not load: {error}")
        return None
