"""Devices as libraries and the system tell of them; no card is needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from octavo.hardware import accelerators as module
from octavo.hardware.accelerators import DeviceKind, accelerators, to_ask
from octavo.hardware.architectures import NVIDIA, nvidia_limits, runs_on
from octavo.hardware.asking import Answer, ask
from octavo.hardware.drivers import cards, may_have_devices, nvidia_driver
from octavo.hardware.spec import Precision

GB = 10**9

#: A torch built for CUDA 12.6 that sees two cards, one of which is full.
TORCH = """
__version__ = "2.9.0+cu126"
class version: cuda, hip = "12.6", None
class _Card:
    def __init__(self, name, major, minor):
        self.name, self.major, self.minor = name, major, minor
        self.total_memory, self.shared_memory_per_block_optin = 11 * 10**9, 49152
class cuda:
    @staticmethod
    def init(): pass
    @staticmethod
    def device_count(): return 2
    @staticmethod
    def get_device_properties(n): return [_Card("Drawn 1080", 6, 1), _Card("Drawn 4090", 8, 9)][n]
    @staticmethod
    def mem_get_info(n):
        if n: raise RuntimeError("CUDA error: out of memory")
        return 10 * 10**9, 11 * 10**9
    @staticmethod
    def get_arch_list(): return ["sm_50", "sm_60", "sm_80", "sm_86"]
class backends:
    class cuda:
        @staticmethod
        def is_flash_attention_available(): return True
class ops: aten = object()
"""
NO_DRIVER = """
__version__ = "2.13.0+cu130"
class version: cuda, hip = "13.0", None
class cuda:
    @staticmethod
    def init(): raise RuntimeError("The NVIDIA driver on your system is too old\\nmore")
class backends:
    class cuda:
        @staticmethod
        def is_flash_attention_available(): return True
class ops: aten = object()
"""
NVML = """
class NVMLError(Exception): pass
def nvmlInit(): pass
def nvmlDeviceGetCount(): return 1
def nvmlDeviceGetHandleByIndex(n): return n
def nvmlDeviceGetName(h): return b"Drawn P40"
class _M: total, free = 24 * 10**9, 20 * 10**9
def nvmlDeviceGetMemoryInfo(h): return _M
def nvmlDeviceGetCudaComputeCapability(h): return 6, 1
def nvmlSystemGetCudaDriverVersion_v2(): return 12040
def nvmlSystemGetDriverVersion(): return "550.54.15"
"""


def torch_says(**facts: Any) -> dict[str, Answer]:
    found = {"version": "2.13.0", "cuda": None, "hip": None, "devices": [], "why": None} | facts
    return {"torch": Answer(found)}


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def asked(folder: Path, monkeypatch: pytest.MonkeyPatch, **sources: str) -> dict[str, Answer]:
    """What libraries of these sources answer, loaded in the other process."""
    for name, text in sources.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return ask(list(sources))


def test_cards_that_torch_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = asked(tmp_path, monkeypatch, pynvml=NVML, torch=TORCH)
    pascal, ada = accelerators(root=tmp_path, answers=answers)
    assert (pascal.kind, pascal.name, pascal.index) == (DeviceKind.CUDA, "Drawn 1080", 0)
    assert (pascal.total_bytes, pascal.free_bytes) == (11 * GB, 10 * GB)
    assert (pascal.capability, pascal.driver, pascal.ready) == ((6, 1), "550.54.15", True)
    assert (ada.capability, ada.index, ada.limits, ada.ready) == ((8, 9), 1, (), True)
    assert ada.free_bytes is None  # it could not be asked
    assert ada.precisions == frozenset(Precision)


def test_a_torch_for_rocm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch calls AMD's devices by CUDA's names; their numbers are not compute capabilities."""
    source = TORCH.replace('cuda, hip = "12.6", None', 'cuda, hip = None, "6.4"')
    found = accelerators(root=tmp_path, answers=asked(tmp_path, monkeypatch, torch=source))
    assert [one.kind for one in found] == [DeviceKind.ROCM, DeviceKind.ROCM]
    assert found[0].capability is None
    assert found[0].free_bytes == 10 * GB


