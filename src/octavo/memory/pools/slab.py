"""One long-lived allocation and its entry in the ledger."""

from __future__ import annotations

import errno
import threading

import torch
from torch.utils.dlpack import from_dlpack

from octavo.errors import BudgetExceeded, ReleasedError
from octavo.memory.buffers import MAPPED_FROM, PAGE, holders_of, host_buffer
from octavo.memory.ledger import Kind, Ledger, Place
from octavo.memory.sizes import format_bytes

#: How allocators say that memory has run out, where they have no type of their own for it.
_OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory")


class Slab:
    """``nbytes`` of memory, counted from before its allocation until after it is freed.

    Args:
        ledger, place, kind, owner: how it is counted.
        nbytes: at least 1; in main memory rounded up to whole pages.
        device: where it lies. In main memory it starts on a page and goes back to the system
            when it is freed; on an accelerator it goes back to torch's caching allocator.
        pinned: page-locked; only in main memory, needs CUDA.

    Raises:
        BudgetExceeded: the ledger refuses, or the allocator has no memory (it is then the
            cause). Nothing is reserved.
    """

    __slots__ = ("_alone", "_data", "_lock", "_reservation", "device", "nbytes")

    def __init__(
        self,
        ledger: Ledger,
        *,
        place: Place,
        kind: Kind,
        owner: str,
        nbytes: int,
        device: torch.device,
        pinned: bool = False,
    ) -> None:
        self._lock = threading.Lock()
        self.device = device
        self.nbytes = -(-nbytes // PAGE) * PAGE if device.type == "cpu" else nbytes
        self._reservation = ledger.reserve(place, kind, self.nbytes, owner)
        try:
            data = _allocate(self.nbytes, device, pinned)
        except BaseException as error:
            self._reservation.release()
            if not _is_out_of_memory(error):
                raise
            raise BudgetExceeded(
                f"{owner} wants {format_bytes(self.nbytes)} of {kind}, which the budget grants "
                f"but {device} could not allocate: {error}",
                where=f"{place} memory",
                next_step=f"lower the {place} budget to what is free, or close other programs",
            ) from error
        # Two where it is itself a view, which keeps its base.
        self._alone = holders_of(data)
        self._data: torch.Tensor | None = data

    @property
    def data(self) -> torch.Tensor:
        """All of it: 1-D ``uint8``.

        Raises:
            ReleasedError: it was freed.
        """
        data = self._data
        if data is None:
            raise ReleasedError(
                "this memory was given back", next_step="take it from the pool anew"
            )
        return data

    def piece(self, start: int, nbytes: int) -> torch.Tensor:
        """Bytes ``start`` to ``start + nbytes`` as a tensor with a storage of its own.

        So ``holders_of`` counts who uses this piece, not who uses the slab. Needs a device that
        DLPack knows: CPU, CUDA, ROCm, XPU, MPS.
        """
        # Made under inference mode it could never be written outside of it.
        with torch.inference_mode(False):
            piece: torch.Tensor = from_dlpack(
                torch._C._to_dlpack(self.data[start : start + nbytes])
            )
        return piece

    @property
    def counted(self) -> int:
        """Bytes that the ledger counts for it; 0 once it is freed."""
        return self._reservation.nbytes

    @property
    def held(self) -> bool:
        """Whether tensors of others still use it."""
        data = self._data
        return data is not None and holders_of(data) > self._alone

    def free(self) -> bool:
        """Gives it back unless others use it; says whether it is gone. Harmless when repeated."""
        with self._lock:
            if self._data is None:
                return True
            if self.held:
                return False
            self._data = None
            # After the memory: the ledger must never promise bytes that are still taken.
            self._reservation.release()
            return True

    def retire(self, ledger: Ledger) -> None:
        """Frees it, now or when the last tensor of others is gone and the ledger needs room."""
        if self.free():
            return
        place = self._reservation.place

        def retry(_: int) -> int:
            if not self.free():
                return 0
            stop()
            return self.nbytes

        stop = ledger.add_reclaimer(place, retry)


def _allocate(nbytes: int, device: torch.device, pinned: bool) -> torch.Tensor:
    with torch.inference_mode(False):
        if device.type == "cpu":
            # A mapping, for its alignment; pages beyond ``nbytes`` are never touched.
            least = nbytes if pinned else max(nbytes, MAPPED_FROM)
            return host_buffer(least, pinned=pinned)[:nbytes]
        return torch.empty(nbytes, dtype=torch.uint8, device=device)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(
        words in str(error).lower() for words in _OUT_OF_MEMORY
    )
