"""Gives memory up before the kernel takes it.

Three parts: :mod:`octavo.memory.readings` reads, :class:`Hysteresis` decides and knows neither
files nor clocks, :class:`PressureMonitor` does both again and again in a thread. Where the
kernel permits, a pressure stall trigger (Documentation/accounting/psi.rst) wakes the thread at
once; the interval stands in for it elsewhere.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from octavo.errors import ConfigError, OctavoError
from octavo.memory.readings import MemoryReader, Reading, pressure_file

Level = Literal["none", "some", "critical"]
_ORDER: tuple[Level, ...] = ("none", "some", "critical")

#: Wake when tasks have waited 100 ms for memory within 2 s: the shortest window that a process
#: without privileges may ask for.
_TRIGGER = b"some 100000 2000000\0"


@dataclass(frozen=True, slots=True)
class Pressure:
    """How short memory is; all sizes in bytes.

    Attributes:
        level: ``none``, ``some`` (give up what is cheap) or ``critical`` (give up all you can).
        available_bytes, limit_bytes: of the bound that is nearest.
        psi_some_avg10: percent of the last 10 s in which some task waited for memory, if known.
        wanted_bytes: to give up so that every bound is under ``low`` again.
    """

    level: Level
    available_bytes: int
    limit_bytes: int
    psi_some_avg10: float | None
    wanted_bytes: int


@dataclass(frozen=True, slots=True)
class Thresholds:
    """When levels change.

    Attributes:
        low: share of a bound that is used, under which memory is not short.
        high: from here on the level is ``some``.
        critical: from here on the level is ``critical``.
        stalled: percent of time that tasks waited for memory, from which the level is ``some``
            although ``high`` is not reached.
        calm: readings in a row that it takes to go down a level.
    """

    low: float = 0.80
    high: float = 0.90
    critical: float = 0.96
    stalled: float = 10.0
    calm: int = 4

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high < self.critical <= 1:
            raise ConfigError(
                f"low {self.low}, high {self.high} and critical {self.critical} do not rise",
                where="memory pressure",
                next_step="choose 0 < low < high < critical <= 1",
            )
        if self.calm < 1:
            raise ConfigError(
                f"calm is {self.calm}", where="memory pressure", next_step="choose at least 1"
            )


class Hysteresis:
    """Turns readings into levels: up at once, down only after a calm while.

    Stalls and hits of a limit count only while a bound is used above ``low``: below, they come
    from the page cache or from other programs, and giving bytes up would not end them.
    """

    def __init__(self, thresholds: Thresholds) -> None:
        self._thresholds = thresholds
        self._level = 0
        self._calm = 0
        self._hits: int | None = None

    def decide(self, reading: Reading) -> Pressure:
        """The pressure now, given this reading and those before."""
        nearest = max(reading.bounds, key=lambda bound: bound.share)
        now = self._reached(nearest.share, reading)
        if now >= self._level:
            self._level, self._calm = now, 0
        elif nearest.share < self._line_below():
            self._calm += 1
            if self._calm >= self._thresholds.calm:
                self._level, self._calm = self._level - 1, 0
        else:
            self._calm = 0
        low = self._thresholds.low
        return Pressure(
            level=_ORDER[self._level],
            available_bytes=nearest.free,
            limit_bytes=nearest.limit,
            psi_some_avg10=reading.psi_some_avg10,
            wanted_bytes=max(0, *(bound.used - int(low * bound.limit) for bound in reading.bounds)),
        )

    def _reached(self, share: float, reading: Reading) -> int:
        """The level that this reading alone would have, as its place in the order."""
        before, self._hits = self._hits, reading.limit_hits
        limits = self._thresholds
        if share >= limits.critical:
            return 2
        hit = before is not None and reading.limit_hits is not None and reading.limit_hits > before
        stalled = (reading.psi_some_avg10 or 0.0) >= limits.stalled
        return int(share >= limits.high or (share >= limits.low and (hit or stalled)))

    def _line_below(self) -> float:
        """The share under which this level calms down."""
        return self._thresholds.high if self._level == 2 else self._thresholds.low


class PressureMonitor:
    """Calls ``on_pressure`` when the level changes, and at every reading while bytes are wanted.

    The callback runs in the monitor's thread. An ``OctavoError`` or ``MemoryError`` from it is
    kept in ``error`` and the watch goes on; anything else is a bug: it is kept too, and ends the
    thread loudly.

    Args:
        on_pressure: gives up ``wanted_bytes`` if it can.
        interval_s: seconds between readings; a trigger adds readings, it spares none.
        thresholds: when levels change.
        root: where ``proc`` and ``sys`` are mounted.
        read: takes a reading; that of a :class:`octavo.memory.readings.MemoryReader` by default.
    """

    def __init__(
        self,
        on_pressure: Callable[[Pressure], object],
        *,
        interval_s: float = 0.1,
        thresholds: Thresholds | None = None,
        root: Path = Path("/"),
        read: Callable[[], Reading] | None = None,
    ) -> None:
        if not interval_s > 0:
            raise ConfigError(
                f"interval_s is {interval_s}", where="memory pressure", next_step="choose above 0"
            )
        self._on_pressure = on_pressure
        self._interval_s = interval_s
        self._root = root
        self._read = read or MemoryReader(root).read
        self._hysteresis = Hysteresis(thresholds or Thresholds())
        self._stepping = threading.Lock()
        self._thread: threading.Thread | None = None
        self._bell: _Bell | None = None
        #: The latest; None before the first reading.
        self.pressure: Pressure | None = None
        #: The latest that the callback raised.
        self.error: BaseException | None = None

    @property
    def triggered(self) -> bool:
        """Whether the kernel wakes the thread by itself; False before :meth:`start`."""
        return self._bell is not None and self._bell.triggered

    def step(self) -> Pressure:
        """Reads, decides and calls back once. The thread does nothing else."""
        with self._stepping:
            before = self.pressure.level if self.pressure else "none"
            now = self.pressure = self._hysteresis.decide(self._read())
            if now.level != before or (now.level != "none" and now.wanted_bytes):
                self._call(now)
            return now

    def start(self) -> None:
        """Begins to watch; does nothing when it already does."""
        if self._thread is None or not self._thread.is_alive():
            self._bell = _Bell(self._root)
            self._thread = threading.Thread(
                target=self._watch, args=(self._bell,), name="octavo-pressure", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Ends the watch and waits for a callback under way. The callback itself may call it."""
        thread, self._thread = self._thread, None
        if thread is None or self._bell is None:
            return
        self._bell.ring()
        if thread is not threading.current_thread():
            thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _watch(self, bell: _Bell) -> None:
        try:
            self.step()
            while not bell.wait(self._interval_s):
                self.step()
        finally:
            bell.close()

    def _call(self, now: Pressure) -> None:
        try:
            self._on_pressure(now)
        except (OctavoError, MemoryError) as error:
            self.error = error
        except BaseException as error:
            self.error = error
            raise


