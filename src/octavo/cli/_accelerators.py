"""Torch, its build, the driver, devices and attention; torch is loaded in another process."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from octavo.cli._checks import Check, size
from octavo.hardware.accelerators import Accelerator, DeviceKind, accelerators, to_ask
from octavo.hardware.asking import Answers, ask, installed
from octavo.hardware.kernels import PACKAGES, AttentionKernel, attention_kernels

_SMI_TIMEOUT_S = 20
_TORCH_FIX = "pip install 'octavo[models]'"


def ask_accelerators() -> Answers:
    """What torch and the libraries beside it say, where they are installed."""
    names = dict.fromkeys((*to_ask(), *PACKAGES, "torchvision"))
    return ask([name for name in names if installed(name)])


def gpu_checks(answers: Answers) -> Iterator[Check]:
    """Libraries, driver, devices, and how attention is computed on the first one."""
    yield from accelerator_checks()
    yield from _broken(answers)
    devices = accelerators(answers=answers)
    for device in devices:
        yield device_check(device)
    first = next((device for device in devices if device.ready and device.kind.torch_type), None)
    yield attention_check(attention_kernels(first, answers=answers), first)


def accelerator_checks() -> Iterator[Check]:
    """Without loading anything: torch's build, and the driver against it."""
    build = torch_cuda_build()
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        yield Check(
            "GPU", "torch", "optional", "not installed; documents do not need it", _TORCH_FIX
        )
    else:
        hip = torch_build("hip")
        made = f"CUDA {build}" if build else f"ROCm {hip}" if hip else "CPU only"
        yield Check("GPU", "torch", "ok", f"{version}, {made}")
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


def _broken(answers: Answers) -> Iterator[Check]:
    """Libraries that are installed and do not load."""
    fixes = {
        "torch": ("", "pip install --force-reinstall torch"),
        # transformers sees that it is there, imports it, and then lacks its own classes.
        "torchvision": ("worse than none, transformers breaks with it: ",
                        "pip uninstall torchvision"),
        "flash_attn": ("", "pip uninstall flash-attn"),
        "xformers": ("", "pip uninstall xformers"),
    }  # fmt: skip
    for name, (words, fix) in fixes.items():
        answer = answers.get(name)
        if answer is not None and answer.found is None:
            value = f"{words}it does not load: {answer.error}"
            yield Check("GPU", f"{name} loads", "note", value, fix)


def device_check(device: Accelerator) -> Check:
    """One line for a device: what it holds, and what it cannot do."""
    facts = [device.name or "unknown"]
    if device.total_bytes is not None:
        free = "" if device.free_bytes is None else f"{size(device.free_bytes)} free of "
        facts.append(f"{free}{size(device.total_bytes)}")
    if device.capability is not None:
        facts.append(f"compute capability {device.capability[0]}.{device.capability[1]}")
    if device.architecture is not None:
        facts.append(device.architecture.architecture)
    value = "; ".join((", ".join(facts), *device.limits))
    name = f"{device.kind}:{device.index}"
    if device.ready is False:
        return Check("GPU", name, "note", f"not usable: {value}", _device_fix(device))
    return Check("GPU", name, "note" if device.limits else "ok", value)


def _device_fix(device: Accelerator) -> str | None:
    if device.kind in (DeviceKind.CUDA, DeviceKind.ROCM, DeviceKind.XPU):
        return f"install torch for {device.kind}: https://pytorch.org/get-started/locally/"
    return None


def attention_check(kernels: Sequence[AttentionKernel], device: Accelerator | None) -> Check:
    """Which attention kernels can be used, and why the others cannot."""
    there = [kernel.name for kernel in kernels if kernel.usable]
    maybe = [f"{kernel.name} ({kernel.why})" for kernel in kernels if kernel.usable is None]
    absent = [f"{kernel.name} ({kernel.why})" for kernel in kernels if kernel.usable is False]
    where = "cpu" if device is None else f"{device.kind}:{device.index}"
    value = f"on {where}: {', '.join(there) or 'none'}"
    if maybe:
        value += f"; perhaps {', '.join(maybe)}"
    if absent and device is not None:
        value += f"; not {', '.join(absent)}"
    return Check("GPU", "attention", "ok" if there else "optional", value)


def torch_cuda_build() -> str | None:
    """The CUDA version that the installed torch was built with; None for other builds."""
    return torch_build("cuda")


def torch_build(name: str) -> str | None:
    """``cuda`` or ``hip`` in the installed torch's ``version.py``; torch is not loaded."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    try:
        text = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    match = re.search(rf"^{name}\b[^=\n]*=\s*['\"]([\d.]+)[^'\"]*['\"]", text, re.MULTILINE)
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
