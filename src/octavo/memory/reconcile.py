"""Compares what the ledger counts with what the process really holds.

The rest that no reservation explains is what the ledger does not know of: Python and its
libraries where there is no baseline, memory that the allocator keeps, or a leak. A negative rest
is reserved and not, or not yet, touched: activations are reserved by prediction, and pages of a
new buffer count for the system only once they are written.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from octavo.memory.ledger import Ledger, Place
from octavo.memory.readings import Bound, read_memory
from octavo.memory.sizes import format_bytes

#: Rows of ``/proc/self/status``, in kB.
_STATUS = {"RssAnon": 0, "RssFile": 1, "RssShmem": 2, "VmRSS": 3, "VmHWM": 4}


@dataclass(frozen=True, slots=True)
class MainMemory:
    """What the process holds of main memory, in bytes; None is unknown.

    Attributes:
        anonymous: memory of its own, which only swapping can take away.
        file: mapped files, code included; the kernel drops and reads them again as it likes.
        shared: shared memory (``/dev/shm``, tensors shared between processes).
        resident: all of these.
        peak: the most that was ever resident.
    """

    anonymous: int | None
    file: int | None
    shared: int | None
    resident: int
    peak: int | None

    @property
    def held(self) -> int:
        """What the ledger should explain: anonymous and shared, or all where no split is known."""
        if self.anonymous is None:
            return self.resident
        return self.anonymous + (self.shared or 0)


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """What the process holds of an accelerator's memory, in bytes; None is unknown.

    Attributes:
        allocated: by tensors.
        reserved: by torch's allocator from the driver, ``allocated`` included.
        peak_allocated: the most that tensors ever took.
        process: of the whole process as the driver sees it, contexts and other libraries
            included (NVML).
    """

    allocated: int | None
    reserved: int | None
    peak_allocated: int | None
    process: int | None


@dataclass(frozen=True, slots=True)
class Sample:
    """The process's memory at one moment.

    Attributes:
        device: whose memory ``accelerator`` is about.
        accelerator: None for the CPU, and for a device not initialised yet.
        group: the control group's limit that is nearest, and its use; None without one.
    """

    device: torch.device
    main: MainMemory
    accelerator: DeviceMemory | None
    group: Bound | None


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of real memory beside what the ledger says of it; bytes.

    Attributes:
        name: ``"main"``, or the device.
        places: whose reservations lie there.
        measured: that the process holds, as far as the ledger should explain it.
        baseline: the same when the baseline was taken; 0 without one.
        ledger: the sum of the reservations in ``places``.
    """

    name: str
    places: tuple[Place, ...]
    measured: int | None
    baseline: int
    ledger: int

    @property
    def unexplained(self) -> int | None:
        """``measured`` less ``baseline`` less ``ledger``; None where nothing was measured."""
        return None if self.measured is None else self.measured - self.baseline - self.ledger


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The ledger beside the process, by kind of memory."""

    rows: tuple[Row, ...]
    sample: Sample
    has_baseline: bool

    @property
    def unexplained(self) -> Mapping[str, int | None]:
        """Bytes that no reservation explains, by name of the row."""
        return {row.name: row.unexplained for row in self.rows}

    def explain(self) -> str:
        """The sums, line by line."""
        return "\n".join(_lines(self))


def sample(device: torch.device | None = None, *, root: Path = Path("/")) -> Sample:
    """Measures this process now; at the start, that is the baseline.

    Nothing is initialised for it: a device that was not used yet has no memory of this process.

    Args:
        device: of the ledger's place ``device``; the CPU by default.
        root: where ``proc`` and ``sys`` are mounted.
    """
    device = device or torch.device("cpu")
    return Sample(
        device=device,
        main=_main_memory(root),
        accelerator=_device_memory(device),
        group=max(read_memory(root).groups, key=lambda bound: bound.share, default=None),
    )


def reconcile(
    ledger: Ledger,
    *,
    baseline: Sample | None = None,
    device: torch.device | None = None,
    root: Path = Path("/"),
) -> Reconciliation:
    """Compares ``ledger`` with what the process holds now.

    Where the device is the CPU, the ledger's places ``device`` and ``host`` both lie in main
    memory and are compared as one sum. ``disk`` is no memory of the process and is left out.

    Args:
        ledger: whose sums.
        baseline: of before anything was reserved; without it Python and all libraries are
            unexplained.
        device: of the place ``device``; the baseline's by default, else the CPU.
        root: where ``proc`` and ``sys`` are mounted.
    """
    if device is None and baseline is not None:
        device = baseline.device
    now = sample(device, root=root)
    on_cpu = now.device.type == "cpu"
    rows = [
        _row(
            "main",
            ("device", "host") if on_cpu else ("host",),
            ledger,
            now.main.held,
            baseline.main.held if baseline else None,
        )
    ]
    if not on_cpu:
        rows.append(
            _row(
                str(now.device),
                ("device",),
                ledger,
                now.accelerator.allocated if now.accelerator else None,
                baseline.accelerator.allocated if baseline and baseline.accelerator else None,
            )
        )
    return Reconciliation(tuple(rows), now, baseline is not None)


def _row(
    name: str, places: tuple[Place, ...], ledger: Ledger, measured: int | None, before: int | None
) -> Row:
    return Row(name, places, measured, before or 0, sum(ledger.used(place) for place in places))


def _main_memory(root: Path) -> MainMemory:
    found: list[int | None] = [None] * len(_STATUS)
    try:
        status = (root / "proc/self/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        status = ""
    for line in status.splitlines():
        name, _, value = line.partition(":")
        number = value.removesuffix("kB").strip()
        if name in _STATUS and number.isdecimal():
            found[_STATUS[name]] = int(number) * 1024
    anonymous, file, shared, resident, peak = found
    if resident is None:
        resident = int(psutil.Process().memory_info().rss)
        peak = _peak()
    return MainMemory(anonymous, file, shared, resident, peak)


def _peak() -> int | None:
    """The most that was ever resident, where there is no ``/proc``."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, kB elsewhere.
    return most if sys.platform == "darwin" else most * 1024


