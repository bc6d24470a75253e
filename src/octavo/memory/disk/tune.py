"""Measures a disk: which block size and how many reads and writes at once it likes."""

from __future__ import annotations

import mmap
import os
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from octavo.errors import ConfigError, LostValue, TierError, TierFull
from octavo.memory.buffers import PAGE, host_buffer, memory_of
from octavo.memory.disk.access import (
    NO_ROOM,
    forget_cached,
    open_file,
    read_at,
    why_not_direct,
    write_at,
)
from octavo.memory.disk.folders import scratch_folder, unusable
from octavo.memory.disk.tuning import DEFAULT, Trial, Tuning, load_tuning, save_tuning
from octavo.memory.sizes import format_bytes

__all__ = ["Trial", "Tuning", "load_tuning", "pick", "save_tuning", "tune"]

_MIB: Final = 1 << 20
_BLOCKS: Final = (1 * _MIB, 2 * _MIB, 4 * _MIB, 8 * _MIB)
_DEPTHS: Final = (1, 2, 4, 8, 16, 32)
#: More than this under way at once is only more memory.
_MOST_UNDER_WAY: Final = 32 * _MIB
#: A trial ends after so many seconds even when it has not been through the whole file.
_TRIAL_S: Final = 0.1
#: No new trial after so many seconds: slow disks are told apart by few.
_ENOUGH_S: Final = 14.0
_ROUNDS: Final = 3
_AREA: Final = 64 * _MIB
#: As good as the best: no disk measures the same twice.
_CLOSE: Final = 0.7

Move = Callable[[int, memoryview, int], int]


def tune(
    folder: Path,
    *,
    total_bytes: int = 256 << 20,
    on_progress: Callable[[str], None] | None = None,
) -> Tuning:
    """Tries block sizes and depths on the disk of ``folder``, in under 20 seconds.

    Args:
        folder: must be there; a temporary file of ``total_bytes`` is made in it, and removed.
        total_bytes: at least 8 MiB. More than the disk's own cache is more truthful.
        on_progress: told what is measured, one line at a time.

    Raises:
        ConfigError: too few bytes.
        TierError: no such folder, or it cannot be written to.
        TierFull: the disk has not so much room.
    """
    total = total_bytes // _BLOCKS[-1] * _BLOCKS[-1]
    if total < _BLOCKS[-1]:
        raise ConfigError(
            f"{total_bytes} bytes are too few to measure with",
            next_step=f"use at least {_BLOCKS[-1]}",
        )
    _check(folder, total)
    tell = on_progress or (lambda _: None)
    own = scratch_folder(folder)
    try:
        note = why_not_direct(own.path)
        memory = _touched(min(_AREA, total))
        with _filled(own.path / "tune", total, direct=note is None, tell=tell) as fd:
            trials = _measured(fd, memory, total, direct=note is None, tell=tell)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise _full(folder, total) from error
        raise unusable(folder, error) from error
    finally:
        own.close(remove=True)
    best = pick(trials)
    return Tuning(
        block=best.block,
        depth=best.depth,
        direct=note is None,
        read_bytes_per_s=best.read_bytes_per_s,
        write_bytes_per_s=best.write_bytes_per_s,
        device=_device(folder),
        note=note,
        measured=tuple(trials),
    )


def pick(trials: Sequence[Trial]) -> Trial:
    """The usual one, unless others are clearly better; then the one of least depth among these.

    Best is what takes a value to the disk and back in the least time. Repeated runs differ by a
    fifth and more where disks are shared. Fewer threads, and then fewer blocks, cost less when
    there is other work.
    """
    most = max(map(_there_and_back, trials))
    close = [trial for trial in trials if _there_and_back(trial) >= _CLOSE * most]
    usual = [one for one in close if (one.block, one.depth) == (DEFAULT.block, DEFAULT.depth)]
    return usual[0] if usual else min(close, key=lambda trial: (trial.depth, -trial.block))


def _there_and_back(trial: Trial) -> float:
    return 1.0 / (1.0 / trial.read_bytes_per_s + 1.0 / trial.write_bytes_per_s)


