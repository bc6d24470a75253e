"""The product of two thin matrices: truncated singular values (Eckart and Young 1936).

Finding them costs far more than any other codec, so it is for weights and features that lie
cold, encoded ahead of time; nothing chooses it unless asked to.

Shape letters: m rows (all dimensions but the last), n columns (the last), r rank, b bytes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from octavo.errors import ConfigError
from octavo.memory.buffers import host_buffer
from octavo.memory.codecs.affine import COMPUTE
from octavo.memory.codecs.checks import (
    admitted,
    check_payload,
    check_size,
    flat_out,
    refused,
    whole_number,
)
from octavo.memory.codecs.pieces import PIECE, aligned, numel_of, read, spans, typed, written
from octavo.memory.payload import Payload


@dataclass(frozen=True, slots=True)
class LowRank:
    """The smallest rank that keeps every element within ``max_error``.

    Attributes:
        max_error: the largest absolute error of an element that is accepted.
    """

    max_error: float = 1e-2

    def __post_init__(self) -> None:
        if not 0 < self.max_error < math.inf:
            raise ConfigError(
                f"a largest error of {self.max_error}",
                where="codec lowrank",
                next_step="choose a positive number",
            )

    @property
    def name(self) -> str:
        return "lowrank"

    @property
    def lossless(self) -> bool:
        return False

    def supports(self, dtype: torch.dtype, shape: tuple[int, ...]) -> bool:
        return dtype in COMPUTE and len(shape) >= 2 and _largest_rank(*_sides(shape)) >= 1

    def size_bound(self, dtype: torch.dtype, shape: tuple[int, ...]) -> int:
        m, n = _sides(shape)
        return _nbytes(m, n, max(_largest_rank(m, n), 0), dtype)

    def scratch(self, dtype: torch.dtype, shape: tuple[int, ...]) -> int:
        """More than one copy of the tensor: the decomposition needs all of it at once."""
        m, n = _sides(shape)
        k, width = min(m, n), COMPUTE.get(dtype, dtype).itemsize
        # The matrix and the solver's own, both factors and the solver's own, its work, and the
        # factors cut to a rank in float64.
        solver = width * (2 * m * n + 2 * k * (m + n) + 8 * k * k)
        return solver + 2 * 8 * k * (m + n) + 4 * 8 * max(PIECE, n)

    def encode(self, tensor: torch.Tensor) -> Payload:
        """Raises CodecError for NaN, infinity, and a matrix of too high a rank to gain by it."""
        tensor = admitted(self, tensor)
        shape = tuple(tensor.shape)
        m, n = _sides(shape)
        left_mr, right_rn = self._factors(tensor, m, n)
        rank = self._rank(tensor, left_mr, right_rn)
        left_mr, right_rn = left_mr[:, :rank], right_rn[:rank]
        error = _error(tensor, left_mr, right_rn)
        if rank == 0 or not error <= self.max_error:
            raise refused(self, f"no low rank keeps the error under {self.max_error}")
        data_b = host_buffer(_nbytes(m, n, rank, tensor.dtype))
        data_b.zero_()
        stored_mr, stored_rn = _stored(data_b, m, n, rank, tensor.dtype)
        stored_mr.copy_(left_mr)
        stored_rn.copy_(right_rn)
        return Payload(self.name, tensor.dtype, shape, data_b, error, {"rank": rank})

    def check(self, payload: Payload) -> None:
        check_payload(self, payload)
        m, n = _sides(payload.shape)
        check_size(payload, _nbytes(m, n, _rank_of(payload), payload.dtype))

    def decode(self, payload: Payload, out: torch.Tensor) -> None:
        self.check(payload)
        m, n = _sides(payload.shape)
        out_mn = flat_out(payload, out).view(m, n)
        left_mr, right_rn = _stored(payload.data, m, n, _rank_of(payload), payload.dtype)
        right_rn = right_rn.double()
        for start, stop in spans(m, _rows_at_once(n)):
            with written(out_mn[start:stop]) as piece_mn:
                piece_mn.copy_(left_mr[start:stop].double() @ right_rn)

    def _factors(self, tensor: torch.Tensor, m: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Both factors at the largest useful rank, rounded to the tensor's dtype."""
        a_mn = read(tensor, 0, tensor.numel()).view(m, n).to(COMPUTE[tensor.dtype])
        if not bool(torch.isfinite(a_mn).all()):
            raise refused(self, "NaN or infinity")
        try:
            u_mr, s_r, v_rn = torch.linalg.svd(a_mn, full_matrices=False)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise refused(self, f"its singular values were not found: {error}") from error
        rank = _largest_rank(m, n)
        # Half of each value to each side, so that neither factor overflows alone.
        root_r = s_r[:rank].sqrt()
        left_mr, right_rn = u_mr[:, :rank] * root_r, root_r[:, None] * v_rn[:rank]
        return left_mr.to(tensor.dtype), right_rn.to(tensor.dtype)

    def _rank(self, tensor: torch.Tensor, left_mr: torch.Tensor, right_rn: torch.Tensor) -> int:
        """By bisection; the largest error falls with the rank, though not at every step."""
        least, most = 1, left_mr.shape[1]
        while least < most:
            rank = (least + most) // 2
            if _error(tensor, left_mr[:, :rank], right_rn[:rank]) <= self.max_error:
                most = rank
            else:
                least = rank + 1
        return least


