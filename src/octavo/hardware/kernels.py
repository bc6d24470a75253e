"""Which ways to compute attention are there, on a device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from octavo.hardware.accelerators import Accelerator, DeviceKind
from octavo.hardware.asking import Answers, ask, installed

#: What is asked; flash_attn and xformers need torch in the same process, so it goes first.
PACKAGES: Final = ("torch", "triton", "flash_attn", "xformers")

#: Least compute capability. Flash: README of FlashAttention-2, and torch's own check. Triton:
#: torch's compiler refuses older ones (torch/_inductor/scheduler.py). Memory-efficient: torch's
#: list of CUTLASS kernels starts at 5.0.
_LEAST: Final = {"flash": (8, 0), "triton": (7, 0), "mem-efficient": (5, 0)}


@dataclass(frozen=True, slots=True)
class AttentionKernel:
    """One way to compute attention.

    Attributes:
        name: ``eager``, ``sdpa``, ``flash_attention_2`` and ``flex_attention`` are also the
            names that ``attention=`` takes; ``sdpa-…`` are what ``sdpa`` chooses among.
        usable: None where that cannot be known.
        why: why it is not usable, or the version of its package.
    """

    name: str
    usable: bool | None
    why: str | None = None


def attention_kernels(
    device: Accelerator | None = None, *, answers: Answers | None = None
) -> tuple[AttentionKernel, ...]:
    """The ways to compute attention on a device; on the processor without one.

    Args:
        device: where; the processor by default.
        answers: of :data:`PACKAGES`; asked for by default.
    """
    replies = ask_packages() if answers is None else answers
    torch = replies.get("torch")
    if torch is None or torch.found is None:
        why = "torch is not installed" if torch is None else f"torch does not load: {torch.error}"
        names = ("eager", "sdpa", "flex_attention", "flash_attention_2")
        return tuple(AttentionKernel(name, False, why) for name in names)
    return (
        AttentionKernel("eager", True),
        AttentionKernel("sdpa", True),
        AttentionKernel("sdpa-math", True),
        *_inside_sdpa(torch.found, device),
        _flex(replies, device),
        _flash_package(replies, device),
        _package(replies, "xformers", device, "mem-efficient"),
        _package(replies, "triton", device, "triton"),
    )


def ask_packages() -> Answers:
    """The answers of the packages that are installed."""
    return ask([name for name in PACKAGES if installed(name)])


def _inside_sdpa(torch: Mapping[str, Any], device: Accelerator | None) -> Iterator[AttentionKernel]:
    kind = DeviceKind.CPU if device is None else device.kind
    if kind is DeviceKind.CPU:
        there = bool(torch.get("cpu_flash"))
        yield AttentionKernel("sdpa-flash", there, None if there else "not in this torch")
        yield AttentionKernel("sdpa-mem-efficient", False, "CUDA and ROCm only")
    elif kind is DeviceKind.CUDA:
        built = bool(torch.get("flash"))
        old = _too_old(device, "flash")
        why = old or (None if built else "not built into this torch")
        yield AttentionKernel("sdpa-flash", why is None, why)
        old = _too_old(device, "mem-efficient")
        yield AttentionKernel("sdpa-mem-efficient", old is None, old)
    else:
        # torch decides for each shape; it does not say before.
        yield AttentionKernel("sdpa-flash", None, "torch chooses for each shape")
        yield AttentionKernel("sdpa-mem-efficient", None, "torch chooses for each shape")


def _flex(answers: Answers, device: Accelerator | None) -> AttentionKernel:
    name = "flex_attention"
    if device is None or device.kind is DeviceKind.CPU:
        return AttentionKernel(name, None, "compiled by a C++ compiler, which must be there")
    if device.kind is DeviceKind.MPS:
        return AttentionKernel(name, False, "needs triton, which has no Metal")
    triton = _package(answers, "triton", device, "triton")
    return AttentionKernel(name, triton.usable, None if triton.usable else f"triton: {triton.why}")


def _flash_package(answers: Answers, device: Accelerator | None) -> AttentionKernel:
    found = _package(answers, "flash_attn", device, "flash")
    return AttentionKernel("flash_attention_2", found.usable, found.why)


def _package(
    answers: Answers, module: str, device: Accelerator | None, least: str
) -> AttentionKernel:
    if device is None or device.kind not in (DeviceKind.CUDA, DeviceKind.ROCM, DeviceKind.XPU):
        return AttentionKernel(module, False, "not for this kind of device")
    answer = answers.get(module)
    if answer is None:
        return AttentionKernel(module, False, "not installed")
    if answer.found is None:
        return AttentionKernel(module, False, f"does not load: {answer.error}")
    old = _too_old(device, least)
    if old is not None:
        return AttentionKernel(module, False, old)
    if device.kind is DeviceKind.XPU and module != "triton":
        return AttentionKernel(module, False, "CUDA and ROCm only")
    return AttentionKernel(module, True, answer.found.get("version"))


def _too_old(device: Accelerator | None, kernel: str) -> str | None:
    if device is None or device.kind is not DeviceKind.CUDA or device.capability is None:
        return None
    major, minor = _LEAST[kernel]
    if device.capability >= (major, minor):
        return None
    own = ".".join(map(str, device.capability))
    return f"needs compute capability {major}.{minor}, this card has {own}"
