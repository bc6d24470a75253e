"""Rates: measured for real on small amounts, kept, and not taken for another machine's."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import sys
import types
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from octavo.errors import OutputError, SourceNotFound
from octavo.hardware import Memory, bandwidth, disk_rate, probe, rates
from octavo.hardware.bandwidth import (
    Bandwidth,
    load_measured,
    machine_facts,
    measure,
    save_measured,
)
from octavo.hardware.disk_rate import DiskRate
from octavo.hardware.disks import DiskKind, disk_identity
from octavo.hardware.home import octavo_home
from octavo.hardware.rates import DeviceRate

MIB = 1 << 20
Usage = namedtuple("Usage", "total used free")

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="direct reads are Linux's")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "home"
    place.mkdir()
    monkeypatch.setenv("OCTAVO_HOME", str(place))
    return place


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small amounts and short times: what is tested is not how fast this machine is."""
    real = disk_rate.disk_rate
    monkeypatch.setattr(
        bandwidth, "disk_rate", lambda folder: real(folder, seconds=0.2, most=16 * MIB)
    )
    monkeypatch.setattr(
        bandwidth, "copy_rate", lambda threads: rates.copy_rate(threads, seconds=0.02, nbytes=MIB)
    )


def drawn(folder: Path, **changes: Any) -> Bandwidth:
    found = Bandwidth(
        machine_facts(probe(folder)),
        disk_identity(folder),
        DiskKind.SSD,
        DiskRate(1e9, True, 1 << 30),
        2,
        5e9,
        8e9,
        {"fp32": 1e11},
        (DeviceRate("Drawn", 1e10, 2e10, {"bf16": 1e14}),),
        1.0,
        ("a note",),
    )
    return dataclasses.replace(found, **changes)


def test_home(monkeypatch: pytest.MonkeyPatch) -> None:
    assert octavo_home({"OCTAVO_HOME": "/o", "XDG_CACHE_HOME": "/x"}) == Path("/o")
    assert octavo_home({"XDG_CACHE_HOME": "/x"}) == Path("/x/octavo")
    assert octavo_home({"OCTAVO_HOME": ""}) == Path.home() / ".cache" / "octavo"
    assert octavo_home({"OCTAVO_HOME": "~/o"}) == Path.home() / "o"
    monkeypatch.setattr(sys, "platform", "win32")
    assert octavo_home({"LOCALAPPDATA": "/local"}) == Path("/local/octavo")


def test_measures_and_leaves_nothing(home: Path, quick: None) -> None:
    told: list[str] = []
    found = measure(home, with_torch=False, on_progress=told.append)
    assert found.copy_one is not None
    assert found.copy_one > 0
    assert found.disk.nbytes == 16 * MIB
    assert found.disk.read_bytes_per_s is not None
    assert found.products == {}
    assert found.devices == ()
    assert list(home.iterdir()) == []
    assert told == ["reading from the disk", "copying memory"]


def test_products_in_two_precisions() -> None:
    torch = pytest.importorskip("torch")
    found = rates.product_rates(torch, seconds=0.01)
    assert set(found) == {"fp32", "bf16"}
    assert min(found.values()) > 1e6


def test_without_torch_or_with_a_broken_one(
    home: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bandwidth, "installed", lambda _: False)
    assert measure(home).notes == ("torch is not installed: no products measured",)
    monkeypatch.setattr(bandwidth, "installed", lambda _: True)

    def broken(name: str) -> None:
        raise OSError("libc10.so")

    monkeypatch.setattr(bandwidth.importlib, "import_module", broken)
    assert measure(home).notes == ("torch does not load: libc10.so",)


def test_a_device_that_refuses_is_a_note(
    home: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(torch: object) -> None:
        raise RuntimeError("CUDA out of memory\nmore")

    monkeypatch.setattr(bandwidth, "device_rates", full)
    monkeypatch.setattr(bandwidth, "product_rates", lambda _: {"fp32": 1.0})
    found = measure(home)
    assert found.products == {"fp32": 1.0}
    assert found.notes == ("devices not measured: CUDA out of memory",)


def test_too_little_memory_is_not_measured(home: Path, quick: None) -> None:
    machine = probe(home)
    for available, notes in (
        (10 * MIB, ("too little memory is free to measure how fast it is copied",)),
        (600 * MIB, ("memory for 1 of 64 threads only",)),
    ):
        cpu = dataclasses.replace(machine.cpu, affinity=64, quota=None)
        small = dataclasses.replace(machine, cpu=cpu, memory=Memory(available, available, None))
        found = measure(home, hardware=small, with_torch=False)
        assert found.notes == notes
        assert found.copy_all is None
        assert (found.copy_one is None) == (available < 100 * MIB)


def test_a_full_disk(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 0, 100 * 10**6))
    found = disk_rate.disk_rate(home)
    assert found == DiskRate(None, note="under 335 MB free: not measured")
    monkeypatch.undo()

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "fsync", full)
    found = disk_rate.disk_rate(home, most=16 * MIB)
    assert found == DiskRate(None, note="not measured: the disk is full")
    assert list(home.iterdir()) == []