def _error(tensor: torch.Tensor, left_mr: torch.Tensor, right_rn: torch.Tensor) -> float:
    """The largest error of an element, with all that rounding can add; NaN after an overflow.

    The product is always one of float64 matrices: float32 ones depend on global settings.
    """
    left_mr, right_rn = left_mr.double(), right_rn.double()
    n = right_rn.shape[1]
    worst, largest = 0.0, 0.0
    for start, stop in spans(left_mr.shape[0], _rows_at_once(n)):
        y_mn = left_mr[start:stop] @ right_rn
        largest = max(largest, float(y_mn.abs().max()))
        y_mn -= read(tensor, start * n, stop * n).view(stop - start, n)
        piece = float(y_mn.abs().max())
        worst = piece if math.isnan(piece) else max(worst, piece)
        if math.isnan(worst):
            return math.nan
    out = torch.finfo(tensor.dtype)
    if largest * (1 + out.eps) > out.max:
        return math.nan
    # Sums in another order: Higham 2002, eq. 3.5, with Cauchy and Schwarz for the sum itself.
    norms = float(left_mr.norm(dim=1).max() * right_rn.norm(dim=0).max())
    sums = 2 * (left_mr.shape[1] + 2) * torch.finfo(torch.float64).eps * norms
    return worst + sums + out.eps / 2 * largest + out.tiny * out.eps


def _sides(shape: tuple[int, ...]) -> tuple[int, int]:
    return numel_of(shape[:-1]), shape[-1] if shape else 1


def _largest_rank(m: int, n: int) -> int:
    """The largest rank whose factors are smaller than the matrix."""
    return max(m * n - 1, 0) // max(m + n, 1)


def _rows_at_once(n: int) -> int:
    return max(PIECE // n, 1)


def _nbytes(m: int, n: int, rank: int, dtype: torch.dtype) -> int:
    return aligned(m * rank * dtype.itemsize) + rank * n * dtype.itemsize


def _stored(
    data_b: torch.Tensor, m: int, n: int, rank: int, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    first = m * rank * dtype.itemsize
    left_mr = typed(data_b[:first], dtype).view(m, rank)
    return left_mr, typed(data_b[aligned(first) :], dtype).view(rank, n)


def _rank_of(payload: Payload) -> int:
    return whole_number(payload, "rank", 1, _largest_rank(*_sides(payload.shape)))
