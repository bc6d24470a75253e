"""Loads libraries and prints what they say: run as a program by :mod:`octavo.hardware.asking`.

A wrong build of a native library can end the process that loads it, so this runs in one of its
own, by its path: it imports nothing of Octavo. Each name is printed before it is tried.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

Facts = dict[str, Any]


def onnxruntime(module: Any) -> Facts:
    return {"providers": list(module.get_available_providers())}


def openvino(module: Any) -> Facts:
    core = module.Core()
    devices = []
    for name in core.available_devices:
        try:
            full = str(core.get_property(name, "FULL_DEVICE_NAME"))
            able = [str(text) for text in core.get_property(name, "OPTIMIZATION_CAPABILITIES")]
        except RuntimeError:  # a plugin that lists a device and cannot open it
            full, able = name, None
        devices.append({"device": name, "name": full, "able": able})
    return {"version": str(module.__version__), "devices": devices}


def pynvml(module: Any) -> Facts:
    """NVIDIA's management library: the cards and the driver, whatever torch is built for."""
    try:
        module.nvmlInit()
    except module.NVMLError as error:
        return {"devices": [], "why": str(error)}
    devices = []
    for number in range(module.nvmlDeviceGetCount()):
        handle = module.nvmlDeviceGetHandleByIndex(number)
        facts: Facts = {"name": _text(module.nvmlDeviceGetName(handle))}
        # Each can be "not supported": cards with shared memory have no figures of their own.
        with suppress(module.NVMLError):
            memory = module.nvmlDeviceGetMemoryInfo(handle)
            facts |= {"total": int(memory.total), "free": int(memory.free)}
        with suppress(module.NVMLError):
            facts["capability"] = list(module.nvmlDeviceGetCudaComputeCapability(handle))
        devices.append(facts)
    cuda = None
    with suppress(module.NVMLError):
        cuda = int(module.nvmlSystemGetCudaDriverVersion_v2())
    return {
        "driver": _text(module.nvmlSystemGetDriverVersion()),
        "cuda": None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
        "devices": devices,
    }


def torch(module: Any) -> Facts:
    facts: Facts = {
        "version": str(module.__version__),
        "cuda": module.version.cuda,
        "hip": module.version.hip,
        "devices": [],
        "why": None,
        "flash": bool(module.backends.cuda.is_flash_attention_available()),
        "cpu_flash": hasattr(module.ops.aten, "_scaled_dot_product_flash_attention_for_cpu"),
    }
    if module.version.cuda or module.version.hip:
        try:
            module.cuda.init()
        except (RuntimeError, AssertionError) as error:
            facts["why"] = str(error).strip().splitlines()[0]
        else:
            facts["devices"] += _torch_cuda(module)
            facts["built_for"] = list(module.cuda.get_arch_list())
    mps = getattr(module.backends, "mps", None)
    if mps is not None and mps.is_available():
        most = int(module.mps.recommended_max_memory())
        used = int(module.mps.driver_allocated_memory())
        facts["devices"].append({"kind": "mps", "index": 0, "total": most, "free": most - used})
    xpu = getattr(module, "xpu", None)
    if xpu is not None and xpu.is_available():
        facts["devices"] += _torch_xpu(xpu)
    return facts


def _torch_cuda(module: Any) -> list[Facts]:
    kind = "rocm" if module.version.hip else "cuda"
    found = []
    for number in range(module.cuda.device_count()):
        card = module.cuda.get_device_properties(number)
        facts = {
            "kind": kind,
            "index": number,
            "name": card.name,
            "total": int(card.total_memory),
            "capability": [card.major, card.minor],
            "shared_per_block": getattr(card, "shared_memory_per_block_optin", None),
            "gfx": getattr(card, "gcnArchName", None),
            "integrated": bool(getattr(card, "is_integrated", False)),
        }
        with suppress(RuntimeError):  # a full card has no room for a context to ask from
            facts["free"] = int(module.cuda.mem_get_info(number)[0])
        found.append(facts)
    return found


def _torch_xpu(xpu: Any) -> list[Facts]:
    found = []
    for number in range(xpu.device_count()):
        card = xpu.get_device_properties(number)
        facts = {
            "kind": "xpu",
            "index": number,
            "name": card.name,
            "total": int(card.total_memory),
            "driver": getattr(card, "driver_version", None),
        }
        with suppress(RuntimeError):  # not every driver counts it
            facts["free"] = int(xpu.mem_get_info(number)[0])
        found.append(facts)
    return found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _version(module: Any) -> Facts:
    return {"version": str(getattr(module, "__version__", "")) or None}


#: What is asked of a library beyond its version.
QUESTIONS: Final[dict[str, Callable[[Any], Facts]]] = {
    "onnxruntime": onnxruntime,
    "openvino": openvino,
    "pynvml": pynvml,
    "torch": torch,
}
#: What importing a library that does not fit raises; anything else ends this process.
_BROKEN: Final = (ImportError, OSError, AttributeError, RuntimeError, ValueError, TypeError)


def main(names: list[str]) -> None:
    for name in names:
        _say({"name": name})
        try:
            module = importlib.import_module(name)
            found = QUESTIONS.get(name, _version)(module)
        except _BROKEN as error:
            _say({"name": name, "error": str(error).strip() or type(error).__name__})
        else:
            _say({"name": name, "found": found})


def _say(facts: Facts) -> None:
    # Libraries print greetings on stdout: the mark tells them from answers.
    print(f"octavo {json.dumps(facts)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
