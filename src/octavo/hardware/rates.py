"""How fast memory is copied and matrices are multiplied. numpy and torch are loaded on use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

_MIB: Final = 1 << 20
#: Of each buffer: over what the caches of one core hold, with its partner over most shared ones.
COPIED: Final = 64 * _MIB
_SIDE: Final = 1024
_DEVICE_SIDE: Final = 4096
_DEVICE_COPIED: Final = 256 * _MIB


@dataclass(frozen=True, slots=True)
class DeviceRate:
    """Copies between host and one CUDA or ROCm device, and products on it.

    Attributes:
        to_device, from_device: bytes per second, from page-locked memory.
        products: multiply-adds count twice; operations per second by precision.
    """

    name: str
    to_device: float
    from_device: float
    products: dict[str, float]


def copy_rate(threads: int, *, seconds: float = 0.4, nbytes: int = COPIED) -> float:
    """Bytes copied per second by so many threads, each within its own buffers; memory moves
    twice that (it is read and written)."""
    import numpy as np

    with ThreadPoolExecutor(threads) as pool:
        # Made and touched before the clock runs.
        buffers = list(
            pool.map(
                lambda _: (np.ones(nbytes, np.uint8), np.zeros(nbytes, np.uint8)), range(threads)
            )
        )
        ready = threading.Barrier(threads)

        def work(number: int) -> float:
            source, target = buffers[number]
            ready.wait()
            done, start = 0, time.perf_counter()
            while True:
                np.copyto(target, source)  # lets go of the interpreter's lock
                done += nbytes
                taken = time.perf_counter() - start
                if taken > seconds:
                    return done / taken

        return sum(pool.map(work, range(threads)))


def product_rates(torch: Any, *, seconds: float = 0.4) -> dict[str, float]:
    """Operations per second of square products on the processor, by precision."""
    names = {"fp32": torch.float32, "bf16": torch.bfloat16}
    return {
        name: _product_rate(torch.ones(_SIDE, _SIDE, dtype=dtype), lambda: None, seconds)
        for name, dtype in names.items()
    }


def device_rates(torch: Any, *, seconds: float = 0.3) -> tuple[DeviceRate, ...]:
    """Every CUDA or ROCm device that torch sees."""
    if not torch.cuda.is_available():
        return ()
    return tuple(
        _device_rate(torch, number, seconds) for number in range(torch.cuda.device_count())
    )


def _device_rate(torch: Any, number: int, seconds: float) -> DeviceRate:
    device = f"cuda:{number}"
    names = {"fp32": torch.float32, "fp16": torch.float16}
    if torch.cuda.get_device_capability(number) >= (8, 0):
        names["bf16"] = torch.bfloat16

    def settle() -> None:
        torch.cuda.synchronize(number)

    host_b = torch.empty(_DEVICE_COPIED, dtype=torch.uint8, pin_memory=True)
    there_b = torch.empty(_DEVICE_COPIED, dtype=torch.uint8, device=device)
    to_device = _device_copy_rate(there_b, host_b, settle, seconds)
    from_device = _device_copy_rate(host_b, there_b, settle, seconds)
    products = {
        name: _product_rate(
            torch.ones(_DEVICE_SIDE, _DEVICE_SIDE, dtype=dtype, device=device), settle, seconds
        )
        for name, dtype in names.items()
    }
    return DeviceRate(torch.cuda.get_device_name(number), to_device, from_device, products)


def _device_copy_rate(
    target: Any, source: Any, settle: Callable[[], None], seconds: float
) -> float:
    def copy() -> None:
        target.copy_(source, non_blocking=True)
        settle()

    return int(source.numel()) * _best_rate(copy, seconds)


def _product_rate(matrix: Any, settle: Callable[[], None], seconds: float) -> float:
    def multiply() -> None:
        matrix @ matrix
        settle()

    return 2 * int(matrix.shape[0]) ** 3 * _best_rate(multiply, seconds)


def _best_rate(act: Callable[[], object], seconds: float) -> float:
    """Times per second, of the fastest run: others on the machine only ever slow one down."""
    act()
    best, end = float("inf"), time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        act()
        best = min(best, time.perf_counter() - start)
        if time.perf_counter() > end:
            return 1.0 / best