def _device_memory(device: torch.device) -> DeviceMemory | None:
    if device.type == "cpu":
        return None
    if device.type == "mps":
        if not torch.backends.mps.is_available():
            return None
        return DeviceMemory(
            torch.mps.current_allocated_memory(), torch.mps.driver_allocated_memory(), None, None
        )
    backend = getattr(torch, device.type, None)
    if backend is None or not hasattr(backend, "memory_stats") or not backend.is_initialized():
        return None
    stats = backend.memory_stats(device)
    return DeviceMemory(
        allocated=stats.get("allocated_bytes.all.current", 0),
        reserved=stats.get("reserved_bytes.all.current", 0),
        peak_allocated=stats.get("allocated_bytes.all.peak", 0),
        process=_nvml_memory(device) if device.type == "cuda" else None,
    )


def _nvml_memory(device: torch.device) -> int | None:
    """Bytes that the driver counts for this process; None where it does not say.

    By the card's identifier: the numbers of NVML do not follow ``CUDA_VISIBLE_DEVICES``. In a
    container the driver may know the process by another number; then it is not found.
    """
    try:
        nvml = importlib.import_module("pynvml")
    except ImportError:
        return None
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    try:
        card = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        running = nvml.nvmlDeviceGetComputeRunningProcesses(card)
    except nvml.NVMLError:
        return None
    finally:
        nvml.nvmlShutdown()
    return next((found.usedGpuMemory for found in running if found.pid == os.getpid()), None)


def _lines(found: Reconciliation) -> Iterator[str]:
    main, group = found.sample.main, found.sample.group
    for row in found.rows:
        yield f"{row.name} memory"
        yield _line("measured", row.measured)
        if found.has_baseline:
            yield _line("at the start", row.baseline)
        yield _line(f"ledger ({' and '.join(row.places)})", row.ledger)
        yield _line("unexplained", row.unexplained)
    yield "the process"
    yield _line("anonymous", main.anonymous)
    yield _line("mapped files", main.file)
    yield _line("shared", main.shared)
    yield _line("resident", main.resident)
    yield _line("resident at most", main.peak)
    if group is not None:
        yield _line("control group's use", group.used)
        yield _line("control group's limit", group.limit)
    held = found.sample.accelerator
    if held is not None:
        yield _line("tensors on the device", held.allocated)
        yield _line("at most", held.peak_allocated)
        yield _line("torch's allocator", held.reserved)
        yield _line("process on the device", held.process)


def _line(name: str, nbytes: int | None) -> str:
    size = "unknown" if nbytes is None else format_bytes(nbytes)
    return f"  {name:<26}{size:>10}"
