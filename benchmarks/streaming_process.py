"""A process of its own for each case: under a cap of memory where the machine can make one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_KILLED: Final = -9


@dataclass(frozen=True, slots=True)
class Group:
    """A control group of limited memory, page cache included; see the kernel's
    ``admin-guide/cgroup-v1/memory.rst`` and ``cgroup-v2.rst``."""

    folder: Path
    peak: str
    words: str

    @property
    def peak_bytes(self) -> int | None:
        """The most that was charged to it; None where the kernel does not say."""
        try:
            return int((self.folder / self.peak).read_text())
        except (OSError, ValueError):
            return None


_KINDS: Final = (
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.max_usage_in_bytes", "version 1"),
    ("/sys/fs/cgroup", "memory.max", "memory.peak", "version 2"),
)


@contextmanager
def capped(cap: int | None) -> Iterator[Group | None]:
    """A group of ``cap`` bytes; None without a cap, or where none can be made."""
    for base, limit, peak, version in _KINDS if cap is not None else ():
        group = Path(base) / f"octavo-benchmark-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(cap))
        except OSError:
            group.rmdir()
            continue
        try:
            yield Group(group, peak, f"control group, {version}")
        finally:
            group.rmdir()
        return
    yield None


def in_a_process(
    module: str, task: Mapping[str, Any], *, cap: int | None = None, threads: int | None = None
) -> dict[str, Any]:
    """What ``python -m module`` prints last for ``task``, as JSON on its standard input.

    Returns:
        What it found; ``{"killed": True}`` where the cap ended it. With ``capped_by`` and the
        group's ``cap_peak_bytes``.
    """
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    with capped(cap) as group:
        with subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        ) as process:
            if group is not None:
                (group.folder / "cgroup.procs").write_text(str(process.pid))
            # It waits for its task, so everything that it does is under the cap.
            said, complained = process.communicate(json.dumps(task))
        found = _found(task, process.returncode, said, complained)
        if group is not None:
            found |= {"capped_by": group.words, "cap_peak_bytes": group.peak_bytes}
    return found


def _found(task: Mapping[str, Any], code: int, said: str, complained: str) -> dict[str, Any]:
    if code == _KILLED:
        return {"killed": True}
    if code:
        raise RuntimeError(f"{task['way']} ended with {code}:\n{complained[-4000:]}")
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def peak_bytes() -> int:
    """The largest resident set of this process so far."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def disk_bytes() -> int:
    """Bytes that the disk read for this process so far, by whatever way."""
    for line in Path("/proc/self/io").read_text().splitlines():
        if line.startswith("read_bytes"):
            return int(line.split()[1])
    raise RuntimeError("no read_bytes in /proc/self/io")