def _check(folder: Path, total: int) -> None:
    if not folder.is_dir():
        raise TierError("there is no such folder", where=str(folder), next_step="make it first")
    if shutil.disk_usage(folder).free < total:
        raise _full(folder, total)


def _full(folder: Path, total: int) -> TierFull:
    return TierFull(
        f"the disk has not {format_bytes(total)} free to measure with",
        where=str(folder),
        next_step="free room on that disk, or measure with fewer bytes",
    )


@contextmanager
def _filled(path: Path, total: int, *, direct: bool, tell: Callable[[str], None]) -> Iterator[int]:
    """A file of random bytes: disks that compress would else be measured at it."""
    tell(f"writing {format_bytes(total)}")
    fd = open_file(path, direct=direct)
    try:
        with mmap.mmap(-1, _BLOCKS[-1]) as source:
            source[:] = os.urandom(len(source))
            for offset in range(0, total, len(source)):
                _whole(write_at, fd, memoryview(source), offset)
        os.fsync(fd)
        yield fd
    finally:
        os.close(fd)


def _measured(
    fd: int, memory: memoryview, total: int, *, direct: bool, tell: Callable[[str], None]
) -> list[Trial]:
    most = min(_MOST_UNDER_WAY, total)
    pairs = [(block, depth) for block in _BLOCKS for depth in _DEPTHS if block * depth <= most]
    rates: dict[tuple[int, int], list[tuple[float, float]]] = {}
    end = time.perf_counter() + _ENOUGH_S
    for turn in range(_ROUNDS):
        # There and back: a disk that slows down meanwhile (heat, a limit on bursts) is then
        # unjust to no pair.
        for pair in reversed(pairs) if turn % 2 else pairs:
            if rates and time.perf_counter() > end:
                break
            write = _rate(write_at, fd, memory, total, *pair, direct)
            read = _rate(read_at, fd, memory, total, *pair, direct)
            rates.setdefault(pair, []).append((read, write))
            tell(_said(*pair, read, write))
    return [
        Trial(*pair, *(statistics.median(way) for way in zip(*found, strict=True)))
        for pair, found in rates.items()
    ]


def _said(block: int, depth: int, read: float, write: float) -> str:
    return (
        f"{block // _MIB} MiB, {depth} at once: reads {format_bytes(read)}/s, "
        f"writes {format_bytes(write)}/s"
    )


def _rate(
    move: Move, fd: int, memory: memoryview, total: int, block: int, depth: int, direct: bool
) -> float:
    """Bytes per second, to and from more memory than a processor's cache holds: as values are."""
    ready = threading.Barrier(depth + 1)

    def work(number: int) -> int:
        done = 0
        ready.wait()
        for offset in range(number * block, total - block + 1, depth * block):
            if done and time.perf_counter() - start > _TRIAL_S:
                break
            place = offset % (len(memory) - block + 1) // PAGE * PAGE
            _whole(move, fd, memory[place : place + block], offset)
            if not direct:
                forget_cached(fd, offset, block)
            done += block
        return done

    with ThreadPoolExecutor(depth) as pool:
        workers = [pool.submit(work, number) for number in range(depth)]
        start = time.perf_counter()
        ready.wait()
        moved = sum(worker.result() for worker in workers)
        return moved / (time.perf_counter() - start)


def _touched(nbytes: int) -> memoryview:
    """Memory in whole pages; what was never touched would be measured as well."""
    area_b = host_buffer(nbytes)
    area_b.fill_(1)
    return memory_of(area_b)


def _whole(move: Move, fd: int, view: memoryview, offset: int) -> None:
    done = 0
    while done < len(view):
        got = move(fd, view[done:], offset + done)
        if got <= 0:
            raise LostValue("the file ended while it was measured", next_step="measure again")
        done += got


def _device(folder: Path) -> str | None:
    """The kernel's name of the disk, such as ``nvme0n1p2``."""
    if sys.platform != "linux":
        return None
    number = folder.stat().st_dev
    with suppress(OSError):
        found = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve(strict=True)
        return found.name
    return None
