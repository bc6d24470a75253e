"""A step's slices over the slab by Triton's kernels: what one layer's attention is on CUDA.

Shapes: ``b`` slices, ``n`` blocks, ``h`` heads of keys, ``g`` query heads to each, ``t`` new tokens
of all slices, ``s`` tokens of a block, ``d`` channels.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch

from octavo.engine.triton_attention import Histories, NewTokens, decode, prefill

if TYPE_CHECKING:
    from collections.abc import Sequence

    from octavo.engine.step import Slice


class SlabRows:
    """Where a step's tokens lie, on the device: made once for all layers.

    Args:
        slices: in the order of the row. Those of one token at its beginning go through the kernel
            that splits histories, all others together through the one for many tokens.
        group: query heads to a head of keys.
        device: of the slab.
    """

    def __init__(self, slices: Sequence[Slice], group: int, device: torch.device | str) -> None:
        self._single = len(list(itertools.takewhile(lambda part: part.count == 1, slices)))
        widest = max(len(part.sequence.blocks) for part in slices)
        rows = [
            [*part.sequence.blocks, *[0] * (widest - len(part.sequence.blocks)), part.end]
            for part in slices
        ]
        # One copy to the device: each has the processor wait for it.
        numbers = torch.tensor(rows, dtype=torch.int32).to(device)
        self._table_bn, self._lengths_b = numbers[:, :-1], numbers[:, -1].contiguous()
        self._histories: dict[int | None, Histories] = {}
        more = slices[self._single :]
        self._new = NewTokens.of(
            [part.count for part in more],
            [part.end for part in more],
            group=group,
            device=device,
        )

    def attend(
        self, kv_n2hsd: torch.Tensor, query_hgtd: torch.Tensor, window: int | None, scale: float
    ) -> torch.Tensor:
        """``[1, t, h * g, d]``: each token over its sequence up to itself.

        Args:
            kv_n2hsd: all blocks of one layer, the new tokens in them already.
            window: newest tokens that each sees, itself included; None sees all.

        Raises:
            ConfigError: dtypes or strides that the kernels do not take.
        """
        query_thgd = query_hgtd.permute(2, 0, 1, 3)
        keys_nhsd, values_nhsd = kv_n2hsd.unbind(1)
        single, parts = self._single, []
        if single:
            found, _ = decode(
                query_thgd[:single], keys_nhsd, values_nhsd, self._seen(window), scale=scale
            )
            parts.append(found)
        if single < len(query_thgd):
            parts.append(
                prefill(
                    query_thgd[single:],
                    keys_nhsd,
                    values_nhsd,
                    self._table_bn[single:],
                    self._new,
                    scale=scale,
                    window=window,
                )
            )
        out_thgd = parts[0] if len(parts) == 1 else torch.cat(parts)
        return out_thgd.flatten(1, 2)[None]

    def _seen(self, window: int | None) -> Histories:
        known = self._histories.get(window)
        if known is None:
            table_bn, lengths_b = self._table_bn[: self._single], self._lengths_b[: self._single]
            known = self._histories[window] = Histories.of(table_bn, lengths_b, window)
        return known
