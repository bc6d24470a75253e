"""Threads that compute beside each other: each alone, on one core."""

from __future__ import annotations

import ctypes
import os
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

import torch

#: The OpenMP libraries that torch comes with.
_OPENMP: Final = re.compile(r"(/\S*/lib(?:gomp|iomp5|omp)[^/\s]*\.so[^/\s]*)$", re.MULTILINE)
_MOST: Final = 4


def workers(name: str) -> ThreadPoolExecutor:
    """Threads for casting and quantizing: as many as cores, up to four."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return ThreadPoolExecutor(
        min(cores or 1, _MOST), thread_name_prefix=name, initializer=compute_alone
    )


def compute_alone() -> None:
    """Has torch use no other threads for what the calling thread computes.

    Otherwise each operation on a block starts a team of threads that spins until all are there,
    which on busy cores takes a hundred times as long as the operation. ``set_num_threads`` would
    change it for other threads too; OpenMP's own call is for the calling thread only. Where torch
    has no OpenMP library that can be found, nothing is changed.
    """
    openmp = _openmp()
    if openmp is not None:
        torch.get_num_threads()  # sets this thread's number, the first time it is asked
        openmp.omp_set_num_threads(1)


@cache
def _openmp() -> ctypes.CDLL | None:
    with suppress(OSError):
        found = _OPENMP.search(Path("/proc/self/maps").read_text(encoding="utf-8"))
        if found is not None:
            return ctypes.CDLL(found[1])
    return None