def test_a_folder_that_cannot_be_written_to(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(disk_rate.tempfile, "mkstemp", refused)
    assert disk_rate.disk_rate(home).note == "not measured: Permission denied"
    with pytest.raises(SourceNotFound, match="no such folder"):
        measure(home / "gone")


@linux_only
@pytest.mark.parametrize("at_opening", [True, False])
def test_a_file_system_without_direct_reads(
    home: Path, monkeypatch: pytest.MonkeyPatch, at_opening: bool
) -> None:
    """Some refuse when the file is opened, some when it is first read."""
    real_open, real_read = os.open, os.preadv
    direct: set[int] = set()

    def opening(path: str, flags: int, *rest: int) -> int:
        if flags & os.O_DIRECT and at_opening:
            raise OSError(errno.EINVAL, "Invalid argument")
        fd = real_open(path, flags, *rest)
        direct.discard(fd)
        if flags & os.O_DIRECT:
            direct.add(fd)
        return fd

    def reading(fd: int, buffers: Any, offset: int) -> int:
        if fd in direct:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real_read(fd, buffers, offset)

    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(os, "preadv", reading)
    found = disk_rate.disk_rate(home, seconds=0.2, most=16 * MIB)
    assert found.read_bytes_per_s is not None
    assert not found.direct
    assert "no direct reads" in (found.note or "")


@linux_only
def test_a_disk_that_fails_while_it_is_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(fd: int, buffers: Any, offset: int) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", failing)
    assert disk_rate.disk_rate(home, most=16 * MIB).note == "not measured: Input/output error"
    assert list(home.iterdir()) == []


@linux_only
def test_reads_past_the_page_cache_where_it_says_so(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = os.open, []

    def opening(path: str, flags: int, *rest: int) -> int:
        seen.append(flags)
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", opening)
    found = disk_rate.disk_rate(home, seconds=0.2, most=16 * MIB)
    assert found.direct == bool(seen[-1] & os.O_DIRECT)


def test_kept_and_found_again(home: Path) -> None:
    found = drawn(home)
    path = save_measured(found)
    assert path.is_relative_to(home)
    assert load_measured(home) == found


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "[]",
        "{}",
        '{"format": 0}',
        '{"format": 1}',
        '{"format": 1, "kind": "floppy", "disk": {}, "devices": [], "notes": []}',
    ],
)
def test_a_damaged_file_counts_as_none(home: Path, damage: str) -> None:
    save_measured(drawn(home)).write_text(damage)
    assert load_measured(home) is None


def test_not_taken_for_another_machine_or_disk(home: Path) -> None:
    path = save_measured(drawn(home))
    machine = probe(home)
    cpu = dataclasses.replace(machine.cpu, name="Another CPU")
    assert load_measured(home, hardware=dataclasses.replace(machine, cpu=cpu)) is None
    # Copied over by hand, under the name that would be looked for.
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | {"disk_id": "another"}))
    assert load_measured(home) is None
    path.write_text(json.dumps(facts))
    assert load_measured(home) is not None


def test_the_machines_id_is_not_kept_in_the_clear(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").write_text("0123456789abcdef\n")
    one = machine_facts(probe(), tmp_path)
    assert one["machine"] is not None
    assert "0123456789" not in str(one)
    (tmp_path / "etc/machine-id").write_text("fedcba9876543210\n")
    assert machine_facts(probe(), tmp_path)["machine"] != one["machine"]
    assert machine_facts(probe(), tmp_path / "nowhere")["machine"] is None


def test_a_home_that_cannot_be_written_to(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = drawn(home)
    (tmp_path / "file").touch()
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="OCTAVO_HOME"):
        save_measured(found)


class Clock:
    """Time that a drawn device's work takes only when it is waited for, and looking at it a
    little."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pending = 0.0

    def perf_counter(self) -> float:
        self.now += 1e-6
        return self.now

    def synchronize(self, device: int) -> None:
        self.now += self.pending
        self.pending = 0.0


def test_rates_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A drawn torch whose copies take 0.1 s there and 0.2 s back, and products 1 s."""
    clock = Clock()
    monkeypatch.setattr(rates.time, "perf_counter", clock.perf_counter)

    class Tensor:
        def __init__(self, *shape: int, device: str = "cpu", **_: object) -> None:
            self.shape, self.device = shape, device

        def numel(self) -> int:
            return self.shape[0]

        def copy_(self, other: Tensor, non_blocking: bool) -> None:
            assert non_blocking
            clock.pending += 0.1 if other.device == "cpu" else 0.2

        def __matmul__(self, other: Tensor) -> Tensor:
            clock.pending += 1.0
            return self

    cuda = types.SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 1,
        synchronize=clock.synchronize,
        get_device_capability=lambda _: (6, 1),
        get_device_name=lambda _: "Drawn",
    )
    torch = types.SimpleNamespace(
        cuda=cuda, empty=Tensor, ones=Tensor, uint8=0, float32=1, float16=2, bfloat16=3
    )
    (found,) = rates.device_rates(torch)
    nbytes = 256 * MIB
    assert found.to_device == pytest.approx(nbytes / 0.1, rel=1e-3)
    assert found.from_device == pytest.approx(nbytes / 0.2, rel=1e-3)
    # A card before Ampere is not asked for bfloat16, which it would emulate.
    assert found.products == pytest.approx({"fp32": 2 * 4096**3, "fp16": 2 * 4096**3}, rel=1e-3)
    cuda.is_available = lambda: False
    assert rates.device_rates(torch) == ()
