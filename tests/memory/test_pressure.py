"""Decisions by hand-made readings, the monitor over drawn trees, and one real kill."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from octavo.errors import ConfigError, TierFull
from octavo.memory import pressure
from octavo.memory.pressure import Hysteresis, Pressure, PressureMonitor, Thresholds
from octavo.memory.readings import Bound, Reading
from tests.memory.trees import MIB, draw, group_v1, group_v2, machine, stalls

GIVEN = Thresholds(low=0.5, high=0.75, critical=0.9, stalled=10.0, calm=3)


def reading(percent: float, psi: float | None = None, hits: int | None = None) -> Reading:
    return Reading(Bound(10**9, 1), (Bound(1000, int(percent * 10)),), psi, hits)


def levels(*readings: Reading | float) -> list[str]:
    decider = Hysteresis(GIVEN)
    given = [each if isinstance(each, Reading) else reading(each) for each in readings]
    return [decider.decide(each).level for each in given]


def test_up_at_once() -> None:
    assert levels(10, 74.9, 75, 89, 90) == ["none", "none", "some", "some", "critical"]
    assert levels(95) == ["critical"]


def test_down_only_after_a_calm_while() -> None:
    assert levels(80, 40, 40, 40) == ["some", "some", "some", "none"]
    assert levels(80, 40, 40, 55, 40, 40, 40) == ["some"] * 6 + ["none"], "not in a row"
    assert levels(80, *[50] * 9) == ["some"] * 10, "low itself is not under low"
    assert levels(80, 40, 40, 80, 40, 40, 40) == ["some"] * 6 + ["none"]


def test_critical_goes_down_by_one_level() -> None:
    assert levels(95, 60, 60, 60, 60, 60) == ["critical"] * 3 + ["some"] * 3
    assert levels(95, *[10] * 6) == ["critical"] * 3 + ["some"] * 3 + ["none"]
    assert levels(95, *[80] * 6) == ["critical"] * 7, "80 is not under high"


def test_stalls_count_only_above_low() -> None:
    assert levels(reading(60, psi=9.9), reading(60, psi=10.0)) == ["none", "some"]
    assert levels(reading(49, psi=99.0)) == ["none"]


def test_hits_of_a_limit_count_only_when_new_and_above_low() -> None:
    assert levels(reading(60, hits=5), reading(60, hits=5), reading(60, hits=6)) == [
        "none",
        "none",
        "some",
    ]
    assert levels(reading(40, hits=5), reading(40, hits=9)) == ["none", "none"]
    assert levels(reading(60), reading(60, hits=9)) == ["none", "none"], "first seen is no news"


def test_wanted_bytes_lead_back_under_low() -> None:
    decided = Hysteresis(GIVEN).decide(reading(80, psi=1.0))
    assert decided == Pressure("some", 200, 1000, 1.0, 300)
    assert Hysteresis(GIVEN).decide(reading(40)).wanted_bytes == 0


def test_the_nearest_bound_decides_and_the_largest_want_is_told() -> None:
    found = Hysteresis(GIVEN).decide(Reading(Bound(100, 80), (Bound(10_000, 7_000),)))
    assert found == Pressure("some", 20, 100, None, 2_000)


@pytest.mark.parametrize(
    "wrong", [{"low": 0.95}, {"high": 0.99}, {"critical": 1.1}, {"low": 0.0}, {"calm": 0}]
)
def test_wrong_thresholds_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Thresholds(**wrong)  # type: ignore[arg-type]


def test_wrong_interval_is_refused() -> None:
    with pytest.raises(ConfigError, match="interval_s is 0"):
        PressureMonitor(print, interval_s=0)


class Scripted:
    """Gives the readings one after another, the last again and again."""

    def __init__(self, *percents: float) -> None:
        self.left = [reading(percent) for percent in percents]

    def __call__(self) -> Reading:
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]


def test_calls_on_change_and_while_bytes_are_wanted() -> None:
    told: list[tuple[str, int]] = []
    monitor = PressureMonitor(
        lambda now: told.append((now.level, now.wanted_bytes)),
        thresholds=GIVEN,
        read=Scripted(10, 80, 60, 40, 40, 40, 40),
    )
    for _ in range(7):
        monitor.step()
    assert told == [("some", 300), ("some", 100), ("none", 0)]
    assert monitor.pressure is not None
    assert monitor.pressure.level == "none"


@pytest.mark.parametrize("error", [TierFull("full"), MemoryError()])
def test_an_error_of_the_callback_is_kept(error: Exception) -> None:
    calls = []

    def fail(now: Pressure) -> None:
        calls.append(now)
        raise error

    monitor = PressureMonitor(fail, thresholds=GIVEN, read=Scripted(80))
    monitor.step()
    assert monitor.step().level == "some"
    assert monitor.error is error
    assert len(calls) == 2


def test_a_bug_in_the_callback_is_loud() -> None:
    def fail(now: Pressure) -> None:
        raise ZeroDivisionError

    monitor = PressureMonitor(fail, thresholds=GIVEN, read=Scripted(80))
    with pytest.raises(ZeroDivisionError):
        monitor.step()
    assert isinstance(monitor.error, ZeroDivisionError)


@pytest.mark.parametrize("group", [group_v1, group_v2])
def test_watches_a_control_group(tmp_path: Path, group) -> None:
    told: list[Pressure] = []
    files = machine(1000 * MIB, 900 * MIB)
    files |= {"proc/pressure/memory": stalls(3)}
    draw(tmp_path, files | group("job", 100 * MIB, 40 * MIB))
    monitor = PressureMonitor(told.append, thresholds=GIVEN, root=tmp_path)
    monitor.step()
    draw(tmp_path, group("job", 100 * MIB, 80 * MIB, cache=30 * MIB))
    monitor.step()
    assert told == []
    draw(tmp_path, group("job", 100 * MIB, 80 * MIB))
    monitor.step()
    assert told == [Pressure("some", 20 * MIB, 100 * MIB, 3.0, 30 * MIB)]


def test_the_thread_steps_and_stops() -> None:
    """Without a trigger and with one; an error of the callback ends neither."""
    for root in (Path("/nowhere"), Path("/")):
        enough = threading.Event()
        calls = []

        def count(now: Pressure, enough: threading.Event = enough, calls: list = calls) -> None:
            calls.append(now)
            if len(calls) >= 5:
                enough.set()
            raise TierFull("full")

        with PressureMonitor(
            count, interval_s=0.001, thresholds=GIVEN, root=root, read=Scripted(80)
        ) as monitor:
            assert enough.wait(30)
        after = len(calls)
        assert not monitor.triggered or root == Path("/")
        assert isinstance(monitor.error, TierFull)
        assert "octavo-pressure" not in {thread.name for thread in threading.enumerate()}
        assert len(calls) == after
        monitor.stop()


def test_the_callback_may_stop_the_monitor() -> None:
    stopped = threading.Event()

    def stop(now: Pressure) -> None:
        monitor.stop()
        stopped.set()

    monitor = PressureMonitor(stop, interval_s=60, thresholds=GIVEN, read=Scripted(80))
    monitor.start()
    monitor.start()
    assert stopped.wait(30)


def test_stop_does_not_wait_for_the_interval() -> None:
    read_once = threading.Event()

    def read() -> Reading:
        read_once.set()
        return reading(10)

    monitor = PressureMonitor(print, interval_s=3600, read=read)
    monitor.start()
    assert read_once.wait(30)
    monitor.stop()
    monitor.start()
    monitor.stop()


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(sys.platform != "linux", reason="triggers are Linux's")
def test_a_vanished_trigger_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that nobody reads polls with an error, as a removed control group does."""
    before = open_files()
    hear, speak = os.pipe()
    os.close(hear)
    monkeypatch.setattr(pressure, "_open_trigger", lambda _: speak)
    bell = pressure._Bell(Path("/"))
    assert bell.triggered
    assert not bell.wait(60), "woken by the error"
    assert not bell.triggered
    assert not bell.wait(0.001)
    bell.ring()
    assert bell.wait(60)
    bell.close()
    bell.ring()
    assert open_files() == before


