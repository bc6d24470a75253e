"""Real allocations of this process, and drawn trees and doubles for what it has not got."""

from __future__ import annotations

import gc
import importlib
import mmap
import os
import sys
import types
from pathlib import Path

import psutil
import pytest
import torch

from octavo.memory.buffers import host_buffer
from octavo.memory.ledger import Ledger
from octavo.memory.readings import Bound
from octavo.memory.reconcile import DeviceMemory, MainMemory, Sample, reconcile, sample
from tests.memory.trees import MIB, draw, group_v2

#: By its name: the package may export the function of the same name.
module = importlib.import_module("octavo.memory.reconcile")
#: What the interpreter itself may take or give back meanwhile.
TOLERANCE = 6 * MIB
CUDA = torch.device("cuda", 0)
STATUS = """\
Name:\tpython
VmHWM:\t    9000 kB
VmRSS:\t    8000 kB
RssAnon:\t    5000 kB
RssFile:\t    2000 kB
RssShmem:\t    1000 kB
"""


@pytest.fixture
def ledger() -> Ledger:
    gc.collect()
    return Ledger({"device": 1 << 30, "host": 1 << 30})


def test_reserved_and_touched_is_explained(ledger: Ledger) -> None:
    before = sample()
    buffer_b = host_buffer(64 * MIB)
    held = ledger.reserve("host", "staging", 64 * MIB, "test")
    assert reconcile(ledger, baseline=before).rows[0].unexplained == pytest.approx(
        -64 * MIB, abs=TOLERANCE
    ), "reserved, but no page is touched"
    buffer_b.fill_(1)
    assert reconcile(ledger, baseline=before).rows[0].unexplained == pytest.approx(0, abs=TOLERANCE)
    del buffer_b
    held.release()
    assert reconcile(ledger, baseline=before).rows[0].unexplained == pytest.approx(0, abs=TOLERANCE)


def test_what_nobody_reserved_shows(ledger: Ledger) -> None:
    before = sample()
    buffer_b = host_buffer(64 * MIB).fill_(1)
    found = reconcile(ledger, baseline=before)
    assert found.unexplained["main"] == pytest.approx(64 * MIB, abs=TOLERANCE)
    assert found.sample.main.peak is not None
    assert found.sample.main.peak >= 64 * MIB
    del buffer_b


@pytest.mark.skipif(sys.platform != "linux", reason="needs the split of resident memory")
def test_shared_memory_counts_and_mapped_files_do_not(tmp_path: Path, ledger: Ledger) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"x" * (32 * MIB))
    before = sample()
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    assert sum(mapped[offset] for offset in range(0, 32 * MIB, 4096)) > 0
    with_file = reconcile(ledger, baseline=before)
    assert with_file.unexplained["main"] == pytest.approx(0, abs=TOLERANCE)
    assert with_file.sample.main.resident > before.main.resident + 24 * MIB
    mapped.close()
    shared = mmap.mmap(-1, 32 * MIB)
    shared.write(b"x" * (32 * MIB))
    found = reconcile(ledger, baseline=before)
    assert found.unexplained["main"] == pytest.approx(32 * MIB, abs=TOLERANCE)
    shared.close()


def test_agrees_with_psutil() -> None:
    found = sample().main
    assert found.resident == pytest.approx(psutil.Process().memory_info().rss, abs=TOLERANCE)
    if found.anonymous is not None and found.file is not None and found.shared is not None:
        parts = found.anonymous + found.file + found.shared
        assert parts == pytest.approx(found.resident, abs=TOLERANCE)


def test_split_of_a_drawn_status(tmp_path: Path) -> None:
    files = {"proc/self/status": STATUS} | group_v2("job", 100 * MIB, 40 * MIB)
    found = sample(root=draw(tmp_path, files))
    assert found.main == MainMemory(5000 << 10, 2000 << 10, 1000 << 10, 8000 << 10, 9000 << 10)
    assert found.main.held == 6000 << 10
    assert found.group == Bound(100 * MIB, 40 * MIB)
    assert found.accelerator is None


def test_without_proc_only_the_whole_is_known(tmp_path: Path) -> None:
    found = sample(root=tmp_path)
    assert found.main.anonymous is None
    assert found.main.held == found.main.resident
    assert found.main.resident == pytest.approx(psutil.Process().memory_info().rss, abs=TOLERANCE)
    assert found.main.peak is not None
    assert found.main.peak >= found.main.resident - TOLERANCE
    assert found.group is None


def test_on_the_cpu_both_places_are_main_memory(tmp_path: Path, ledger: Ledger) -> None:
    root = draw(tmp_path, {"proc/self/status": STATUS})
    ledger.reserve("device", "weights", 1000 << 10, "a")
    ledger.reserve("host", "kv", 500 << 10, "b")
    (row,) = reconcile(ledger, root=root).rows
    assert row.places == ("device", "host")
    assert row.unexplained == 4500 << 10
    before = Sample(torch.device("cpu"), MainMemory(4000 << 10, 0, 0, 0, 0), None, None)
    (row,) = reconcile(ledger, baseline=before, root=root).rows
    assert row.unexplained == 500 << 10


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """torch's counters of a card that is not there."""
    stats = {
        "allocated_bytes.all.current": 300 * MIB,
        "reserved_bytes.all.current": 512 * MIB,
        "allocated_bytes.all.peak": 400 * MIB,
    }
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda _: stats)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: types.SimpleNamespace(uuid="a-b-c")
    )
    monkeypatch.setitem(sys.modules, "pynvml", None)
    return stats


