"""Tensors of any size in few slabs: features and text embeddings."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from octavo.errors import BudgetExceeded
from octavo.memory.buffers import MAPPED_FROM, PAGE, holders_of
from octavo.memory.ledger import Kind, Ledger, Place
from octavo.memory.pools.growing import POISON, GrowingPool
from octavo.memory.pools.handles import Allocation
from octavo.memory.pools.heap import Heap
from octavo.memory.pools.slab import Slab
from octavo.memory.pools.stats import PoolStats
from octavo.memory.sizes import format_bytes

#: Every tensor starts on a multiple of this many bytes, which is what ``cudaMalloc`` promises.
ALIGNMENT = 256
SLAB_NBYTES = 64 * 2**20
#: Main memory keeps small tensors apart, in slabs smaller by this factor.
_SMALL_SLABS = 16
#: Slabs lie so far apart in the heap's address space that they never touch.
_STRIDE = 1 << 48


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes of a slab that one tensor has.

    Attributes:
        heap: number of the heap.
        start, size: in the heap's address space; ``size`` is 0 for an empty tensor.
    """

    heap: int
    start: int
    size: int


class Arena(GrowingPool[Range]):
    """Tensors of any shape and dtype. Nothing moves.

    Tensors start on 256 bytes. In main memory those of 256 KiB and more start on a page and have
    whole pages to themselves, ready for direct I/O; they lie in slabs of their own, so that
    small ones do not break up the room for them.

    Ranges that come back while a tensor over them is alive wait until it is gone, so no tensor
    ever shows another one's values. Work that other streams of an accelerator still do on a
    tensor must end before its release.

    Args:
        ledger: counts the slabs under ``kind`` in ``place`` for owner ``name``.
        slab_nbytes: of a slab; larger tensors get one of their own.
        limit: bytes that the slabs may have together; None for what the ledger grants.
        keep: slabs that nobody uses go back at once while this many bytes are left (the low
            water mark); one slab by default.
        device: where the tensors lie.
        pinned: page-locked main memory.
        poison: fill released ranges with ``0xFF`` (NaN in float types), to find stale use.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        name: str,
        kind: Kind = "features",
        place: Place = "device",
        device: torch.device | str = "cpu",
        slab_nbytes: int = SLAB_NBYTES,
        limit: int | None = None,
        keep: int | None = None,
        pinned: bool = False,
        poison: bool = False,
    ) -> None:
        on_host = torch.device(device).type == "cpu"
        self._heaps = [Heap(ALIGNMENT), Heap(PAGE)] if on_host else [Heap(ALIGNMENT)]
        self._slabs: dict[int, Slab] = {}
        self._slab_nbytes = max(slab_nbytes, PAGE)
        self._limit = limit
        self._keep = slab_nbytes if keep is None else keep
        self._shown: dict[int, torch.Tensor] = {}
        self._lent: list[Range] = []
        self._owners: Counter[str] = Counter()
        self._next_base = 0
        self._total = 0
        self._growing_heap = 0
        super().__init__(
            ledger,
            name=name,
            kind=kind,
            place=place,
            device=device,
            pinned=pinned,
            poison=poison,
        )

    def allocate(
        self, shape: Sequence[int], dtype: torch.dtype = torch.float32, *, owner: str = ""
    ) -> Allocation:
        """Room for a tensor, with whatever was in it.

        Args:
            owner: for refusals and reports of leaks.

        Raises:
            BudgetExceeded: there is no room; says who holds what. Nothing is taken.
        """
        nbytes = math.prod(shape) * dtype.itemsize
        if nbytes < 0:
            raise ValueError(f"there is no tensor of shape {tuple(shape)}")
        share = self._obtain(
            lambda: self._take(nbytes, owner), lambda: self._next_sizes(nbytes, owner)
        )
        return Allocation(self, owner, share, tuple(shape), dtype)

    def stats(self) -> PoolStats:
        with self._lock:
            self._settle()
            return PoolStats(
                name=self.name,
                kind=self.kind,
                place=self.place,
                slabs=len(self._slabs),
                nbytes=self._total,
                used=self._used,
                peak=self._peak,
                lent=sum(share.size for share in self._lent),
                free=sum(heap.free for heap in self._heaps),
                largest_free=max(heap.largest for heap in self._heaps),
                handles=self._handles,
                leaked=dict(self._leaked),
                refused=self._refused,
            )

    # For handles.

    def _show(self, handle: Allocation) -> torch.Tensor:
        with self._lock:
            share = handle._held()
            if not share.size:
                return torch.empty(handle.shape, dtype=handle.dtype, device=self.device)
            shown = self._shown.get(share.start)
            if shown is None:
                base = share.start // _STRIDE * _STRIDE
                shown = self._slabs[base].piece(share.start - base, share.size)
                self._shown[share.start] = shown
            # A new tensor each time: holders of the first one could not be told from the pool.
            return shown[: handle.nbytes].view(handle.dtype).view(handle.shape)

    # Under the lock.

    def _heap_for(self, nbytes: int) -> int:
        return int(len(self._heaps) > 1 and nbytes >= MAPPED_FROM)

    def _take(self, nbytes: int, owner: str) -> Range | None:
        if nbytes == 0:
            return Range(0, 0, 0)
        number = self._heap_for(nbytes)
        found = self._heaps[number].take(nbytes)
        if found is None:
            return None
        start, size = found
        self._owners[owner] += size
        self._count(size)
        return Range(number, start, size)

    def _give(self, owner: str, share: Range) -> None:
        if not share.size:
            return
        self._owners[owner] -= share.size
        if not self._owners[owner]:
            del self._owners[owner]
        self._used -= share.size
        if not self._take_back(share):
            self._lent.append(share)

    def _sweep(self) -> None:
        if self._lent:
            self._lent = [share for share in self._lent if not self._take_back(share)]

    def _take_back(self, share: Range) -> bool:
        shown = self._shown.get(share.start)
        if shown is not None and holders_of(shown) > 1:
            return False
        self._shown.pop(share.start, None)
        base = share.start // _STRIDE * _STRIDE
        slab, heap = self._slabs[base], self._heaps[share.heap]
        if self._poison:
            start = share.start - base
            slab.data[start : start + share.size].fill_(POISON)
        heap.give(share.start, share.size)
        if heap.is_idle(base, slab.nbytes):
            self._free_idle(self._keep)
        return True

    def _next_sizes(self, nbytes: int, owner: str) -> list[int]:
        """Bytes of the new slab: a usual one, and what would just do."""
        number = self._heap_for(nbytes)
        self._growing_heap = number
        usual = self._slab_nbytes
        if len(self._heaps) > 1 and number == 0:
            usual //= _SMALL_SLABS
        heap = self._heaps[number]
        # Whole pages, as a slab in main memory has them.
        least = -(-heap.rounded(nbytes) // PAGE) * PAGE
        sizes = sorted({max(least, heap.rounded(usual)), least}, reverse=True)
        if self._limit is None:
            return sizes
        if self._total + least > self._limit:
            self._free_idle(0)
        sizes = [size for size in sizes if self._total + size <= self._limit]
        if not sizes:
            raise self._refusal(nbytes, owner)
        return sizes

    def _add(self, slab: Slab) -> None:
        base = self._next_base
        self._next_base += _STRIDE
        self._slabs[base] = slab
        self._total += slab.nbytes
        self._heaps[self._growing_heap].add(base, slab.nbytes)

    def _free_idle(self, keep: int) -> int:
        freed = 0
        for base, slab in list(self._slabs.items()):
            if self._total - slab.nbytes < keep:
                continue
            for heap in self._heaps:
                if heap.is_idle(base, slab.nbytes) and slab.free():
                    heap.remove(base, slab.nbytes)
                    del self._slabs[base]
                    self._total -= slab.nbytes
                    freed += slab.nbytes
        return freed

    def _abandon(self) -> list[Slab]:
        slabs = list(self._slabs.values())
        self._slabs.clear()
        self._shown.clear()
        self._lent.clear()
        self._owners.clear()
        self._used = self._handles = self._total = 0
        for heap in self._heaps:
            heap.clear()
        return slabs

    def _refusal(self, nbytes: int, owner: str) -> BudgetExceeded:
        holders = ", ".join(
            f"{who or 'nameless'} {format_bytes(held)}" for who, held in self._owners.most_common(4)
        )
        lent = sum(share.size for share in self._lent)
        waiting = f", and {format_bytes(lent)} wait for tensors over them" if lent else ""
        return BudgetExceeded(
            f"{owner or 'nameless'} wants {format_bytes(nbytes)}, the pool may have "
            f"{format_bytes(self._limit or 0)} and its largest free range is "
            f"{format_bytes(max(heap.largest for heap in self._heaps))}; "
            f"held by {holders or 'nobody'}{waiting}",
            where=f"pool {self.name}",
            next_step="release tensors, or give the pool more",
        )
