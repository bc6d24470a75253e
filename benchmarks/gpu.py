"""A CUDA device: models of 8 B shape in a part of its memory, and attention kernels beside torch's.

Needs torch, transformers, accelerate, safetensors, numpy, psutil, pillow, typer and rich, and no
installed Octavo: ``python -m benchmarks gpu`` in a checkout. Cases, in this order:

- ``check``: every kernel beside float64 (``--check`` does only this).
- ``decode`` and ``prefill``: kernels beside SDPA and FlexAttention, :mod:`benchmarks.gpu_kernels`.
- ``graph``: one token of a decoder plain, as a CUDA graph and by ``torch.compile``.
- a share of the weights and a way, :mod:`benchmarks.gpu_models`: Octavo, accelerate with the rest
  in main memory, accelerate with the rest on disk, and plain transformers where all fits.

A case is a process of its own with a time limit: one that fails is a row that says so. Cases for
which no time is left (``--budget-seconds``) are rows as well. ``--device cpu --quick`` runs all
but the kernels on a tiny model, to see that it works.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks import gpu_report

ROOT: Final = Path(__file__).resolve().parents[1]
SHARES: Final = (1.0, 0.5, 0.25)
#: Of all cases together.
BUDGET_S: Final = 510.0
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One process.

    Attributes:
        name: of the row.
        kind: of task, in :mod:`benchmarks.gpu_case`.
        least_s: without so much time left it is not begun.
        limit_s: it is ended after that.
    """

    name: str
    kind: str
    least_s: float
    limit_s: float
    task: Mapping[str, Any] = field(default_factory=dict)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("gpu")
    group.add_argument("--device", default="cuda", help="cuda, cuda:1 ...; cpu with --quick")
    group.add_argument("--quick", dest="fast", action="store_true", help="the same as --fast")
    group.add_argument("--check", action="store_true", help="only compare kernels with float64")
    group.add_argument("--folder", type=Path, help="for the checkpoints (17 GB); else temporary")
    group.add_argument("--budget-seconds", type=float, default=BUDGET_S, help="of all cases")
    group.add_argument("--case", action="append", help="begin of a case's name; may be repeated")


def run(options: argparse.Namespace) -> Mapping[str, object]:
    """
    Raises:
        SystemExit: no such device; or a kernel is wrong, or every case failed.
    """
    began = time.monotonic()
    facts = _facts(options)
    with _folder(options.folder) as folder:
        rows = list(_rows(options, folder, began))
    found = {"gpu": facts, "budget_s": options.budget_seconds, **gpu_report.summary(rows)}
    if any(row.get("wrong") for row in rows):
        raise SystemExit(f"kernels differ from float64: {gpu_report.wrong(rows)}")
    if options.check and not any(row.get("kernels") for row in rows):
        raise SystemExit("no kernel was compared: Triton does not run on this device")
    if all("failed" in row or "skipped" in row for row in rows):
        raise SystemExit("no case was run to its end")
    return {**found, "took_s": round(time.monotonic() - began), "rows": rows}


def _facts(options: argparse.Namespace) -> Mapping[str, Any]:
    """The device, asked for in a process of its own: this one never holds memory on it."""
    if options.device == "cpu":
        if not options.fast:
            raise SystemExit("on a CPU this shows only that it works: add --quick")
        return {"name": None}
    facts, why = _in_a_process("facts", {"device": options.device}, limit_s=120)
    if facts is None:
        raise SystemExit(f"no device {options.device}: {why}")
    print(f"{facts['name']}, {facts['total_bytes'] / 1e9:.0f} GB, driver {facts['driver']}")
    return facts


def _rows(options: argparse.Namespace, folder: Path, began: float) -> Iterator[Row]:
    shared: dict[str, Any] = {
        "device": options.device,
        "quick": options.fast,
        "folder": str(folder / "8b"),
    }
    for case in _cases(options):
        left = options.budget_seconds - (time.monotonic() - began)
        row: Row = {"case": case.name, **case.task}
        if case.kind == "model" and "weights" not in shared:
            row["skipped"] = "there is no checkpoint"
        elif left < case.least_s:
            row["skipped"] = f"{left:.0f} s are left, it takes {case.least_s:.0f}"
        else:
            start = time.monotonic()
            found, why = _in_a_process(
                case.kind, {**shared, **case.task}, limit_s=min(case.limit_s, left)
            )
            row |= {"failed": why} if found is None else found
            row["took_s"] = round(time.monotonic() - start, 1)
            shared |= row.get("for_all", {})
        print(gpu_report.line(row), flush=True)
        yield row


def _cases(options: argparse.Namespace) -> Iterator[Case]:
    for case in _all_cases(options.fast):
        wanted = case.name == "check" if options.check else True
        # What others need is made in any case.
        named = not options.case or any(case.name.startswith(name) for name in options.case)
        needed = case.name == "write" and any(name[:1].isdigit() for name in options.case or ())
        if wanted and (named or needed):
            yield case


def _all_cases(quick: bool) -> Iterator[Case]:
    yield Case("check", "check", 30, 150)
    yield Case("decode", "decode", 30, 90)
    yield Case("prefill", "prefill", 20, 60)
    yield Case("write", "write", 60, 150)
    for share in SHARES:
        ways = ["octavo", "accelerate, main memory", "accelerate, disk"]
        if share == 1:
            ways[1:] = ["transformers"]
        for way in ways:
            task = {"share": share, "way": way}
            yield Case(f"{share:.0%} {way}", "model", 8 if quick else 30, 90, task)
    yield Case("graph", "graph", 8 if quick else 40, 90)


@contextmanager
def _folder(named: Path | None) -> Iterator[Path]:
    if named is not None:
        named.mkdir(parents=True, exist_ok=True)
        yield named
        return
    with tempfile.TemporaryDirectory() as own:
        yield Path(own)


def _in_a_process(kind: str, task: Mapping[str, Any], *, limit_s: float) -> tuple[Row | None, str]:
    """What a case found; None and why not."""
    paths = [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu_case", kind]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(task),
            capture_output=True,
            text=True,
            env=environment,
            cwd=ROOT,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"took more than {limit_s:.0f} s"
    if done.returncode:
        return None, gpu_report.reason(done.stderr, done.returncode)
    found: Row = json.loads(done.stdout.splitlines()[-1])
    return found, ""
