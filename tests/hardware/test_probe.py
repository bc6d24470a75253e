"""The probe against drawn /proc and /sys trees, and against this machine's own tools."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from octavo.hardware import Cpu, probe

MIB = 1 << 20
X86 = "processor\t: 0\nmodel name\t: Drawn CPU\nflags\t\t: fpu avx2 avx512f avx_vnni\n\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16 asimddp\n\n"


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_agrees_with_the_machine(tmp_path: Path) -> None:
    found = probe(tmp_path)
    assert found.memory.total == psutil.virtual_memory().total
    assert 0 < found.memory.available <= found.memory.usable <= found.memory.total
    assert found.cpu.logical == os.cpu_count()
    assert found.disk.total == shutil.disk_usage(tmp_path).total
    assert found.python == sys.version.split()[0]
    if sys.platform == "linux":
        assert found.cpu.affinity == len(os.sched_getaffinity(0))


def test_is_a_snapshot() -> None:
    found = probe()
    for part in (found, found.cpu, found.memory, found.disk):
        for field in dataclasses.fields(part):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(part, field.name, None)


def test_memory_limit_of_a_group_above_counts(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/machine/job\n",
            "sys/fs/cgroup/machine/memory.max": f"{64 * MIB}\n",
            "sys/fs/cgroup/machine/memory.current": f"{40 * MIB}\n",
            "sys/fs/cgroup/machine/memory.stat": f"anon 1\ninactive_file {10 * MIB}\n",
            "sys/fs/cgroup/machine/job/memory.max": "max\n",
        },
    )
    memory = probe(root=root).memory
    assert memory.limit == memory.usable == 64 * MIB
    assert memory.available == 34 * MIB


def test_version_1_groups(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{32 * MIB}\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{8 * MIB}\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    found = probe(root=root)
    assert (found.memory.limit, found.memory.available) == (32 * MIB, 24 * MIB)
    assert found.cpu.quota == 1.5


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"},
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"},
        {
            "proc/self/cgroup": "5:memory:/\n3:cpu:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        {"proc/self/cgroup": "nonsense", "sys/fs/cgroup/memory.max": "nonsense"},
    ],
)
def test_no_limit_is_none(tmp_path: Path, files: dict[str, str]) -> None:
    found = probe(root=tree(tmp_path, files))
    assert found.memory.limit is None
    assert found.cpu.quota is None
    assert found.memory.usable == found.memory.total


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (X86, (True, True, False, True)),
        (ARM, (False, False, True, True)),
        ("", (None, None, None, None)),
    ],
)
def test_instruction_sets(tmp_path: Path, text: str, expected: tuple[bool | None, ...]) -> None:
    cpu = probe(root=tree(tmp_path, {"proc/cpuinfo": text})).cpu
    assert (cpu.avx2, cpu.avx512, cpu.bf16, cpu.vnni) == expected


@pytest.mark.parametrize(
    ("affinity", "quota", "expected"), [(8, None, 8), (8, 2.0, 2), (8, 0.2, 1), (1, 4.0, 1)]
)
def test_usable_cores(affinity: int, quota: float | None, expected: int) -> None:
    cpu = Cpu("x", 16, 8, affinity, quota, None, None, None, None)
    assert cpu.usable == expected


def test_a_folder_that_is_gone_has_no_disk(tmp_path: Path) -> None:
    disk = probe(tmp_path / "gone").disk
    assert (disk.total, disk.free) == (None, None)


def test_imports_nothing_heavy() -> None:
    code = (
        "import sys, octavo.hardware; "
        "print([m for m in ('pydantic', 'typer', 'rich', 'torch', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
