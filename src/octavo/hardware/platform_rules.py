"""Combinations of settings that cannot be, each with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from octavo.errors import ConfigError
from octavo.hardware.accelerators import Accelerator
from octavo.hardware.kernels import AttentionKernel
from octavo.hardware.platform_table import Cell, FamilyRow, Platform, check_known
from octavo.hardware.probe import Hardware
from octavo.hardware.spec import Precision

if TYPE_CHECKING:
    from octavo.hardware.platforms import Settings

ATTENTION: Final = ("eager", "sdpa", "flash_attention_2", "flex_attention")
CAPTURE: Final = ("none", "compile", "graphs")
POWER: Final = ("performance", "balanced", "low")
_FLASH_LEAST: Final = (8, 0)
_COMPILE_LEAST: Final = (7, 0)


@dataclass(frozen=True, slots=True)
class Case:
    """A family on one machine. What is not known is None and forbids nothing."""

    family: FamilyRow
    cell: Cell
    hardware: Hardware | None = None
    device: Accelerator | None = None
    kernels: Sequence[AttentionKernel] | None = None

    @property
    def memory_bytes(self) -> int | None:
        """Of the device, or of the process on a processor."""
        if self.cell.platform is not Platform.CPU:
            return self.device.total_bytes if self.device else None
        return self.hardware.memory.usable if self.hardware else None

    def unable(self, precision: Precision) -> str | None:
        """Why weights cannot be held and computed in a precision; None when they can."""
        for never in (self.family.never, self.cell.never):
            if precision in never:
                return never[precision]
        device = self.device
        if device is None or device.precisions is None or precision in device.precisions:
            return None
        named = {"bf16": "bfloat16"}.get(precision.value, precision.value)
        told = [limit for limit in device.limits if named in limit]
        return told[0] if told else f"{device.name or device.kind} does not compute in it"

    def emulated(self, precision: Precision) -> bool:
        """Whether a processor computes it by widening every number first."""
        if self.cell.platform is not Platform.CPU or self.hardware is None:
            return False
        able = {Precision.BF16: self.hardware.cpu.bf16, Precision.FP16: self.hardware.cpu.fp16}
        return able.get(precision, True) is False


def check(settings: Settings, case: Case) -> tuple[str, ...]:
    """What to know about settings that are possible but slow.

    Raises:
        ConfigError: they are not possible.
    """
    _check_values(settings, case)
    notes = []
    for part, precision in settings.precisions.items():
        why = case.unable(precision)
        if why is not None:
            raise ConfigError(
                f"{settings.family} cannot have {part} in {precision} on {settings.platform}: "
                f"{why}",
                where=f"{part} precision",
                next_step=f"use {_other(case)}",
            )
        if case.emulated(precision):
            notes.append(f"{part} in {precision}: emulated by this processor, slower than fp32")
    for name, why in (*_attention(settings, case), *_capture(settings, case)):
        raise ConfigError(why, where=f"{name}={getattr(settings, name)}", next_step=_instead(name))
    return tuple(notes)


def _check_values(settings: Settings, case: Case) -> None:
    for name, known in (("attention", ATTENTION), ("capture", CAPTURE), ("power", POWER)):
        check_known(str(getattr(settings, name)), known, name)
    for name in ("batch", "kv_tokens", "long_edge_px", "threads"):
        value: Any = getattr(settings, name)
        # bool is an int, and True would pass for 1.
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise ConfigError(f"{name} must be a whole number", where=f"{name}={value!r}")
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1", where=f"{name}={value}")
    if settings.batch is None:
        raise ConfigError("batch must be a whole number", where="batch")
    if settings.kv_tokens is not None and case.cell.kv_tokens is None:
        raise ConfigError(f"{settings.family} has no KV cache", where="kv_tokens")


def _other(case: Case) -> str:
    """Precisions that would do."""
    return ", ".join(one for one in Precision if case.unable(one) is None)


def _instead(name: str) -> str:
    return {"attention": "use attention=sdpa", "capture": "use capture=none"}[name]


def _attention(settings: Settings, case: Case) -> Iterator[tuple[str, str]]:
    if settings.attention == "flash_attention_2":
        yield from (("attention", why) for why in _no_flash(settings, case))
    known = {kernel.name: kernel for kernel in case.kernels or ()}
    kernel = known.get(settings.attention)
    if kernel is not None and kernel.usable is False:
        yield "attention", f"{kernel.name} cannot be used here: {kernel.why}"
    if case.family.kind == "speech" and settings.attention != case.cell.attention:
        yield "attention", "CTranslate2, which runs it, has its own attention"


def _no_flash(settings: Settings, case: Case) -> Iterator[str]:
    if settings.platform not in (Platform.CUDA, Platform.ROCM):
        yield f"flash_attention_2 has no kernels for {settings.platform}"
    device = case.device
    if device is not None and device.capability is not None and device.capability < _FLASH_LEAST:
        yield (
            f"flash_attention_2 needs compute capability 8.0, {device.name} has "
            f"{device.capability[0]}.{device.capability[1]}"
        )
    if Precision.FP32 in settings.precisions.values():
        yield "flash_attention_2 computes in fp16 and bf16 only, not in fp32"


def _capture(settings: Settings, case: Case) -> Iterator[tuple[str, str]]:
    device = case.device
    if settings.capture == "graphs" and settings.platform not in (Platform.CUDA, Platform.ROCM):
        yield "capture", f"CUDA graphs are not for {settings.platform}"
    if settings.capture != "none" and case.family.kind == "speech":
        yield "capture", "CTranslate2, which runs it, is not captured"
    if (
        settings.capture == "compile"
        and device is not None
        and device.capability is not None
        and device.capability < _COMPILE_LEAST
    ):
        yield "capture", f"torch.compile needs compute capability 7.0; {device.name} is older"
