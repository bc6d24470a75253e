"""Round trips of more tensors than memory holds, beside ``torch.save`` and ``numpy.memmap``.

``octavo disk`` is the disk tier alone, every value written and read; ``octavo store`` is what a
user has, a store whose tiers in memory fill the cap but for what the process itself needs, and
that is told the order of reads. Each process first touches as much memory as it may have and lets
go of it: in a virtual machine a page that was never touched costs many times as much, which is no
tool's doing.

Each tool runs in a process of its own in a control group whose memory, page cache included, is
limited. Values are read into one tensor where the tool can do so; ``torch.load`` makes a new one
each time. Where no such group can be made, the page cache is dropped after each file instead, and
the result says so. This module is also the program that those processes run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from octavo.memory import MemoryManager
from octavo.memory.buffers import host_buffer
from octavo.memory.disk import DiskTier, Tuning
from octavo.memory.ledger import Ledger

MIB = 1 << 20
TOOLS = ("octavo disk", "octavo store", "torch.save", "numpy.memmap")
OURS = TOOLS[:2]
TARGET = 2.0
#: Bytes of the cap that a store leaves to the process: torch's own, and what the kernel keeps.
_PROCESS = 192 << 20
_V1 = Path("/sys/fs/cgroup/memory")
_V2 = Path("/sys/fs/cgroup")

#: Writes value ``n``; reads it back.
Way = tuple[Callable[[int, torch.Tensor], None], Callable[[int], torch.Tensor]]


def measure(
    folder: Path, tuning: Tuning, *, count: int, size: int, cap: int, rounds: int
) -> dict[str, object]:
    """Seconds of a round trip by tool; the median of interleaved rounds."""
    print(f"\nround trips: {count} tensors of {size // MIB} MiB, memory capped at {cap // MIB} MiB")
    seconds: dict[str, list[dict[str, float]]] = {}
    numbers = [str(number) for number in (count, size, tuning.block, tuning.depth, cap)]
    with _capped(cap) as (group, how):
        for _ in range(rounds):
            for tool in TOOLS:
                seconds.setdefault(tool, []).append(_run([tool, str(folder), *numbers], group))
    print(f"  cap: {how}")
    middle = {
        tool: {
            part: statistics.median(run[part] for run in runs) for part in ("write", "read", "all")
        }
        for tool, runs in seconds.items()
    }
    ratios = {
        tool: {ours: round(middle[tool]["all"] / middle[ours]["all"], 2) for ours in OURS}
        for tool in TOOLS[2:]
    }
    for tool, parts in middle.items():
        over = ratios.get(tool, {})
        beside = "".join(f", {ratio:.2f}x the time of {ours}" for ours, ratio in over.items())
        print(
            f"  {tool:<14}write {parts['write']:.2f} s, read {parts['read']:.2f} s, "
            f"round trip {parts['all']:.2f} s{beside}"
        )
    return {
        "count": count,
        "tensor_bytes": size,
        "cap_bytes": cap,
        "cap": how,
        "rounds": rounds,
        "target": TARGET,
        "seconds": middle,
        "runs": seconds,
        "speedup": ratios,
    }


@contextmanager
def _capped(cap: int) -> Iterator[tuple[Path | None, str]]:
    """A control group of limited memory and in words what it is; None where none can be made."""
    for base, limit, name in (
        (_V1, "memory.limit_in_bytes", "control group, version 1"),
        (_V2, "memory.max", "control group, version 2"),
    ):
        group = base / f"octavo-benchmark-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            try:
                (group / limit).write_text(str(cap))
            except OSError:
                continue
            yield group, name
            return
        finally:
            group.rmdir()
    yield None, "none could be made: the page cache was dropped after each file instead"


def _run(arguments: list[str], group: Path | None) -> dict[str, float]:
    command = [sys.executable, "-m", __name__, *arguments]
    with subprocess.Popen(
        [*command, *([] if group else ["--drop"])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        if group is not None:
            (group / "cgroup.procs").write_text(str(process.pid))
        said, _ = process.communicate("go\n")
    if process.returncode:
        raise RuntimeError(f"{arguments[0]} ended with {process.returncode}: is the cap too low?")
    found: dict[str, float] = json.loads(said)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tool", choices=TOOLS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("size", type=int)
    parser.add_argument("block", type=int)
    parser.add_argument("depth", type=int)
    parser.add_argument("cap", type=int)
    parser.add_argument("--drop", action="store_true")
    options = parser.parse_args()
    # The parent moves this process into its control group first.
    sys.stdin.readline()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        print(json.dumps(_round_trip(options.tool, Path(folder), options)))


def _round_trip(tool: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    host_buffer(options.cap - _PROCESS).fill_(1)
    value = host_buffer(options.size)
    value.random_(0, 256, generator=torch.Generator().manual_seed(0))
    with _way(tool, folder, options) as (write, read):
        start = time.perf_counter()
        for n in range(options.count):
            value[:8].view(torch.int64)[0] = n
            write(n, value)
        written = time.perf_counter()
        for n in range(options.count):
            if int(read(n)[:8].view(torch.int64)[0]) != n:
                raise RuntimeError(f"{tool} gave back another value")
        done = time.perf_counter()
    return {"write": written - start, "read": done - written, "all": done - start}


@contextmanager
def _way(tool: str, folder: Path, options: argparse.Namespace) -> Iterator[Way]:
    if tool == "octavo store":
        with _store(folder, options) as way:
            yield way
        return
    if tool == "octavo disk":
        ledger = Ledger({"disk": 2 * options.count * options.size, "host": 64 * MIB})
        tuning = Tuning(options.block, options.depth, True, 0.0, 0.0)
        with DiskTier(folder, ledger, tuning=tuning) as tier:
            yield _tier(tier, host_buffer(options.size))
        return
    make = _torch if tool == "torch.save" else _memmap
    yield make(folder, options.size, _drop if options.drop else lambda _: None)


def _tier(tier: DiskTier, out_b: torch.Tensor) -> Way:
    extents = {}

    def write(n: int, value_b: torch.Tensor) -> None:
        extents[n] = tier.write(value_b, kind="other", owner="benchmark")

    def read(n: int) -> torch.Tensor:
        tier.read(extents[n], out_b)
        return out_b

    return write, read


@contextmanager
def _store(folder: Path, options: argparse.Namespace) -> Iterator[Way]:
    """Two values' worth of the cap is for the value that is written and the one that is read."""
    budget = options.cap - _PROCESS - 2 * options.size
    with MemoryManager(
        device=3 * options.size,
        host=budget - 3 * options.size,
        disk=(folder, 2 * options.count * options.size),
        on="cpu",
        level="minimal",
    ) as memory:

        def write(n: int, value_b: torch.Tensor) -> None:
            kept = memory.empty(value_b.shape, value_b.dtype)
            kept.copy_(value_b)
            memory[n] = kept
            if n == options.count - 1:
                memory.schedule(range(options.count))

        yield write, memory.__getitem__


def _torch(folder: Path, _: int, dropped: Callable[[Path], None]) -> Way:
    def write(n: int, value_b: torch.Tensor) -> None:
        torch.save(value_b, folder / str(n))
        dropped(folder / str(n))

    def read(n: int) -> torch.Tensor:
        found: torch.Tensor = torch.load(folder / str(n))
        dropped(folder / str(n))
        return found

    return write, read


def _memmap(folder: Path, size: int, dropped: Callable[[Path], None]) -> Way:
    out = np.empty(size, np.uint8)

    def write(n: int, value_b: torch.Tensor) -> None:
        file = np.memmap(folder / str(n), np.uint8, "w+", shape=(size,))
        file[:] = value_b.numpy()
        del file
        dropped(folder / str(n))

    def read(n: int) -> torch.Tensor:
        file = np.memmap(folder / str(n), np.uint8, "r", shape=(size,))
        np.copyto(out, file)
        del file
        dropped(folder / str(n))
        return torch.from_numpy(out)

    return write, read


def _drop(path: Path) -> None:
    fd = os.open(path, os.O_RDWR)
    with contextlib.suppress(AttributeError):  # no posix_fadvise here: the cache stays
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


if __name__ == "__main__":
    main()
