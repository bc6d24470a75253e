"""What generations of graphics cards can and cannot do, as data.

Figures of NVIDIA cards: CUDA C++ Programming Guide, "Compute Capabilities" (precisions, tensor
cores, most shared memory that one block may ask for). FlashAttention-2 needs 8.0 (its README,
Dao 2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from octavo.hardware.spec import Precision

_KIB: Final = 1 << 10
_MB: Final = 10**6


@dataclass(frozen=True, slots=True)
class DeviceLimits:
    """What one generation of devices can do.

    Attributes:
        architecture: as its maker calls it.
        precisions: that weights may be held in and computed with. int8 and int4 are of weights
            only: they are widened to a float before they are multiplied.
        tensor_cores: whether float16 products run on matrix units.
        flash_attention: whether FlashAttention-2 and torch's flash kernel run.
        shared_bytes_per_block: the most that one block of a kernel may ask for; None: unknown.
        advised_tensor_bytes: larger single tensors are better split; None: no advice.
        reasons: what it cannot do, in words; empty for a current card.
    """

    architecture: str
    precisions: frozenset[Precision]
    tensor_cores: bool
    flash_attention: bool
    shared_bytes_per_block: int | None
    advised_tensor_bytes: int | None = None
    reasons: tuple[str, ...] = ()


_ALL: Final = frozenset(Precision)
_NO_BF16: Final = _ALL - {Precision.BF16}
_NO_BF16_WORDS: Final = "no bfloat16: torch would emulate it, slowly; use fp16 or fp32"
_NO_FLASH_WORDS: Final = "no flash attention, which needs compute capability 8.0"
_NO_TENSOR_CORES_WORDS: Final = "no tensor cores: int8 and fp16 save memory, not time"

_OLDEST: Final = DeviceLimits(
    "Kepler or Maxwell",
    frozenset({Precision.FP32}),
    tensor_cores=False,
    flash_attention=False,
    shared_bytes_per_block=48 * _KIB,
    advised_tensor_bytes=512 * _MB,
    reasons=(
        "no arithmetic in fp16 or bfloat16: fp32 only",
        _NO_TENSOR_CORES_WORDS,
        _NO_FLASH_WORDS,
        "current torch builds have no kernels for it",
    ),
)
_PASCAL: Final = DeviceLimits(
    "Pascal",
    _NO_BF16,
    tensor_cores=False,
    flash_attention=False,
    shared_bytes_per_block=48 * _KIB,
    advised_tensor_bytes=512 * _MB,
    reasons=(
        _NO_BF16_WORDS,
        _NO_TENSOR_CORES_WORDS,
        _NO_FLASH_WORDS,
        "48 KiB of shared memory a block: kernels written for newer cards do not start",
        "keep single tensors under 512 MB: memory is small and splits badly",
        "torch builds for CUDA 13 have no kernels for it: use a build for CUDA 12.6",
    ),
)
#: 6.1 and 6.2 multiply float16 at 1/64 and 1/1 of their float32 rate; 6.0 at twice.
_PASCAL_6_1: Final = DeviceLimits(
    "Pascal",
    _NO_BF16,
    tensor_cores=False,
    flash_attention=False,
    shared_bytes_per_block=48 * _KIB,
    advised_tensor_bytes=512 * _MB,
    reasons=(
        *_PASCAL.reasons,
        "fp16 arithmetic runs at 1/64 of fp32: hold weights in fp16, compute in fp32",
    ),
)
_VOLTA: Final = DeviceLimits(
    "Volta",
    _NO_BF16,
    tensor_cores=True,
    flash_attention=False,
    shared_bytes_per_block=96 * _KIB,
    reasons=(
        _NO_BF16_WORDS,
        _NO_FLASH_WORDS,
        "tensor cores take fp16 only, not int8",
        "torch builds for CUDA 13 have no kernels for it: use a build for CUDA 12.6",
    ),
)
_TURING: Final = DeviceLimits(
    "Turing",
    _NO_BF16,
    tensor_cores=True,
    flash_attention=False,
    shared_bytes_per_block=64 * _KIB,
    reasons=(_NO_BF16_WORDS, _NO_FLASH_WORDS),
)


def _current(architecture: str, shared_kib: int) -> DeviceLimits:
    return DeviceLimits(architecture, _ALL, True, True, shared_kib * _KIB)


#: Compute capability → what it can do. A capability that is not here is found by its generation.
NVIDIA: Final = {
    (6, 0): _PASCAL,
    (6, 1): _PASCAL_6_1,
    (6, 2): _PASCAL,
    (7, 0): _VOLTA,
    (7, 2): _VOLTA,
    (7, 5): _TURING,
    (8, 0): _current("Ampere", 163),
    (8, 6): _current("Ampere", 99),
    (8, 7): _current("Ampere", 163),
    (8, 9): _current("Ada", 99),
    (9, 0): _current("Hopper", 227),
    (10, 0): _current("Blackwell", 227),
    (10, 3): _current("Blackwell", 227),
    (12, 0): _current("Blackwell", 99),
    (12, 1): _current("Blackwell", 99),
}


def nvidia_limits(capability: tuple[int, int]) -> DeviceLimits | None:
    """What an NVIDIA card of a compute capability can do; None for one that is not known."""
    if capability[0] < 6:
        return _OLDEST
    return NVIDIA.get(capability)


def read_capability(value: Sequence[int] | None) -> tuple[int, int] | None:
    """(major, minor) as libraries tell it; None where they do not."""
    return (int(value[0]), int(value[1])) if value else None


def runs_on(built_for: Sequence[str], capability: tuple[int, int]) -> bool:
    """Whether kernels built for these (``sm_86``, ``compute_90``) run on a card.

    Machine code runs on the same generation from its own minor version on; PTX (``compute``) is
    translated for every later one (CUDA C++ Programming Guide, "Binary" and "PTX compatibility").
    Code for one architecture alone (``sm_90a``) is for exactly that.
    """
    for name in built_for:
        way, _, number = name.partition("_")
        if not number.isdecimal():
            if number[:-1].isdecimal() and divmod(int(number[:-1]), 10) == capability:
                return True
            continue
        built = divmod(int(number), 10)
        if way == "compute" and built <= capability:
            return True
        if way == "sm" and built[0] == capability[0] and built[1] <= capability[1]:
            return True
    return False