class Nvml(types.ModuleType):
    """A driver that knows one card and some processes."""

    class NVMLError(Exception):
        pass

    def __init__(self, running: list[tuple[int, int | None]], broken: str = "") -> None:
        super().__init__("pynvml")
        self.running = running
        self.broken = broken
        self.open = 0

    def _try(self, name: str) -> None:
        if self.broken == name:
            raise self.NVMLError(name)

    def nvmlInit(self) -> None:
        self._try("init")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        self._try("handle")
        assert uuid == "GPU-a-b-c"
        return uuid

    def nvmlDeviceGetComputeRunningProcesses(self, card: str) -> list[types.SimpleNamespace]:
        self._try("processes")
        return [types.SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.running]


def test_a_card_has_its_own_row(
    tmp_path: Path, ledger: Ledger, cuda: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = draw(tmp_path, {"proc/self/status": STATUS})
    driver = Nvml([(1, 5), (os.getpid(), 900 * MIB)])
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    cuda["allocated_bytes.all.current"] = 100 * MIB
    before = sample(CUDA, root=root)
    cuda["allocated_bytes.all.current"] = 300 * MIB
    ledger.reserve("device", "weights", 150 * MIB, "a")
    ledger.reserve("host", "kv", 2000 << 10, "b")
    found = reconcile(ledger, baseline=before, root=root)
    assert found.unexplained == {"main": -2000 << 10, "cuda:0": 50 * MIB}
    assert [row.places for row in found.rows] == [("host",), ("device",)]
    assert found.sample.accelerator == DeviceMemory(300 * MIB, 512 * MIB, 400 * MIB, 900 * MIB)
    assert driver.open == 0


@pytest.mark.parametrize(
    "driver",
    [
        None,
        Nvml([], "init"),
        Nvml([], "handle"),
        Nvml([], "processes"),
        Nvml([(1, 5)]),
        Nvml([(os.getpid(), None)]),
    ],
)
def test_what_the_driver_does_not_say_is_unknown(
    cuda: dict[str, int], monkeypatch: pytest.MonkeyPatch, driver: Nvml | None
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    held = sample(CUDA).accelerator
    assert held is not None
    assert held.process is None
    assert held.allocated == 300 * MIB
    assert driver is None or driver.open == 0


def test_a_card_not_yet_used_is_left_alone(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("initialised")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    monkeypatch.setattr(torch.cuda, "memory_stats", never)
    monkeypatch.setattr(torch.cuda, "init", never)
    found = reconcile(ledger, device=CUDA)
    assert found.sample.accelerator is None
    assert found.unexplained["cuda:0"] is None
    assert "unknown" in found.explain()


def test_other_accelerators(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sample(torch.device("meta")).accelerator is None
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert sample(torch.device("mps")).accelerator is None
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 7)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 9)
    assert sample(torch.device("mps")).accelerator == DeviceMemory(7, 9, None, None)
    monkeypatch.setattr(torch.xpu, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.xpu, "memory_stats", lambda _: {"allocated_bytes.all.current": 3})
    assert sample(torch.device("xpu", 0)).accelerator == DeviceMemory(3, 0, 0, None)


def test_explains_line_by_line(
    tmp_path: Path, ledger: Ledger, cuda: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"proc/self/status": STATUS} | group_v2("job", 10_000_000, 4_000_000)
    root = draw(tmp_path, files)
    ledger.reserve("host", "kv", 1_000_000, "b")
    text = reconcile(ledger, device=CUDA, root=root).explain()
    assert text.splitlines() == [
        "main memory",
        "  measured                     6.14 MB",
        "  ledger (host)                   1 MB",
        "  unexplained                  5.14 MB",
        "cuda:0 memory",
        "  measured                      315 MB",
        "  ledger (device)                  0 B",
        "  unexplained                   315 MB",
        "the process",
        "  anonymous                    5.12 MB",
        "  mapped files                 2.05 MB",
        "  shared                       1.02 MB",
        "  resident                     8.19 MB",
        "  resident at most             9.22 MB",
        "  control group's use             4 MB",
        "  control group's limit          10 MB",
        "  tensors on the device         315 MB",
        "  at most                       419 MB",
        "  torch's allocator             537 MB",
        "  process on the device        unknown",
    ]
    again = reconcile(ledger, baseline=sample(CUDA, root=root), root=root).explain()
    assert "  at the start                 6.14 MB" in again.splitlines()


def test_peak_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes on macOS, kB on other systems without ``/proc``."""
    resource = pytest.importorskip("resource")
    usage = types.SimpleNamespace(ru_maxrss=7)
    monkeypatch.setattr(resource, "getrusage", lambda _: usage)
    monkeypatch.setattr(module, "sys", types.SimpleNamespace(platform="darwin"))
    assert module._peak() == 7
    monkeypatch.setattr(module, "sys", types.SimpleNamespace(platform="freebsd"))
    assert module._peak() == 7 * 1024
