"""Devices beside the processor: what they are, what they hold, what they cannot do.

Libraries are asked in a process of their own (:mod:`octavo.hardware.asking`), because a wrong
build can end the one that loads it; torch alone takes a second or two. Where the system shows no
device at all, nothing is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from octavo.hardware.architectures import DeviceLimits, nvidia_limits, read_capability, runs_on
from octavo.hardware.asking import Answers, ask, installed
from octavo.hardware.drivers import cards, may_have_devices, nvidia_driver
from octavo.hardware.spec import Precision

__all__ = ["Accelerator", "DeviceKind", "DeviceLimits", "accelerators"]


class DeviceKind(StrEnum):
    """The library that a device is driven by."""

    CPU = "cpu"
    CUDA = "cuda"
    ROCM = "rocm"
    MPS = "mps"
    XPU = "xpu"
    OPENVINO = "openvino"
    QNN = "qnn"
    COREML = "coreml"
    DIRECTML = "directml"

    @property
    def torch_type(self) -> str | None:
        """The name of torch's device; None where torch does not drive it.

        torch calls AMD's devices ``cuda`` too.
        """
        if self is DeviceKind.ROCM:
            return "cuda"
        return self.value if self in _BY_TORCH else None


_BY_TORCH: Final = frozenset({DeviceKind.CPU, DeviceKind.CUDA, DeviceKind.MPS, DeviceKind.XPU})

#: ONNX Runtime's providers, by the devices that they drive.
PROVIDERS: Final = {
    "QNNExecutionProvider": DeviceKind.QNN,
    "CoreMLExecutionProvider": DeviceKind.COREML,
    "DmlExecutionProvider": DeviceKind.DIRECTML,
}


@dataclass(frozen=True, slots=True)
class Accelerator:
    """One device. What could not be found out is None.

    Attributes:
        kind: which library drives it.
        name: as its driver calls it.
        total_bytes, free_bytes: of its own memory, or of what it may take of main memory.
        capability: CUDA compute capability; None for devices of other makers.
        precisions: that weights may be held in and computed with; None: unknown.
        limits: what it cannot do, in words.
        index: among devices of its kind, as torch counts them.
        ready: whether the libraries here can compute on it; ``limits`` says why not. None:
            unknown before a model is opened on it.
        architecture: what its generation can do; None: unknown.
        driver: the driver's version.
        shared_memory: its memory is part of main memory.
    """

    kind: DeviceKind
    name: str | None
    total_bytes: int | None
    free_bytes: int | None
    capability: tuple[int, int] | None
    precisions: frozenset[Precision] | None
    limits: tuple[str, ...] = ()
    index: int = 0
    ready: bool | None = True
    architecture: DeviceLimits | None = None
    driver: str | None = None
    shared_memory: bool = False


def accelerators(
    *, root: Path = Path("/"), answers: Answers | None = None
) -> tuple[Accelerator, ...]:
    """Devices beside the processor, those that torch can use first. Never raises for a broken
    library: what it would have said is unknown.

    Args:
        root: where ``proc``, ``sys`` and ``dev`` are mounted.
        answers: of ``pynvml``, ``torch``, ``openvino`` and ``onnxruntime``; asked for by default.
    """
    replies = ask(to_ask(root)) if answers is None else answers
    found = [*_by_torch(replies, root)]
    found += _not_by_torch(replies, root, {device.kind for device in found})
    return (*found, *_by_openvino(replies), *_by_onnxruntime(replies))


def to_ask(root: Path = Path("/")) -> tuple[str, ...]:
    """Libraries worth asking: installed, and with something to drive."""
    names = ("pynvml", "torch", "onnxruntime") if may_have_devices(root) else ()
    return tuple(name for name in (*names, "openvino") if installed(name))


def _said(answers: Answers, name: str) -> Mapping[str, Any]:
    answer = answers.get(name)
    return answer.found or {} if answer else {}


def _by_torch(answers: Answers, root: Path) -> Iterator[Accelerator]:
    torch = _said(answers, "torch")
    driver = _said(answers, "pynvml").get("driver") or nvidia_driver(root)
    for facts in torch.get("devices", ()):
        kind = DeviceKind(facts["kind"])
        if kind is DeviceKind.CUDA:
            yield _nvidia(facts, driver, built_for=torch.get("built_for"))
        elif kind is DeviceKind.MPS:
            yield _apple(facts)
        else:
            yield Accelerator(
                kind,
                facts.get("name"),
                facts.get("total"),
                facts.get("free"),
                None,
                _CURRENT,
                limits=(f"{kind.value} is reached through torch; Octavo has not been tried on it",),
                index=facts["index"],
                driver=facts.get("driver"),
                shared_memory=facts.get("integrated", False),
            )


#: What torch computes with on AMD's and Intel's devices; int8 by weights that are widened.
_CURRENT: Final = frozenset(Precision) - {Precision.INT4}


def _nvidia(
    facts: Mapping[str, Any], driver: str | None, *, built_for: list[str] | None
) -> Accelerator:
    capability = read_capability(facts.get("capability"))
    able = nvidia_limits(capability) if capability else None
    limits = able.reasons if able else ()
    ready = runs_on(built_for, capability) if built_for and capability else True
    if not ready and capability:
        major, minor = capability
        limits = (
            f"this torch has no kernels for compute capability {major}.{minor} "
            f"(it has {', '.join(built_for or ())})",
            *limits,
        )
    return Accelerator(
        DeviceKind.CUDA,
        facts.get("name"),
        facts.get("total"),
        facts.get("free"),
        capability,
        able.precisions if able else None,
        limits=limits,
        index=facts.get("index", 0),
        ready=ready,
        architecture=able,
        driver=driver,
        shared_memory=facts.get("integrated", False),
    )


def _apple(facts: Mapping[str, Any]) -> Accelerator:
    return Accelerator(
        DeviceKind.MPS,
        "Apple GPU",
        facts.get("total"),
        facts.get("free"),
        None,
        frozenset({Precision.FP32, Precision.FP16, Precision.BF16}),
        limits=(
            "no int8 or int4 weights: the kernels that widen them are for CPU and CUDA",
            "Octavo has not been tried on it",
        ),
        shared_memory=True,
    )


def _not_by_torch(answers: Answers, root: Path, known: set[DeviceKind]) -> Iterator[Accelerator]:
    """Cards that a driver shows and torch does not."""
    if DeviceKind.CUDA not in known:
        yield from _unused_nvidia(answers, root)
    for card in cards(root):
        kind = {"AMD": DeviceKind.ROCM, "Intel": DeviceKind.XPU}.get(card.vendor or "")
        if kind is not None and kind not in known:
            yield Accelerator(
                kind,
                f"{card.vendor} {card.name}",
                card.total_bytes,
                card.free_bytes,
                None,
                None,
                limits=(_why_unused(answers, kind),),
                ready=False,
            )


def _unused_nvidia(answers: Answers, root: Path) -> Iterator[Accelerator]:
    said = _said(answers, "pynvml")
    driver = said.get("driver") or nvidia_driver(root)
    shown = said.get("devices") or [
        {"name": card.name} for card in cards(root) if card.vendor == "NVIDIA"
    ]
    why = _why_unused(answers, DeviceKind.CUDA)
    for number, facts in enumerate(shown):
        capability = read_capability(facts.get("capability"))
        able = nvidia_limits(capability) if capability else None
        yield Accelerator(
            DeviceKind.CUDA,
            facts.get("name"),
            facts.get("total"),
            facts.get("free"),
            capability,
            able.precisions if able else None,
            limits=(why, *(able.reasons if able else ())),
            index=number,
            ready=False,
            architecture=able,
            driver=driver,
        )


def _why_unused(answers: Answers, kind: DeviceKind) -> str:
    answer = answers.get("torch")
    if answer is None:
        return "torch is not installed"
    if answer.found is None:
        return f"torch does not load: {answer.error}"
    build = {DeviceKind.CUDA: "cuda", DeviceKind.ROCM: "hip"}.get(kind)
    if build is not None and answer.found.get(build) is None:
        return f"torch {answer.found['version']} is built without {kind.value}"
    return answer.found.get("why") or "torch does not see it"


def _by_openvino(answers: Answers) -> Iterator[Accelerator]:
    by_word = {"FP32": Precision.FP32, "FP16": Precision.FP16, "BF16": Precision.BF16,
               "INT8": Precision.INT8}  # fmt: skip
    for number, facts in enumerate(_said(answers, "openvino").get("devices", ())):
        able = facts.get("able")
        yield Accelerator(
            DeviceKind.OPENVINO,
            f"{facts['device']}: {facts['name']}",
            None,
            None,
            None,
            None if able is None else frozenset(by_word[word] for word in able if word in by_word),
            limits=("Octavo has no models in OpenVINO's format",),
            index=number,
            ready=None,
        )


def _by_onnxruntime(answers: Answers) -> Iterator[Accelerator]:
    for provider in _said(answers, "onnxruntime").get("providers", ()):
        if provider in PROVIDERS:
            yield Accelerator(
                PROVIDERS[provider],
                provider,
                None,
                None,
                None,
                None,
                limits=("in this onnxruntime; a device behind it shows when a model is opened",),
                ready=None,
            )
