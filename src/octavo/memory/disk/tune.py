"""Measures a disk: which block size and how many reads and writes at once it likes."""

from __future__ import annotations

import mmap
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from octavo.errors import LostValue, TierError, TierFull
from octavo.memory.disk.access import (
    NO_ROOM,
    forget_cached,
    open_file,
    read_at,
    why_not_direct,
    write_at,
)
from octavo.memory.disk.folders import scratch_folder, unusable
from octavo.memory.disk.tuning import Trial, Tuning, load_tuning, save_tuning
from octavo.memory.sizes import format_bytes

__all__ = ["Trial", "Tuning", "load_tuning", "pick", "save_tuning", "tune"]

_MIB: Final = 1 << 20
_BLOCKS: Final = (1 * _MIB, 2 * _MIB, 4 * _MIB, 8 * _MIB)
_DEPTHS: Final = (1, 2, 4, 8, 16, 32)
#: More than this under way at once is only more memory.
_MOST_UNDER_WAY: Final = 32 * _MIB
#: A trial ends after so many seconds even when it has not been through the whole file.
_TRIAL_S: Final = 0.15
#: No new trial after so many seconds: slow disks are told apart by few.
_ENOUGH_S: Final = 14.0
_ROUNDS: Final = 2
#: As good as the best: no disk measures the same twice.
_CLOSE: Final = 0.95

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
        TierError: no such folder, or it cannot be written to.
        TierFull: the disk has not so much room.
    """
    total = total_bytes // _BLOCKS[-1] * _BLOCKS[-1]
    if total < _BLOCKS[-1]:
        raise ValueError(f"{total_bytes} bytes are too few: at least {_BLOCKS[-1]}")
    _check(folder, total)
    tell = on_progress or (lambda _: None)
    own = scratch_folder(folder)
    try:
        note = why_not_direct(own.path)
        with _filled(own.path / "tune", total, direct=note is None, tell=tell) as fd:
            trials = _measured(fd, total, direct=note is None, tell=tell)
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
    """Of those within 5 % of the best the one of least depth, then of the largest block.

    Best is what takes a value to the disk and back in the least time. Repeated runs differ by a
    few per cent; fewer threads and fewer blocks cost less when there is other work.
    """
    most = max(map(_there_and_back, trials))
    close = [trial for trial in trials if _there_and_back(trial) >= _CLOSE * most]
    return min(close, key=lambda trial: (trial.depth, -trial.block))


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


def _measured(fd: int, total: int, *, direct: bool, tell: Callable[[str], None]) -> list[Trial]:
    trials: list[Trial] = []
    end = time.perf_counter() + _ENOUGH_S
    for block in _BLOCKS:
        for depth in _DEPTHS:
            late = bool(trials) and time.perf_counter() > end
            if late or block * depth > min(_MOST_UNDER_WAY, total):
                continue
            write = max(_rate(write_at, fd, total, block, depth, direct) for _ in range(_ROUNDS))
            read = max(_rate(read_at, fd, total, block, depth, direct) for _ in range(_ROUNDS))
            trials.append(Trial(block, depth, read, write))
            tell(
                f"{block // _MIB} MiB, {depth} at once: reads {format_bytes(read)}/s, "
                f"writes {format_bytes(write)}/s"
            )
    return trials


def _rate(move: Move, fd: int, total: int, block: int, depth: int, direct: bool) -> float:
    """Bytes per second."""
    areas = [mmap.mmap(-1, block) for _ in range(depth)]
    for area in areas:
        # Memory that was never touched would be measured as well.
        area[:] = os.urandom(4096) * (block // 4096)
    ready = threading.Barrier(depth + 1)

    def work(number: int) -> int:
        done = 0
        with memoryview(areas[number]) as view:
            ready.wait()
            for offset in range(number * block, total - block + 1, depth * block):
                if done and time.perf_counter() - start > _TRIAL_S:
                    break
                _whole(move, fd, view, offset)
                if not direct:
                    forget_cached(fd, offset, block)
                done += block
        return done

    with ThreadPoolExecutor(depth) as pool:
        workers = [pool.submit(work, number) for number in range(depth)]
        start = time.perf_counter()
        ready.wait()
        moved = sum(worker.result() for worker in workers)
        rate = moved / (time.perf_counter() - start)
    for area in areas:
        area.close()
    return rate


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
