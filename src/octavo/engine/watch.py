"""Memory while the engine runs: how much each phase takes beside what was planned, and whether it
is time to give something up before an allocation fails or the kernel ends the process.

A look costs about ten microseconds, and where limits of the machine are read as well, a hundred;
that is done every 50 ms at most. The highest use between two looks is not missed: the system and
torch's allocator keep it, and what it rose by belongs to the phase that was running.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from octavo.errors import ConfigError
from octavo.memory.readings import MemoryReader, Reading

if TYPE_CHECKING:
    import torch

    from octavo.hardware.plan import Plan

#: Of a limit that is not ours alone, so much stays free: at 4 % the kernel is close to killing.
_SHARED_MARGIN: Final = 25
#: Of the budget, where no plan says what was left free.
_OWN_MARGIN: Final = 100


@dataclass(frozen=True, slots=True)
class Use:
    """Bytes that the process holds of the memory that the budget is about: its resident set, or
    what torch allocated on the device. ``peak`` is the most so far; None is unknown."""

    now: int
    peak: int | None = None


@dataclass(frozen=True, slots=True)
class PhaseUse:
    """The highest use in a phase.

    Attributes:
        name: as in :attr:`octavo.hardware.plan.Plan.phases`.
        measured: bytes. Exact for the phase that set the process's record; for others the most
            that was seen at a look.
        predicted: bytes; None for a phase that was not planned.
    """

    name: str
    measured: int
    predicted: int | None = None

    @property
    def error(self) -> float | None:
        """How far the prediction is above what was measured, as a share of that."""
        if self.predicted is None or not self.measured:
            return None
        return self.predicted / self.measured - 1


class MemoryWatch:
    """Looks at memory on behalf of one loop. Used by one thread.

    Args:
        budget: bytes: of the process on a CPU, of the device elsewhere.
        device: what the budget is of.
        plan: says what phases should take, and how much of the budget stays free.
        margin: bytes under the budget at which it is time; what the plan left free by default.
        interval_s: seconds between looks within a phase.
        use: measures; by default the process or the device.
        read: reads the limits of the machine and of control groups; None does not look at them.
        clock: seconds.

    Attributes:
        pressed: whether use has passed the budget, or a limit of the machine or of a control
            group, less a margin. Stays so until :meth:`relieved`, or until use has fallen.
        looks: how often memory was looked at.
    """

    def __init__(
        self,
        budget: int,
        *,
        device: torch.device | None = None,
        plan: Plan | None = None,
        margin: int | None = None,
        interval_s: float = 0.05,
        use: Callable[[], Use] | None = None,
        read: Callable[[], Reading] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if margin is None:
            margin = plan.reserve if plan is not None and plan.reserve else budget // _OWN_MARGIN
        if not 0 <= margin < budget or interval_s < 0:
            raise ConfigError(
                f"a margin of {margin} of {budget} bytes, looked at every {interval_s} s",
                where="memory watch",
                next_step="choose a margin below the budget, and 0 s or more",
            )
        self._on_device = device is not None and device.type != "cpu"
        self._budget, self._margin = budget, margin
        self._plan = plan
        self._interval_s = interval_s
        self._use = use or (_device_use(device) if device and self._on_device else ProcessUse())
        self._read = read or MemoryReader().read
        self._clock = clock
        self._lines: dict[str, _Line] = {}
        self._peaks: dict[str, int] = {}
        self._phase: str | None = None
        self._due = -1.0
        self._seen = self._use()
        self.pressed = False
        self.looks = 0

    @property
    def used(self) -> int:
        """Bytes at the last look."""
        return self._seen.now

    @property
    def phases(self) -> tuple[PhaseUse, ...]:
        """What each phase took at most, in the order in which they were entered first."""
        planned = {phase.name: phase.nbytes for phase in self._plan.phases} if self._plan else {}
        # On a device only tensors are counted, without what the process takes before them.
        before = self._plan.base if self._plan is not None and self._on_device else 0
        return tuple(
            PhaseUse(name, measured, planned[name] - before if name in planned else None)
            for name, measured in self._peaks.items()
        )

    def enter(self, phase: str) -> bool:
        """Before each step, and wherever the phase changes within one; ``pressed``.

        Within a phase memory is looked at when the interval has passed.
        """
        now = self._clock()
        if phase != self._phase:
            self._look()
            self._phase = phase
        if now >= self._due:
            self._due = now + self._interval_s
            self._look()
            self._judge()
        return self.pressed

    def leave(self) -> None:
        """After the last step: what follows is not the engine's."""
        self._look()
        self._phase = None

    def relieved(self) -> None:
        """Something was given up. If that was not enough, ``pressed`` is set again only when use
        comes closer to the limit, so that caches are not emptied at every look for nothing."""
        self._look()
        for name, limit, used, margin in self._bounds():
            self._line(name, limit, margin).put_off(used)
        self.pressed = False

    def _look(self) -> None:
        """What use rose by since the last look belongs to the phase that was running."""
        before, self._seen = self._seen, self._use()
        self.looks += 1
        if self._phase is None:
            return
        most = max(self._seen.now, self._peaks.get(self._phase, 0))
        peak = self._seen.peak
        if peak is not None and before.peak is not None and peak > before.peak:
            most = max(most, peak)
        self._peaks[self._phase] = most

    def _judge(self) -> None:
        over = [
            self._line(name, limit, margin).is_passed(used)
            for name, limit, used, margin in self._bounds()
        ]
        self.pressed = any(over)

    def _bounds(self) -> Iterator[tuple[str, int, int, int]]:
        """Name, limit, use and margin of all that can run out."""
        yield "budget", self._budget, self._seen.now, self._margin
        reading = self._read()
        for number, bound in enumerate(reading.bounds):
            yield f"bound {number}", bound.limit, bound.used, bound.limit // _SHARED_MARGIN

    def _line(self, name: str, limit: int, margin: int) -> _Line:
        line = self._lines.get(name)
        if line is None or line.limit != limit:
            line = self._lines[name] = _Line(limit, margin)
        return line


