"""Host memory that a disk can write from and read into directly: page-aligned, page-padded.

Anonymous private mappings give their pages back to the system the moment the last view of them
dies, so that the process holds what the ledger says it holds; ``malloc`` would keep them.
Small buffers do come from the allocator: a mapping costs a page and a system call.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import torch

PAGE = 4096
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h
#: The most that glibc takes for the second, and what the first is by default.
_LARGEST_THRESHOLD, _USUAL_TRIM = 32 << 20, 128 << 10
_NEVER = 1 << 30
#: Transparent huge pages: from here on the kernel is asked for them. A first touch of memory is
#: then three times as fast, which is what reading into new buffers is bound by.
HUGE_PAGE = 2 * 1024 * 1024
#: Under this, alignment is not worth a mapping of its own; the disk tier copies such values.
MAPPED_FROM = 256 * 1024


def return_freed_memory() -> bool:
    """Has the C library give large freed blocks back to the system; whether it can.

    glibc raises its threshold for that whenever such a block is freed, up to 32 MiB, and then
    keeps freed tensors below it: the process holds half as much again as lives in it. A fixed
    threshold of ``MAPPED_FROM`` ends that, for the whole process (mallopt(3)). Threads that
    begin later share an arena: each of their own would keep pieces of 64 MiB half empty.
    """
    library = _glibc()
    if library is None:
        return False
    library.mallopt(_M_ARENA_MAX, 1)
    return bool(library.mallopt(_M_MMAP_THRESHOLD, MAPPED_FROM))


@contextmanager
def reusing_freed_memory() -> Iterator[None]:
    """Within it freed blocks are used again, as glibc would have it; at its end they go back.

    A computation of many layers asks for the same blocks over and over, and a new mapping's pages
    cost more than what many a layer does with them. It is a setting of the process.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(_M_TRIM_THRESHOLD, _NEVER)
    library.mallopt(_M_MMAP_THRESHOLD, _LARGEST_THRESHOLD)
    try:
        yield
    finally:
        library.mallopt(_M_MMAP_THRESHOLD, MAPPED_FROM)
        library.mallopt(_M_TRIM_THRESHOLD, _USUAL_TRIM)
        library.malloc_trim(0)


@cache
def _glibc() -> Any:
    """None where another C library is used, which has habits of its own."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def padded(nbytes: int) -> int:
    """Bytes that :func:`host_buffer` really takes for ``nbytes``: what the ledger must count."""
    return -(-nbytes // PAGE) * PAGE if nbytes >= MAPPED_FROM else nbytes


def host_buffer(nbytes: int, *, pinned: bool = False) -> torch.Tensor:
    """A new 1-D ``uint8`` tensor of ``nbytes`` in host memory.

    From ``MAPPED_FROM`` on it starts on a page, and its storage is padded to whole pages, so
    that :func:`whole_pages` can widen it.

    Args:
        nbytes: at least 0.
        pinned: page-locked for copies to a CUDA device; needs CUDA.
    """
    if pinned:
        whole = torch.empty(padded(nbytes), dtype=torch.uint8, device="cpu", pin_memory=True)
        return whole[:nbytes]
    if nbytes < MAPPED_FROM:
        return torch.empty(nbytes, dtype=torch.uint8, device="cpu")
    if sys.platform == "win32":
        area = mmap.mmap(-1, padded(nbytes))
    else:
        area = mmap.mmap(-1, padded(nbytes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if nbytes >= 2 * HUGE_PAGE:
            # A kernel without them refuses, and nothing else is different.
            with suppress(OSError, AttributeError):
                area.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(area, dtype=torch.uint8, count=padded(nbytes))[:nbytes]


def resident(data_b: torch.Tensor) -> int:
    """The most bytes that 1-D ``data_b`` holds when nothing beyond it in its buffer was written.

    Its last huge page may be there as a whole, as far as the buffer goes.
    """
    storage = data_b.untyped_storage().nbytes()
    huge = -(-data_b.numel() // HUGE_PAGE) * HUGE_PAGE
    return max(min(storage, huge), padded(data_b.numel()))


def whole_pages(data_b: torch.Tensor) -> torch.Tensor | None:
    """``data_b`` (1-D ``uint8``) widened to whole pages of its own storage.

    None when it does not start on a page or its storage ends before the last page does: then
    it must be copied before direct I/O.
    """
    if data_b.numel() == 0 or data_b.data_ptr() % PAGE:
        return None
    whole = -(-data_b.numel() // PAGE) * PAGE
    if data_b.storage_offset() + whole > data_b.untyped_storage().nbytes():
        return None
    return data_b.as_strided((whole,), (1,))


def memory_of(data_b: torch.Tensor) -> memoryview:
    """The bytes of a contiguous 1-D ``uint8`` CPU tensor, writable, without a copy."""
    return data_b.numpy().data


def holders_of(tensor: torch.Tensor) -> int:
    """How many tensors and views share this tensor's memory, this one included.

    The count of the storage itself, so views, slices and ``detach()`` are in it. Another name of
    the very same tensor is not, nor is an input that autograd saved as it was given.
    """
    # The wrapper made here is one more holder; torch has no public name for this count.
    storage = tensor.untyped_storage()
    return int(torch._C._storage_Use_Count(storage._cdata)) - 1