@pytest.mark.skipif(sys.platform != "linux", reason="triggers are Linux's")
def test_a_trigger_wakes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Urgent data on a socket polls as a trigger does."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
        monkeypatch.setattr(pressure, "_open_trigger", lambda _: ours.detach())
        bell = pressure._Bell(Path("/"))
        theirs.send(b"!", socket.MSG_OOB)
        assert not bell.wait(3600)
        bell.close()
        theirs.close()


def test_no_trigger_on_plain_files_or_without_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = draw(tmp_path, {"proc/pressure/memory": stalls(0)}) / "proc/pressure/memory"
    assert pressure._open_trigger(tmp_path) is None
    assert path.read_text() == stalls(0)
    monkeypatch.setattr(pressure, "pressure_file", lambda _: Path("/proc/self/status"))
    before = open_files() if sys.platform == "linux" else 0
    assert pressure._open_trigger(Path("/")) is None, "opens, but cannot be written"
    monkeypatch.setattr(pressure, "pressure_file", lambda _: Path("/proc/self/none"))
    assert pressure._open_trigger(Path("/")) is None
    if sys.platform == "linux":
        assert open_files() == before


def test_the_kernel_takes_the_trigger_where_it_permits() -> None:
    file = pressure._open_trigger(Path("/"))
    if file is None:
        pytest.skip("no pressure stall triggers here")
    try:
        poll = select.poll()
        poll.register(file, select.POLLPRI)
        assert all(not event & select.POLLERR for _, event in poll.poll(0))
    finally:
        os.close(file)