@dataclass(slots=True)
class _Line:
    """From where on use is too high."""

    limit: int
    margin: int
    put_off_to: int = 0

    def is_passed(self, used: int) -> bool:
        if used <= self.limit - self.margin:
            self.put_off_to = 0
            return False
        return used > self.put_off_to

    def put_off(self, used: int) -> None:
        """Half of what is left to the limit; over it, a margin more."""
        if used > self.limit - self.margin:
            left = self.limit - used
            self.put_off_to = used + (left // 2 if left > 0 else self.margin)


class ProcessUse:
    """The resident set of this process. Its file stays open: see :class:`MemoryReader`."""

    def __init__(self, path: Path = Path("/proc/self/status")) -> None:
        self._file: int | None = None
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError:
            return  # not Linux
        weakref.finalize(self, os.close, self._file)

    def __call__(self) -> Use:
        rows: dict[str, int] = {}
        if self._file is not None:
            for line in os.pread(self._file, 1 << 14, 0).split(b"\n"):
                if line.startswith((b"VmRSS:", b"VmHWM:")):
                    name, size, *_ = line.split()
                    rows[name.decode()] = int(size) * 1024
        if "VmRSS:" in rows:
            return Use(rows["VmRSS:"], rows.get("VmHWM:"))
        return Use(int(psutil.Process().memory_info().rss))


def _device_use(device: torch.device) -> Callable[[], Use]:
    """What tensors take of a device."""
    import torch

    if device.type == "mps":
        return lambda: Use(torch.mps.current_allocated_memory())
    backend = getattr(torch, device.type)

    def use() -> Use:
        stats = backend.memory_stats(device)
        now = stats.get("allocated_bytes.all.current", 0)
        return Use(now, stats.get("allocated_bytes.all.peak", 0))

    return use