def test_what_a_pascal_card_cannot_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pascal = accelerators(root=tmp_path, answers=asked(tmp_path, monkeypatch, torch=TORCH))[0]
    assert pascal.precisions == {Precision.FP32, Precision.FP16, Precision.INT8, Precision.INT4}
    assert pascal.architecture is not None
    assert not pascal.architecture.tensor_cores
    assert not pascal.architecture.flash_attention
    assert pascal.architecture.shared_bytes_per_block == 48 * 1024
    assert pascal.architecture.advised_tensor_bytes == 512 * 10**6
    words = " / ".join(pascal.limits)
    for part in ("bfloat16", "tensor cores", "flash attention", "48 KiB", "512 MB", "1/64"):
        assert part in words


def test_old_and_new_generations() -> None:
    for capability in ((3, 5), (5, 2), (6, 0), (6, 1), (7, 0), (7, 5)):
        limits = nvidia_limits(capability)
        assert limits is not None
        assert Precision.BF16 not in limits.precisions
        assert limits.reasons
        assert not limits.flash_attention
    for capability, limits in NVIDIA.items():
        if capability >= (8, 0):
            assert limits.precisions == frozenset(Precision)
            assert limits.flash_attention
            assert not limits.reasons
        # Tensor cores came with Volta.
        assert limits.tensor_cores == (capability >= (7, 0))
    assert nvidia_limits((99, 0)) is None


@pytest.mark.parametrize(
    ("built_for", "capability", "expected"),
    [
        (["sm_60"], (6, 1), True),
        (["sm_75", "sm_80"], (6, 1), False),
        (["sm_86"], (8, 0), False),
        (["sm_80"], (9, 0), False),
        (["compute_80"], (9, 0), True),
        (["compute_90"], (8, 9), False),
        (["sm_90a"], (9, 0), True),
        (["sm_90a"], (10, 0), False),
        (["sm_120"], (12, 1), True),
        (["gfx90a"], (9, 0), False),
    ],
)
def test_which_kernels_run_where(
    built_for: list[str], capability: tuple[int, int], expected: bool
) -> None:
    assert runs_on(built_for, capability) is expected


def test_a_card_that_this_torch_has_no_kernels_for(tmp_path: Path) -> None:
    card = {"kind": "cuda", "index": 0, "name": "P40", "capability": [6, 1], "total": 24 * GB}
    answers = torch_says(cuda="13.0", devices=[card], built_for=["sm_75", "sm_90"])
    found = accelerators(root=tmp_path, answers=answers)[0]
    assert found.ready is False
    assert "no kernels for compute capability 6.1 (it has sm_75, sm_90)" in found.limits[0]


def test_a_generation_that_nobody_knows_yet(tmp_path: Path) -> None:
    card = {"kind": "cuda", "index": 0, "name": "New", "capability": [99, 0]}
    found = accelerators(root=tmp_path, answers=torch_says(cuda="19.0", devices=[card]))[0]
    assert (found.precisions, found.architecture, found.total_bytes) == (None, None, None)


@pytest.mark.parametrize(
    ("torch", "why"),
    [
        ({}, "torch is not installed"),
        ({"torch": Answer(None, "libc10.so")}, "torch does not load: libc10.so"),
        (torch_says(version="2.13.0+cpu"), "torch 2.13.0+cpu is built without cuda"),
        (torch_says(cuda="12.6"), "torch does not see it"),
    ],
)
def test_a_card_that_torch_does_not_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torch: dict[str, Answer], why: str
) -> None:
    answers = asked(tmp_path, monkeypatch, pynvml=NVML) | torch
    (found,) = accelerators(root=tmp_path, answers=answers)
    assert (found.name, found.total_bytes, found.capability) == ("Drawn P40", 24 * GB, (6, 1))
    assert (found.ready, found.limits[0]) == (False, why)
    assert found.architecture is not None


def test_a_driver_that_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = asked(tmp_path, monkeypatch, torch=NO_DRIVER)
    tree(
        tmp_path,
        {
            "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64"
            "  560.35.03  Release\n",
            "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t Drawn P40\nIRQ: 1\n",
            "sys/class/drm/card0/device/vendor": "0x10de\n",
        },
    )
    (found,) = accelerators(root=tmp_path, answers=answers)
    assert (found.name, found.driver, found.ready) == ("Drawn P40", "560.35.03", False)
    assert found.limits == ("The NVIDIA driver on your system is too old",)