# The proof: the monitor acts before the kernel does.

LIMIT = 640 * MIB
PIECES = 2 * LIMIT // MIB
FILL = """
import mmap, os, sys, threading
from pathlib import Path
from octavo.memory.pressure import PressureMonitor, Thresholds

Path(sys.argv[1]).write_text("0")
MIB, pieces, watched = 1 << 20, int(sys.argv[2]), sys.argv[3] == "watched"
cache, lock, given_up = [], threading.Lock(), 0

def give_up(now):
    global given_up
    with lock:
        for _ in range(min(-(-now.wanted_bytes // MIB), len(cache))):
            cache.pop().close()
            given_up += 1

monitor = PressureMonitor(give_up, interval_s=0.005, thresholds=Thresholds(0.5, 0.6, 0.9))
if watched:
    monitor.start()
zeros = os.open("/dev/zero", os.O_RDONLY)
for _ in range(pieces):
    piece = mmap.mmap(-1, MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    os.readv(zeros, [piece])
    with lock:
        cache.append(piece)
monitor.stop()
print(given_up, len(cache))
"""


@pytest.fixture
def limited_group() -> Iterator[Path]:
    """The ``cgroup.procs`` of a new memory group of ``LIMIT`` bytes, below our own."""
    above = own_memory_group()
    if above is None:
        pytest.skip("no memory control group that we may divide")
    group = above / f"octavo-test-{uuid.uuid4().hex}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"cannot make a memory control group: {error}")
    try:
        if not limit_group(group):
            pytest.skip("cannot limit a memory control group")
        yield group / "cgroup.procs"
    finally:
        group.rmdir()


def own_memory_group() -> Path | None:
    path = Path("/proc/self/cgroup")
    lines = path.read_text().splitlines() if path.exists() else []
    base = Path("/sys/fs/cgroup")
    for line in lines:
        number, controllers, own = line.split(":", 2)
        if controllers == "memory":
            found = base / "memory" / own.lstrip("/")
        elif number == "0" and (base / "cgroup.controllers").exists():
            found = base / own.lstrip("/")
        else:
            continue
        return found if found.is_dir() else None
    return None


def limit_group(group: Path) -> bool:
    """Limits memory and, where it can be limited, swap."""
    names = ("memory.limit_in_bytes", "memory.max")
    limit = next((group / name for name in names if (group / name).exists()), None)
    if limit is None:
        return False
    try:
        limit.write_text(str(LIMIT))
        for name, value in (
            ("memory.memsw.limit_in_bytes", str(LIMIT)),
            ("memory.swap.max", "0"),
        ):
            if (group / name).exists():
                (group / name).write_text(value)
    except OSError:
        return False
    return True


def fill(group: Path, mode: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", FILL, str(group), str(PIECES), mode],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_acts_before_the_kernel_does(limited_group: Path) -> None:
    watched = fill(limited_group, "watched")
    assert watched.returncode == 0, watched.stderr
    given_up, kept = map(int, watched.stdout.split())
    assert given_up + kept == PIECES
    assert kept < LIMIT // MIB
    unwatched = fill(limited_group, "unwatched")
    assert unwatched.returncode == -9, "without a monitor the kernel kills"
