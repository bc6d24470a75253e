"""Walking through tensors in pieces, so that no codec needs a second copy of a large one.

Shape letters: n elements in row-major order, b bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

#: Elements in a piece: two float32 pieces stay in the cache of one core.
PIECE = 1 << 17

_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def word_dtype(dtype: torch.dtype) -> torch.dtype:
    """The integer that stands for the bits of an element, or of half a complex one."""
    return _WORDS[dtype.itemsize // 2 if dtype.is_complex else dtype.itemsize]


def numel_of(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def nbytes_of(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    return numel_of(shape) * dtype.itemsize


def aligned(nbytes: int) -> int:
    """The next multiple of 16, where numbers of any dtype may begin."""
    return -(-nbytes // 16) * 16


def spans(count: int, step: int) -> Iterator[tuple[int, int]]:
    """``(start, stop)`` of pieces of ``step``, the last one shorter."""
    for start in range(0, count, step):
        yield start, min(start + step, count)


def read(tensor: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """Elements ``start`` to ``stop`` in row-major order, 1-D on the CPU.

    A view where the tensor's memory has them in that order, else a copy of these alone.
    """
    if start < stop and tensor.device.type == "cpu" and _plain(tensor):
        return tensor.view(-1)[start:stop]
    piece_n = torch.empty(stop - start, dtype=tensor.dtype, device="cpu")
    _gather(tensor, start, stop, piece_n)
    return piece_n


def read_words(tensor: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """The same as integers that hold the bits; positions count elements."""
    return read(tensor, start, stop).view(word_dtype(tensor.dtype))


@contextmanager
def written(target: torch.Tensor) -> Iterator[torch.Tensor]:
    """CPU memory to fill in place of ``target``: itself, or a piece that is then copied there."""
    if target.device.type == "cpu":
        yield target
        return
    piece = torch.empty(target.shape, dtype=target.dtype, device="cpu")
    yield piece
    target.copy_(piece)


def typed(data_b: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Bytes as numbers: a view, or a copy where they begin at an odd place."""
    if data_b.storage_offset() % dtype.itemsize or data_b.data_ptr() % dtype.itemsize:
        data_b = data_b.clone()
    return data_b.view(dtype)


def _plain(tensor: torch.Tensor) -> bool:
    """Whether the memory holds the elements in order, with no conjugation left to do."""
    return tensor.is_contiguous() and not tensor.is_conj() and not tensor.is_neg()


def _gather(tensor: torch.Tensor, start: int, stop: int, into_n: torch.Tensor) -> None:
    if start == stop:
        return
    if tensor.dim() == 0 or stop - start == tensor.numel():
        into_n.view(tensor.shape).copy_(tensor)
        return
    inner = tensor.numel() // tensor.shape[0]
    first, last = -(-start // inner), stop // inner
    if first > last:  # all of it inside one row
        row = start // inner
        _gather(tensor[row], start - row * inner, stop - row * inner, into_n)
        return
    head, body = first * inner - start, (last - first) * inner
    if head:
        _gather(tensor[first - 1], inner - head, inner, into_n[:head])
    if body:
        into_n[head : head + body].view(last - first, *tensor.shape[1:]).copy_(tensor[first:last])
    if head + body < stop - start:
        _gather(tensor[last], 0, stop - last * inner, into_n[head + body :])