def test_a_management_library_without_a_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = NVML.replace("def nvmlInit(): pass", "def nvmlInit(): raise NVMLError('no driver')")
    answers = asked(tmp_path, monkeypatch, pynvml=broken)
    assert answers["pynvml"].found == {"devices": [], "why": "no driver"}
    assert accelerators(root=tmp_path, answers=answers) == ()


def test_an_amd_card_by_its_driver(tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "sys/class/drm/card1/device/vendor": "0x1002\n",
            "sys/class/drm/card1/device/mem_info_vram_total": f"{16 * GB}\n",
            "sys/class/drm/card1/device/mem_info_vram_used": f"{GB}\n",
            "sys/class/drm/card2/device/vendor": "nonsense\n",
            "sys/class/drm/card1-HDMI-A-1/status": "connected\n",
        },
    )
    (found,) = accelerators(root=tmp_path, answers=torch_says())
    assert (found.kind, found.total_bytes, found.free_bytes) == (DeviceKind.ROCM, 16 * GB, 15 * GB)
    assert found.ready is False
    assert "built without rocm" in found.limits[0]


def test_devices_of_other_makers_through_torch(tmp_path: Path) -> None:
    answers = torch_says(
        hip="6.4",
        devices=[
            {"kind": "rocm", "index": 0, "name": "Drawn MI", "total": 64 * GB, "free": GB},
            {"kind": "mps", "index": 0, "total": 12 * GB, "free": 11 * GB},
            {"kind": "xpu", "index": 0, "name": "Drawn Arc", "total": 8 * GB, "driver": "1.6"},
        ],
    )
    rocm, mps, xpu = accelerators(root=tmp_path, answers=answers)
    assert (rocm.kind, rocm.kind.torch_type, rocm.ready) == (DeviceKind.ROCM, "cuda", True)
    assert (mps.kind, mps.free_bytes, mps.shared_memory) == (DeviceKind.MPS, 11 * GB, True)
    assert mps.precisions is not None
    assert Precision.INT4 not in mps.precisions
    assert (xpu.kind, xpu.driver) == (DeviceKind.XPU, "1.6")


def test_openvino_and_onnxruntime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = """
__version__ = "2026.4"
class Core:
    available_devices = ["CPU", "NPU"]
    def get_property(self, name, key):
        if name == "NPU": raise RuntimeError("no driver")
        return "Drawn CPU" if key == "FULL_DEVICE_NAME" else ["FP32", "INT8", "BIN"]
"""
    runtime = (
        "def get_available_providers(): return ['QNNExecutionProvider', 'CPUExecutionProvider']"
    )
    answers = asked(tmp_path, monkeypatch, openvino=openvino, onnxruntime=runtime)
    cpu, npu, qnn = accelerators(root=tmp_path, answers=answers)
    assert (cpu.kind, cpu.name) == (DeviceKind.OPENVINO, "CPU: Drawn CPU")
    assert cpu.precisions == {Precision.FP32, Precision.INT8}
    assert (npu.name, npu.precisions, npu.index) == ("NPU: NPU", None, 1)
    assert (qnn.kind, qnn.ready, qnn.kind.torch_type) == (DeviceKind.QNN, None, None)


def test_nothing_is_asked_where_there_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "installed", lambda name: name != "openvino")
    if sys.platform == "linux":
        assert not may_have_devices(tmp_path)
        assert to_ask(tmp_path) == ()
    tree(tmp_path, {"dev/kfd": ""})
    assert may_have_devices(tmp_path)
    assert to_ask(tmp_path) == ("pynvml", "torch", "onnxruntime")


def test_the_driver_without_a_library(tmp_path: Path) -> None:
    assert nvidia_driver(tmp_path) is None
    assert cards(tmp_path) == ()
    text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar 5\nGCC version: 12\n"
    tree(tmp_path, {"proc/driver/nvidia/version": text})
    assert nvidia_driver(tmp_path) == "550.54.15"
