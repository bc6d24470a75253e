"""A frozen snapshot of the machine. What cannot be found out is None, never guessed.

Limits of Linux control groups, versions 1 and 2, are read from the files that the kernel
documents (Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/): a container sees the whole
machine's memory and cores but is killed or throttled at its own.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

#: Version 1 writes "no limit" as the largest multiple of a page under 2**63.
NO_LIMIT = 1 << 60


@dataclass(frozen=True, slots=True)
class Cpu:
    """Processor cores and what their instructions can do.

    Attributes:
        name: the model as the system names it.
        logical, physical: of the whole machine; ``logical`` counts hyperthreads.
        affinity: logical cores that this process may run on.
        quota: cores' worth of time that the control group grants; None without a limit.
        avx2, avx512, bf16, vnni: instruction sets; ``bf16`` and ``vnni`` in any width.
        fp16: arithmetic in float16, not only conversion.
    """

    name: str | None
    logical: int | None
    physical: int | None
    affinity: int | None
    quota: float | None
    avx2: bool | None
    avx512: bool | None
    bf16: bool | None
    vnni: bool | None
    fp16: bool | None = None

    @property
    def usable(self) -> int | None:
        """Threads that can really run at once: at least 1, or None when nothing is known."""
        cores = self.affinity or self.logical
        if cores is None or self.quota is None:
            return cores
        return max(1, min(cores, round(self.quota)))


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of main memory.

    Attributes:
        total: of the machine.
        available: what this process can still get, control group included.
        limit: the tightest limit of its control groups; None without one.
    """

    total: int
    available: int
    limit: int | None

    @property
    def usable(self) -> int:
        """``total`` or the control group's ``limit``, whichever is smaller."""
        return self.total if self.limit is None else min(self.total, self.limit)


@dataclass(frozen=True, slots=True)
class Disk:
    """Bytes of the file system that holds ``folder``; None where it cannot be asked."""

    folder: Path
    total: int | None
    free: int | None


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine as this process sees it."""

    cpu: Cpu
    memory: Memory
    disk: Disk
    python: str
    implementation: str
    platform: str


def probe(folder: Path | None = None, *, root: Path = Path("/")) -> Hardware:
    """Looks at the machine, in a few milliseconds.

    Args:
        folder: whose disk to measure; the working folder by default.
        root: where ``proc`` and ``sys`` are mounted.
    """
    return Hardware(
        cpu=_cpu(root),
        memory=_memory(root),
        disk=_disk(folder or Path.cwd()),
        python=platform.python_version(),
        implementation=platform.python_implementation(),
        platform=platform.platform(),
    )


def _cpu(root: Path) -> Cpu:
    info = _cpuinfo(root)
    flags = info.get("flags", info.get("Features", "")).split()  # x86, Arm
    known = frozenset(flags) if flags else None
    return Cpu(
        name=info.get("model name") or platform.processor() or None,
        logical=os.cpu_count(),
        physical=psutil.cpu_count(logical=False),
        affinity=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        quota=min((quota for quota in _quotas(root)), default=None),
        avx2=_has(known, "avx2"),
        avx512=_has(known, "avx512f"),
        bf16=_has(known, "avx512_bf16", "amx_bf16", "bf16"),
        vnni=_has(known, "avx512_vnni", "avx_vnni", "amx_int8", "asimddp"),
        fp16=_has(known, "avx512_fp16", "amx_fp16", "asimdhp"),
    )


def _cpuinfo(root: Path) -> dict[str, str]:
    """The first processor's block of ``/proc/cpuinfo``; empty where there is none."""
    text = _read(root / "proc/cpuinfo") or ""
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _has(known: frozenset[str] | None, *names: str) -> bool | None:
    return None if known is None else not known.isdisjoint(names)


def _memory(root: Path) -> Memory:
    machine = psutil.virtual_memory()
    available = int(machine.available)
    limit: int | None = None
    for bound, used in _memory_limits(root):
        limit = bound if limit is None else min(limit, bound)
        if used is not None:
            available = min(available, max(bound - used, 0))
    return Memory(total=int(machine.total), available=available, limit=limit)


def _memory_limits(root: Path) -> Iterator[tuple[int, int | None]]:
    """(limit, bytes in use that cannot be dropped) of every control group with a limit."""
    for group in control_groups(root, "memory"):
        for bound_name, used_name, cache_key in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            bound = whole_number(_read(group / bound_name))
            if bound is None or bound >= NO_LIMIT:
                continue
            used = whole_number(_read(group / used_name))
            cache = _stat(group / "memory.stat", cache_key)
            yield bound, None if used is None else max(used - cache, 0)


def _quotas(root: Path) -> Iterator[float]:
    """Cores' worth of time granted by every control group with a limit."""
    for group in control_groups(root, "cpu"):
        fields = (_read(group / "cpu.max") or "").split()
        if len(fields) != 2:
            fields = [
                (_read(group / name) or "").strip()
                for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            ]
        quota, period = whole_number(fields[0]), whole_number(fields[1])
        if quota is not None and period is not None and quota > 0 and period > 0:
            yield quota / period


def control_groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's control group and all above it: each may set a limit."""
    base = root / "sys/fs/cgroup"
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            mount = base
        elif controller in controllers.split(","):
            mount = base / controller
        else:
            continue
        # Inside a container the path may be the host's and lead nowhere; the mount stays.
        group = mount / path.lstrip("/")
        while group != mount and mount in group.parents:
            yield group
            group = group.parent
        yield mount


def _stat(path: Path, key: str) -> int:
    for line in (_read(path) or "").splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return whole_number(value) or 0
    return 0


def whole_number(text: str | None) -> int | None:
    """A whole number; None for ``max``, an absent file or anything else."""
    text = (text or "").strip()
    return int(text) if text.lstrip("-").isdecimal() else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def _disk(folder: Path) -> Disk:
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return Disk(folder, None, None)
    return Disk(folder, usage.total, usage.free)
