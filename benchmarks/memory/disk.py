"""The disk tier: bandwidth of a bare loop, round trips under a memory cap, reads beside work."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks.memory import disk_bandwidth, disk_capped, disk_overlap
from octavo.memory.disk import Tuning, tune
from octavo.memory.disk.tuning import DEFAULT

MIB = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("disk")
    group.add_argument("--disk-folder", type=Path, help="on the disk to measure; else temporary")
    group.add_argument("--disk-rounds", type=int, default=9)
    group.add_argument("--disk-block", type=int, help="MiB; else what tuning finds")
    group.add_argument("--disk-depth", type=int, help="else what tuning finds")


def run(options: argparse.Namespace) -> Mapping[str, object]:
    with tempfile.TemporaryDirectory(dir=options.disk_folder) as name:
        return _measure(Path(name), options)


def _measure(folder: Path, options: argparse.Namespace) -> Mapping[str, object]:
    fast = bool(options.fast)
    rounds = 2 if fast else int(options.disk_rounds)
    tuning = _tuning(folder, options)
    sizes = (1, 16) if fast else (1, 4, 16, 64, 256)
    return {
        "block": tuning.block,
        "depth": tuning.depth,
        "direct": tuning.direct,
        "bandwidth": disk_bandwidth.measure(
            folder,
            tuning,
            tuple(size * MIB for size in sizes),
            (64 if fast else 256) * MIB,
            rounds,
        ),
        "capped": disk_capped.measure(
            folder,
            tuning,
            count=20 if fast else 32,
            size=(32 if fast else 64) * MIB,
            cap=(512 if fast else 1024) * MIB,
            rounds=1 if fast else 3,
        ),
        "overlap": disk_overlap.measure(
            folder, tuning, rounds=1 if fast else rounds, products=3 if fast else 10
        ),
    }


def _tuning(folder: Path, options: argparse.Namespace) -> Tuning:
    given = options.disk_block is not None and options.disk_depth is not None
    found = DEFAULT if given or options.fast else tune(folder)
    return replace(
        found,
        block=options.disk_block * MIB if options.disk_block else found.block,
        depth=options.disk_depth or found.depth,
    )
