"""What kind of disk a folder is on, and which one: read from sysfs and the mount table.

Sources: Documentation/ABI/stable/sysfs-block (``queue/rotational``), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final


class DiskKind(StrEnum):
    """How a disk is built, as far as it changes how it is best read."""

    NVME = "nvme"
    SSD = "ssd"
    HDD = "hdd"
    VIRTUAL = "virtual"
    NETWORK = "network"
    MEMORY = "memory"


_NETWORK: Final = frozenset(
    "nfs nfs4 cifs smb3 smbfs ceph glusterfs lustre beegfs gpfs afs fuse.sshfs fuse.s3fs "
    "fuse.gcsfuse fuse.glusterfs fuse.rclone".split()
)
_SHARED_BY_HOST: Final = frozenset("9p virtiofs vboxsf fuse.vmhgfs-fuse drvfs".split())
_IN_MEMORY: Final = frozenset("tmpfs ramfs".split())
#: Models that virtual machines and clouds give their disks; what lies beneath is not told.
_VIRTUAL_MODELS: Final = re.compile(
    "qemu|vbox|virtual|vmware|persistentdisk|elastic block store|msft", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Mount:
    """The file system that holds a folder. ``device`` is ``major:minor``."""

    device: str
    point: str
    filesystem: str
    source: str


def disk_kind(folder: Path, root: Path = Path("/")) -> DiskKind | None:
    """The kind of disk under ``folder``; None where the system does not tell.

    Args:
        root: where ``proc`` and ``sys`` are mounted.
    """
    mount = mount_of(folder, root)
    if mount is None:
        return None
    for kind, names in (
        (DiskKind.NETWORK, _NETWORK),
        (DiskKind.VIRTUAL, _SHARED_BY_HOST),
        (DiskKind.MEMORY, _IN_MEMORY),
    ):
        if mount.filesystem in names:
            return kind
    block = _block(mount, root)
    return None if block is None else _kind_of_block(block)


def mount_of(folder: Path, root: Path = Path("/")) -> Mount | None:
    """The innermost mount above a folder, by the mount table; None without one."""
    place = folder.resolve()
    best: Mount | None = None
    for line in (_read(root / "proc/self/mountinfo") or "").splitlines():
        mount = _mount(line)
        if mount is None:
            continue
        # A later mount on the same point covers the earlier one.
        inside = place == Path(mount.point) or Path(mount.point) in place.parents
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def disk_identity(folder: Path, root: Path = Path("/")) -> str:
    """Tells the disk of a folder from others of this machine."""
    mount = mount_of(folder, root)
    if mount is not None:
        return f"{mount.filesystem} {mount.source} at {mount.point}"
    place = folder.resolve()
    return f"{place.stat().st_dev} {place.anchor}"


def _mount(line: str) -> Mount | None:
    left, found, right = line.partition(" - ")
    fields, after = left.split(), right.split()
    if not found or len(fields) < 5 or len(after) < 2:
        return None
    return Mount(fields[2], _plain(fields[4]), after[0], _plain(after[1]))


def _plain(text: str) -> str:
    """The mount table writes space, tab, newline and backslash in octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _block(mount: Mount, root: Path) -> Path | None:
    """The disk or partition in sysfs."""
    path = root / "sys/dev/block" / mount.device
    if not path.exists():
        # btrfs and others answer with a device number of their own; the source is the disk.
        path = root / "sys/class/block" / os.path.basename(mount.source)
        if not mount.source.startswith("/dev/") or not path.exists():
            return None
    return path.resolve()


def _kind_of_block(block: Path) -> DiskKind | None:
    name = block.name
    if name.startswith(("dm-", "md", "bcache")):
        kinds = {_kind_of_block(below.resolve()) for below in sorted(block.glob("slaves/*"))}
        return kinds.pop() if len(kinds) == 1 else None
    if (block / "partition").exists():
        return _kind_of_block(block.parent)
    if name.startswith(("zram", "ram", "pmem")):
        return DiskKind.MEMORY
    if name.startswith(("vd", "xvd")):
        return DiskKind.VIRTUAL
    if name.startswith(("nbd", "rbd", "drbd")):
        return DiskKind.NETWORK
    words = f"{_read(block / 'device/vendor') or ''} {_read(block / 'device/model') or ''}"
    if _VIRTUAL_MODELS.search(words):
        return DiskKind.VIRTUAL
    if name.startswith("nvme"):
        return DiskKind.NVME
    if name.startswith("loop"):
        return None
    rotational = (_read(block / "queue/rotational") or "").strip()
    return {"0": DiskKind.SSD, "1": DiskKind.HDD}.get(rotational)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
