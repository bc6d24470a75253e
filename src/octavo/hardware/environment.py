"""Variables that torch reads when it first touches a device: debugging, and its allocator.

Sources: PyTorch, "CUDA semantics" (``PYTORCH_ALLOC_CONF``) and "CUDA environment variables"; the
allocator frees and splits no expandable segments (pull request 134338), so that option stands
alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from typing import Final

from octavo.errors import ConfigError
from octavo.hardware.accelerators import DeviceKind

_MIB: Final = 1 << 20
#: torch refuses a smaller max_split_size_mb: its large blocks have 20 MiB.
_LEAST_SPLIT_MB: Final = 32
_MOST_SPLIT_MB: Final = 512
#: Since this release the variable is the same for every kind of device.
_ONE_NAME_SINCE: Final = (2, 9)


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable and what it is for."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True)
class Allocator:
    """How torch's allocator suits a plan.

    Attributes:
        variables: to set before a device is first used.
        fraction: for ``torch.cuda.set_per_process_memory_fraction``: without it there is no
            bound to collect garbage under. None: the plan has the whole device.
    """

    variables: tuple[Variable, ...]
    fraction: float | None


def debug_variables(kind: DeviceKind = DeviceKind.CUDA) -> tuple[Variable, ...]:
    """What makes an error on a device point to the line that caused it; everything gets slower.

    Kernels run after the line that starts them has returned, so an error shows at some later one.
    """
    stack = Variable(
        "TORCH_SHOW_CPP_STACKTRACES", "1", "errors show the stack below Python as well"
    )
    if kind is DeviceKind.CUDA:
        why = "each kernel is waited for, so the line that raises is the one that failed"
        return (Variable("CUDA_LAUNCH_BLOCKING", "1", why), stack)
    if kind is DeviceKind.ROCM:
        why = "each kernel is waited for before it starts and after, so errors show in place"
        return (Variable("AMD_SERIALIZE_KERNEL", "3", why), stack)
    return (stack,)


def allocator(
    *,
    device_bytes: int,
    budget_bytes: int,
    resident_bytes: int,
    largest_bytes: int,
    kind: DeviceKind = DeviceKind.CUDA,
    expandable: bool | None = None,
    torch_version: str = "2.13",
) -> Allocator:
    """Settings of torch's allocator for a plan. Pure arithmetic.

    Args:
        device_bytes: of the device.
        budget_bytes: that the plan may take of it.
        resident_bytes: weights and KV cache, which stay.
        largest_bytes: of the largest single tensor that comes and goes.
        expandable: whether segments can grow in place; None: where torch has that (Linux, CUDA).

    Raises:
        ConfigError: numbers that no plan can have.
    """
    if not 0 < budget_bytes <= device_bytes or not 0 <= resident_bytes <= budget_bytes:
        raise ConfigError(
            f"a plan of {resident_bytes} resident bytes in a budget of {budget_bytes} on a device "
            f"of {device_bytes}",
            next_step="resident <= budget <= device",
        )
    if kind not in (DeviceKind.CUDA, DeviceKind.ROCM):
        return Allocator((), None)
    able = sys.platform == "linux" and kind is DeviceKind.CUDA
    options, reason = (
        _expandable()
        if (able if expandable is None else expandable)
        else _split(budget_bytes, resident_bytes, largest_bytes)
    )
    fraction = budget_bytes / device_bytes
    return Allocator(
        (Variable(_name(kind, torch_version), options, reason),),
        fraction if fraction < 1 else None,
    )


def apply(
    variables: Iterable[Variable],
    environ: MutableMapping[str, str] | None = None,
    *,
    strict: bool = False,
) -> tuple[str, ...]:
    """Sets variables for this process. What the user has set stays.

    Returns:
        Notes: what was not set, and why.

    Raises:
        ConfigError: with ``strict``, when a device was already used, so that it is too late.
    """
    found = os.environ if environ is None else environ
    wanted = list(variables)
    missed = [one for one in wanted if found.get(one.name) != one.value]
    if missed and device_in_use():
        text = " ".join(f"{one.name}={one.value}" for one in missed)
        if strict:
            raise ConfigError(
                "the device is already in use, so its settings cannot change any more",
                next_step=f"start again with {text}",
            )
        return (f"too late, the device is already in use: start again with {text}",)
    notes = []
    for one in missed:
        if one.name in found:
            notes.append(f"{one.name}={found[one.name]} is kept; recommended: {one.value}")
        else:
            found[one.name] = one.value
    return tuple(notes)


def device_in_use() -> bool:
    """Whether torch has already opened a CUDA or ROCm device; never loads torch."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def _expandable() -> tuple[str, str]:
    return "expandable_segments:True", "segments grow in place, so freed pieces do not strand"


def _split(budget: int, resident: int, largest: int) -> tuple[str, str]:
    """Blocks over half of the largest tensor stay whole for it; unused ones are given back from
    a tenth over what is resident."""
    split = min(max(largest // 2 // _MIB // 16 * 16, _LEAST_SPLIT_MB), _MOST_SPLIT_MB)
    threshold = min(0.9, max(0.6, resident / budget + 0.1))
    return (
        f"max_split_size_mb:{split},garbage_collection_threshold:{threshold:.2f}",
        f"blocks over {split} MiB are not cut up for small tensors; unused ones are given back "
        f"when {threshold:.0%} of the budget is taken",
    )


def _name(kind: DeviceKind, torch_version: str) -> str:
    numbers = [int(part) for part in torch_version.split(".")[:2] if part.isdecimal()]
    if tuple(numbers) >= _ONE_NAME_SINCE:
        return "PYTORCH_ALLOC_CONF"
    return "PYTORCH_HIP_ALLOC_CONF" if kind is DeviceKind.ROCM else "PYTORCH_CUDA_ALLOC_CONF"