class _Bell:
    """Sleeps until the time is over, the kernel reports stalls, or somebody rings."""

    def __init__(self, root: Path) -> None:
        self._rung = threading.Event()
        #: Held to ring and to close: a closed number may soon be another file's.
        self._lock = threading.Lock()
        self._trigger = _open_trigger(root)
        self._pipe: tuple[int, int] | None = None
        if self._trigger is not None:
            self._pipe = os.pipe()
            self._poll = select.poll()
            self._poll.register(self._pipe[0], select.POLLIN)
            self._poll.register(self._trigger, select.POLLPRI)

    @property
    def triggered(self) -> bool:
        return self._trigger is not None

    def wait(self, seconds: float) -> bool:
        """Whether somebody rang."""
        if self._pipe is None:
            return self._rung.wait(seconds)
        for file, event in self._poll.poll(seconds * 1000):
            if file == self._trigger and event & select.POLLERR:
                # The control group is gone; a file in error would wake without end.
                self._poll.unregister(file)
                self._close_trigger()
        return self._rung.is_set()

    def ring(self) -> None:
        self._rung.set()
        with self._lock:
            if self._pipe is not None:
                os.write(self._pipe[1], b"!")

    def close(self) -> None:
        with self._lock:
            pipe, self._pipe = self._pipe, None
            for file in pipe or ():
                os.close(file)
            self._close_trigger()

    def _close_trigger(self) -> None:
        trigger, self._trigger = self._trigger, None
        if trigger is not None:
            os.close(trigger)


def _open_trigger(root: Path) -> int | None:
    """A file that polls ready when tasks stall for memory; None where that is not permitted."""
    path = pressure_file(root) if sys.platform == "linux" else None
    # Elsewhere it would be a plain file, and writing would change it.
    if path is None or path.parts[1] not in ("proc", "sys"):
        return None
    try:
        file = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        os.write(file, _TRIGGER)
    except OSError:
        os.close(file)
        return None
    return file
