"""The kind of disk under a folder, from drawn mount tables and sysfs trees."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from octavo.hardware.disks import DiskKind, disk_identity, disk_kind, mount_of

if sys.platform != "linux":
    pytest.skip("sysfs is Linux's", allow_module_level=True)


class Machine:
    """A drawn root with a mount table and disks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._mounts: list[str] = []

    def mount(self, point: str, filesystem: str, device: str, source: str) -> None:
        line = f"22 1 {device} / {point} rw,relatime shared:1 - {filesystem} {source} rw"
        self._mounts.append(line)
        path = self.root / "proc/self/mountinfo"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([*self._mounts, "nonsense", ""]))

    def disk(self, name: str, number: str, files: dict[str, str], below: str = "") -> Path:
        place = self.root / "sys/devices" / below / name
        for file, text in files.items():
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            (place / file).write_text(f"{text}\n")
        place.mkdir(parents=True, exist_ok=True)
        for folder, link in (("sys/dev/block", number), ("sys/class/block", name)):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
            (self.root / folder / link).symlink_to(place)
        return place


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "root")


@pytest.mark.parametrize(
    ("name", "files", "kind"),
    [
        ("nvme0n1", {"queue/rotational": "0", "device/model": "Samsung SSD 990"}, DiskKind.NVME),
        ("nvme1n1", {"device/model": "Amazon Elastic Block Store"}, DiskKind.VIRTUAL),
        ("sda", {"queue/rotational": "0", "device/model": "CT1000"}, DiskKind.SSD),
        ("sdb", {"queue/rotational": "1", "device/model": "WD40"}, DiskKind.HDD),
        ("sdc", {"queue/rotational": "1", "device/vendor": "QEMU"}, DiskKind.VIRTUAL),
        ("vda", {"queue/rotational": "1"}, DiskKind.VIRTUAL),
        ("zram0", {"queue/rotational": "0"}, DiskKind.MEMORY),
        ("nbd0", {"queue/rotational": "0"}, DiskKind.NETWORK),
        ("loop0", {"queue/rotational": "0"}, None),
        ("sdd", {}, None),
    ],
)
def test_kinds_of_disks(
    machine: Machine, name: str, files: dict[str, str], kind: DiskKind | None
) -> None:
    machine.mount("/", "ext4", "8:0", f"/dev/{name}")
    machine.disk(name, "8:0", files)
    assert disk_kind(Path("/anywhere"), machine.root) is kind


@pytest.mark.parametrize(
    ("filesystem", "kind"),
    [
        ("nfs4", DiskKind.NETWORK),
        ("fuse.sshfs", DiskKind.NETWORK),
        ("virtiofs", DiskKind.VIRTUAL),
        ("tmpfs", DiskKind.MEMORY),
        ("overlay", None),
        ("zfs", None),
    ],
)
def test_kinds_of_file_systems(machine: Machine, filesystem: str, kind: DiskKind | None) -> None:
    machine.mount("/", "ext4", "8:0", "/dev/sda")
    machine.mount("/data", filesystem, "0:50", "somewhere")
    assert disk_kind(Path("/data/models"), machine.root) is kind


def test_a_partition_is_of_its_disk(machine: Machine) -> None:
    machine.mount("/", "ext4", "8:1", "/dev/sda1")
    machine.disk("sda", "8:0", {"queue/rotational": "0"})
    machine.disk("sda1", "8:1", {"partition": "1"}, below="sda")
    assert disk_kind(Path("/"), machine.root) is DiskKind.SSD


def test_a_file_system_with_a_number_of_its_own(machine: Machine) -> None:
    machine.mount("/", "btrfs", "0:30", "/dev/sda")
    machine.disk("sda", "8:0", {"queue/rotational": "1"})
    assert disk_kind(Path("/"), machine.root) is DiskKind.HDD


@pytest.mark.parametrize(("second", "kind"), [("0", DiskKind.SSD), ("1", None)])
def test_volumes_are_of_the_disks_below(
    machine: Machine, second: str, kind: DiskKind | None
) -> None:
    machine.mount("/", "ext4", "253:0", "/dev/mapper/root")
    below = [
        machine.disk("sda", "8:0", {"queue/rotational": "0"}),
        machine.disk("sdb", "8:16", {"queue/rotational": second}),
    ]
    volume = machine.disk("dm-0", "253:0", {})
    (volume / "slaves").mkdir()
    for disk in below:
        (volume / "slaves" / disk.name).symlink_to(disk)
    assert disk_kind(Path("/"), machine.root) is kind


def test_the_innermost_and_last_mount_counts(machine: Machine) -> None:
    machine.mount("/", "ext4", "8:0", "/dev/sda")
    machine.mount("/data", "xfs", "8:1", "/dev/sdb")
    machine.mount("/data", "nfs", "0:9", "server:/data")
    machine.mount(r"/my\040disk", "vfat", "8:2", "/dev/sdc")
    found = {path: mount_of(Path(path), machine.root) for path in ("/data/x", "/database")}
    assert getattr(found["/data/x"], "filesystem", None) == "nfs"
    assert getattr(found["/database"], "filesystem", None) == "ext4"
    spaced = mount_of(Path("/my disk/models"), machine.root)
    assert spaced is not None
    assert spaced.source == "/dev/sdc"


def test_without_a_mount_table(tmp_path: Path) -> None:
    assert disk_kind(tmp_path, tmp_path / "nowhere") is None
    assert disk_identity(tmp_path, tmp_path / "nowhere")


def test_agrees_with_this_machine(tmp_path: Path) -> None:
    mount = mount_of(tmp_path)
    assert mount is not None
    assert os.path.ismount(mount.point)
    assert Path(mount.point).stat().st_dev == tmp_path.stat().st_dev
    assert mount.source in disk_identity(tmp_path)
