"""Readings of drawn trees, and of this machine."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import psutil
import pytest

from octavo.memory.readings import Bound, MemoryReader, Reading, pressure_file, read_memory
from tests.memory.trees import MIB, draw, group_v1, group_v2, machine, stalls


def test_machine(tmp_path: Path) -> None:
    reading = read_memory(draw(tmp_path, machine(1000 * MIB, 400 * MIB)))
    assert reading.bounds == (Bound(1000 * MIB, 600 * MIB),)
    assert reading.bounds[0].share == 0.6
    assert reading.bounds[0].free == 400 * MIB
    assert reading.psi_some_avg10 is None
    assert reading.limit_hits is None


def test_without_proc_psutil_is_asked(tmp_path: Path) -> None:
    (bound,) = read_memory(tmp_path).bounds
    assert bound.limit == psutil.virtual_memory().total
    assert 0 < bound.used < bound.limit


def test_damaged_files_are_unknown(tmp_path: Path) -> None:
    files = machine(1000 * MIB, 400 * MIB) | group_v2("job", "many", 1)
    files["sys/fs/cgroup/job/memory.pressure"] = "some avg10=high\n"
    reading = read_memory(draw(tmp_path, files))
    assert len(reading.bounds) == 1
    assert reading.psi_some_avg10 is None


@pytest.mark.parametrize("group", [group_v1, group_v2])
def test_groups_leave_the_cache_out(tmp_path: Path, group) -> None:
    files = group("a/job", 100 * MIB, 90 * MIB, cache=30 * MIB)
    assert read_memory(draw(tmp_path, files)).groups == (Bound(100 * MIB, 60 * MIB),)


def test_group_above_and_soft_limit(tmp_path: Path) -> None:
    files = group_v2("a", 200 * MIB, 150 * MIB) | group_v2("a/job", "max", 90 * MIB)
    files["sys/fs/cgroup/a/job/memory.high"] = f"{95 * MIB}\n"
    reading = read_memory(draw(tmp_path, machine(1000 * MIB, 900 * MIB) | files))
    assert reading.groups == (Bound(95 * MIB, 90 * MIB), Bound(200 * MIB, 150 * MIB))


def test_stalls_of_the_group_go_before_those_of_the_machine(tmp_path: Path) -> None:
    draw(tmp_path, group_v2("job", "max", 1) | {"proc/pressure/memory": stalls(1.5)})
    assert read_memory(tmp_path).psi_some_avg10 == 1.5
    assert pressure_file(tmp_path) == tmp_path / "proc/pressure/memory"
    draw(tmp_path, {"sys/fs/cgroup/job/memory.pressure": stalls(20.25)})
    assert read_memory(tmp_path).psi_some_avg10 == 20.25


def test_no_limit_is_no_bound(tmp_path: Path) -> None:
    """Version 1 writes the largest multiple of a page where there is no limit."""
    root = draw(tmp_path, group_v1("job", 2**63 - 4096, 90 * MIB))
    assert read_memory(root).groups == ()


def test_only_some_stalls_count(tmp_path: Path) -> None:
    draw(tmp_path, {"proc/pressure/memory": "full avg10=9.00 avg60=0.00 total=0\n"})
    assert read_memory(tmp_path).psi_some_avg10 is None


def test_hits_of_limits(tmp_path: Path) -> None:
    draw(tmp_path, group_v2("job", 100, 1))
    draw(tmp_path, {"sys/fs/cgroup/job/memory.events": "low 9\nhigh 2\nmax 3\noom 1\noom_kill 9\n"})
    assert read_memory(tmp_path).limit_hits == 6
    other = draw(tmp_path / "v1", group_v1("job", 100, 1))
    draw(other, {"sys/fs/cgroup/memory/job/memory.failcnt": "7\n"})
    assert read_memory(other).limit_hits == 7


def test_a_limit_of_nothing_is_full() -> None:
    assert Bound(0, 0).share == 1.0


def test_a_reader_sees_changes_and_outlives_its_group(tmp_path: Path) -> None:
    draw(tmp_path, machine(1000, 1000) | group_v2("job", "max", 7))
    reader = MemoryReader(tmp_path)
    assert reader.read().groups == ()
    draw(tmp_path, group_v2("job", 100, 8))
    assert reader.read().groups == (Bound(100, 8),)
    shutil.rmtree(tmp_path / "sys")
    assert isinstance(reader.read(), Reading)


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files")
def test_a_reader_leaves_no_file_open(tmp_path: Path) -> None:
    draw(tmp_path, machine(1000, 1000) | group_v2("job", 100, 7))
    before = len(os.listdir("/proc/self/fd"))
    reader = MemoryReader(tmp_path)
    assert reader.read().groups
    assert len(os.listdir("/proc/self/fd")) > before
    del reader
    assert len(os.listdir("/proc/self/fd")) == before


def test_this_machine() -> None:
    bounds = read_memory().bounds
    assert bounds
    assert all(bound.limit > 0 and bound.used >= 0 for bound in bounds)
