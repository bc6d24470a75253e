"""Torch, its CUDA build and the driver, found without importing torch."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from octavo.cli._checks import Check

_SMI_TIMEOUT_S = 20
_TORCH_FIX = "pip install 'octavo[models]'"


def accelerator_checks() -> Iterator[Check]:
    build = torch_cuda_build()
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        yield Check(
            "GPU", "torch", "optional", "not installed; documents do not need it", _TORCH_FIX
        )
    else:
        yield Check("GPU", "torch", "ok", f"{version}, {f'CUDA {build}' if build else 'CPU only'}")
    smi = shutil.which("nvidia-smi")
    if smi is None:
        yield Check("GPU", "NVIDIA driver", "optional", "none found")
        return
    try:
        text = subprocess.run(
            [smi], capture_output=True, text=True, timeout=_SMI_TIMEOUT_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        yield Check("GPU", "NVIDIA driver", "note", f"nvidia-smi fails: {error}")
        return
    yield driver_check(text, build)


def torch_cuda_build() -> str | None:
    """The CUDA version that the installed torch was built with, from its ``version.py``."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    match = re.search(r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return match[1] if match else None


def driver_check(text: str, build: str | None) -> Check:
    """The driver from what ``nvidia-smi`` prints, against the CUDA of the torch build.

    A driver runs every minor version of its own major CUDA version and of those before it (CUDA
    Compatibility guide, "minor version compatibility"); a newer major version needs a newer driver.
    """
    driver = re.search(r"Driver Version:\s*([\d.]+)", text)
    cuda = re.search(r"CUDA Version:\s*([\d.]+)", text)
    value = f"{driver[1] if driver else 'unknown'}, CUDA up to {cuda[1] if cuda else 'unknown'}"
    if cuda and build and int(build.split(".")[0]) > int(cuda[1].split(".")[0]):
        return Check(
            "GPU",
            "NVIDIA driver",
            "note",
            f"{value}, too old for torch's CUDA {build}",
            f"update the driver, or install a torch built for CUDA {cuda[1]} or older",
        )
    return Check("GPU", "NVIDIA driver", "ok", value)
