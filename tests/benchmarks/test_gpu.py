"""Cases fail, run out of time and are skipped by themselves; ways of one comparison agree."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.__main__ import SUITES
from benchmarks.gpu_models import write_checkpoint

from benchmarks import gpu, gpu_case, gpu_kernels, gpu_report

ROOT = Path(__file__).parents[2]


def _options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fast", action="store_true")
    gpu.add_arguments(parser)
    return parser.parse_args(words)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Mapping[str, Any]]]:
    """What cases are given; all of them answer at once, and one fails."""
    found: list[tuple[str, Mapping[str, Any]]] = []

    def answer(
        kind: str, task: Mapping[str, Any], *, limit_s: float
    ) -> tuple[dict[str, Any] | None, str]:
        found.append((kind, task))
        assert limit_s > 0
        if kind == "decode":
            return None, "RuntimeError: no kernel image"
        return ({"for_all": {"weights": 8, "others": 2}} if kind == "write" else {"note": ""}), ""

    monkeypatch.setattr(gpu, "_in_a_process", answer)
    return found


def test_it_is_a_suite() -> None:
    assert SUITES["gpu"] == {"cuda": "benchmarks.gpu"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a device")
def test_without_a_device_it_says_so_in_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "gpu"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("no device cuda: torch")


def test_a_cpu_is_only_for_trying() -> None:
    with pytest.raises(SystemExit, match="--quick"):
        gpu.run(_options("--device", "cpu"))


def test_a_case_that_fails_is_a_row(asked: list[tuple[str, Mapping[str, Any]]]) -> None:
    found = gpu.run(_options("--device", "cpu", "--quick"))
    rows: Any = found["rows"]
    assert [row["case"] for row in rows if "failed" in row] == ["decode"]
    assert rows[-1]["case"] == "graph"
    models = [task for kind, task in asked if kind == "model"]
    assert [(task["share"], task["way"]) for task in models] == [
        (1, "octavo"),
        (1, "transformers"),
        (0.5, "octavo"),
        (0.5, "accelerate, main memory"),
        (0.5, "accelerate, disk"),
        (0.25, "octavo"),
        (0.25, "accelerate, main memory"),
        (0.25, "accelerate, disk"),
    ]
    assert all(task["weights"] == 8 for task in models)


def test_what_there_is_no_time_for_is_skipped_and_said(
    asked: list[tuple[str, Mapping[str, Any]]],
) -> None:
    found = gpu.run(_options("--device", "cpu", "--quick", "--budget-seconds", "29"))
    rows: Any = found["rows"]
    assert [kind for kind, _ in asked] == ["prefill", "graph"]
    said = {row["case"]: row.get("skipped") for row in rows}
    assert said["check"] == "29 s are left, it takes 30"
    assert said["50% octavo"] == "there is no checkpoint"


def test_one_case_by_its_name(asked: list[tuple[str, Mapping[str, Any]]]) -> None:
    gpu.run(_options("--device", "cpu", "--quick", "--case", "50% oct"))
    assert [kind for kind, _ in asked] == ["write", "model"]


def test_wrong_kernels_fail_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(kind: str, task: Mapping[str, Any], *, limit_s: float) -> Any:
        return {"kernels": 2, "wrong": ["decode"]}, ""

    monkeypatch.setattr(gpu, "_in_a_process", answer)
    with pytest.raises(SystemExit, match="differ from float64: decode"):
        gpu.run(_options("--device", "cpu", "--quick", "--check"))


def test_no_check_is_no_success() -> None:
    with pytest.raises(SystemExit, match="no kernel was compared"):
        gpu.run(_options("--device", "cpu", "--quick", "--check"))


def test_a_case_ends_at_its_limit() -> None:
    found, why = gpu._in_a_process("facts", {"device": "cuda"}, limit_s=0.01)
    assert found is None
    assert why == "took more than 0 s"


def test_reasons_name_no_path_of_the_machine() -> None:
    complaint = f'Traceback:\n  File "{ROOT}/benchmarks/gpu.py", line 3, in x\nValueError: no\n'
    said = gpu_report.reason(complaint, 1)
    assert said == 'ValueError: no (File "/benchmarks/gpu.py", line 3, in x)'
    assert gpu_report.reason("", -9) == "ended with -9"


def test_ratios() -> None:
    def row(case: str, rate: float, answer: list[int], **more: int) -> dict[str, Any]:
        return {
            "case": case,
            "decode_tokens_per_s": rate,
            "batch_tokens_per_s": 2 * rate,
            "prefill_s": 1 / rate,
            "answer": answer,
            **more,
        }

    rows = [
        row("100% octavo", 10, [1, 2, 3, 4], peak_bytes=5, budget=10),
        row("100% transformers", 8, [1, 2, 7, 4]),
        row("50% octavo", 6, [1, 2, 3, 5]),
        row("50% accelerate, disk", 2, []),
        {"case": "50% accelerate, main memory", "failed": "out of memory"},
    ]
    ratios = gpu_report.summary(rows)["ratios"]
    assert ratios["decode_tokens_per_s_over_transformers_at_100"] == 1.25
    assert ratios["decode_tokens_per_s_over_accelerate_disk_at_50"] == 3
    assert ratios["same_tokens_as_transformers_at_100"] == 0.5
    assert ratios["same_tokens_as_resident_at_50"] == 0.75
    assert ratios["peak_of_budget_at_100"] == 0.5
    assert not [name for name in ratios if "main_memory" in name]
    for one in rows:
        if "failed" in one:
            assert gpu_report.line(one).endswith("failed: out of memory")


def test_ways_of_a_comparison_compute_the_same() -> None:
    (decode,) = gpu_kernels.decode_points("cpu", quick=True)["points"]
    assert decode["failed"] == {}
    assert decode["off_sdpa"]["gathered sdpa"] < 2e-2
    assert 0 < decode["off_sdpa"]["decoded int8 sdpa"] < 5e-2
    (prefill,) = gpu_kernels.prefill_points("cpu", quick=True)["points"]
    assert prefill["failed"] == {}


def test_kernels_are_not_compared_where_they_do_not_run() -> None:
    assert gpu_case.check({"device": "cpu"})["compared"] == {}


def test_a_checkpoint_is_written_once(tmp_path: Path) -> None:
    task = {"folder": str(tmp_path / "m"), "quick": True, "device": "cuda"}
    first = write_checkpoint(task)
    (weights,) = (tmp_path / "m").glob("*.safetensors")
    before = weights.stat().st_mtime_ns
    assert write_checkpoint(task)["for_all"] == first["for_all"]
    assert weights.stat().st_mtime_ns == before
    assert first["weights_bytes"] == pytest.approx(weights.stat().st_size, rel=0.01)
    # The context of a device is part of what is not weights.
    assert first["others_bytes"] > 500_000_000
