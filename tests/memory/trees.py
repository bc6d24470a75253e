"""Drawn /proc and /sys trees."""

from __future__ import annotations

from pathlib import Path

MIB = 1 << 20


def draw(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def machine(total: int, available: int) -> dict[str, str]:
    return {
        "proc/meminfo": f"MemTotal: {total >> 10:>12} kB\nMemFree: 1 kB\n"
        f"MemAvailable: {available >> 10:>8} kB\nHugePages_Total: 0\n"
    }


def group_v2(path: str, limit: int | str, used: int, *, cache: int = 0) -> dict[str, str]:
    folder = f"sys/fs/cgroup/{path}"
    return {
        "proc/self/cgroup": f"0::/{path}\n",
        f"{folder}/memory.max": f"{limit}\n",
        f"{folder}/memory.current": f"{used}\n",
        f"{folder}/memory.stat": f"anon 1\ninactive_file {cache}\n",
    }


def group_v1(path: str, limit: int, used: int, *, cache: int = 0) -> dict[str, str]:
    folder = f"sys/fs/cgroup/memory/{path}"
    return {
        "proc/self/cgroup": f"4:memory:/{path}\n1:cpu:/\n",
        f"{folder}/memory.limit_in_bytes": f"{limit}\n",
        f"{folder}/memory.usage_in_bytes": f"{used}\n",
        f"{folder}/memory.stat": f"cache 1\ntotal_inactive_file {cache}\n",
    }


def stalls(avg10: float) -> str:
    return f"some avg10={avg10:.2f} avg60=0.00 avg300=0.00 total=5\nfull avg10=99.00 total=0\n"
