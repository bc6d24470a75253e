"""Keys and values where the scheduler's block numbers say: exact, one slab for all sequences.

A block holds the keys and values of ``s`` tokens in all layers, so a sequence that is short
touches little memory, and a block that two sequences share is shared in all layers at once.

Shapes: ``n`` blocks, ``l`` layers, ``h`` heads of keys, ``g`` query heads to each, ``s`` tokens
of a block, ``d`` channels, ``t`` new tokens of all slices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from octavo.engine import triton_attention
from octavo.engine.kv_layout import BLOCK_TOKENS, KvShape
from octavo.engine.slab_decode import DecodeRows, attend_decodes
from octavo.engine.slab_prefill import attend_prefill
from octavo.engine.triton_slab import SlabRows
from octavo.memory.buffers import host_buffer, padded
from octavo.memory.ledger import Ledger, Place, Reservation

if TYPE_CHECKING:
    from octavo.engine.step import Move, Slice, Step


def block_bytes(shape: KvShape, block_tokens: int = BLOCK_TOKENS) -> int:
    """Of one block, all layers together."""
    numbers = shape.layers * 2 * shape.kv_heads * block_tokens * shape.head_dim
    return numbers * shape.dtype.itemsize


class SlabKv:
    """See :class:`~octavo.engine.backend.KvBackend`.

    Args:
        ledger: counts the slab as ``kv`` in ``place``, and what is saved as ``kv`` in ``host``.
        shape: of the model's keys and values.
        blocks: that the slab has.

    Raises:
        BudgetExceeded: the ledger has no room.
    """

    shares = True

    def __init__(
        self,
        ledger: Ledger,
        shape: KvShape,
        *,
        blocks: int,
        block_tokens: int = BLOCK_TOKENS,
        device: torch.device | str = "cpu",
        place: Place = "host",
    ) -> None:
        self.block_tokens, self.total_blocks = block_tokens, blocks
        self._ledger, self._shape = ledger, shape
        self._device = torch.device(device)
        nbytes = blocks * block_bytes(shape, block_tokens)
        on_cpu = self._device.type == "cpu"
        held = padded(nbytes) if on_cpu else nbytes
        self._reservation = ledger.reserve(place, "kv", held, "KV blocks")
        try:
            if on_cpu:
                flat = host_buffer(nbytes)
            else:
                flat = torch.empty(nbytes, dtype=torch.uint8, device=self._device)
        except BaseException:
            self._reservation.release()
            raise
        sizes = (blocks, shape.layers, 2, shape.kv_heads, block_tokens, shape.head_dim)
        self.slab_nl2hsd = flat[:nbytes].view(shape.dtype).view(sizes)
        self._triton = triton_attention.available(self._device)
        self._saved: dict[str, tuple[torch.Tensor, Reservation]] = {}
        self._pass: _Pass | None = None

    @property
    def nbytes(self) -> int:
        return self._reservation.nbytes

    def begin(self, step: Step) -> None:
        for sequence_id in step.dropped:
            self._drop(sequence_id)
        for move in step.saves:
            self._save(move)
        for copy in step.copies:
            source, target = self.slab_nl2hsd[copy.source], self.slab_nl2hsd[copy.target]
            target[..., : copy.tokens, :] = source[..., : copy.tokens, :]
        for move in step.restores:
            self._restore(move)
        for part in step.slices:
            self._clear(part)
        self._pass = _Pass(step.slices, self._shape, self.block_tokens, self._device)

    def attend(
        self,
        layer: int,
        query_1htd: torch.Tensor,
        keys_1ktd: torch.Tensor,
        values_1ktd: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        assert self._pass is not None, "begin() comes first"
        now, kv_n2hsd = self._pass, self.slab_nl2hsd[:, layer]
        kv_n2hsd[now.block_t, 0, :, now.inside_t] = keys_1ktd[0].transpose(0, 1)
        kv_n2hsd[now.block_t, 1, :, now.inside_t] = values_1ktd[0].transpose(0, 1)
        tokens, heads, d = query_1htd.shape[2], query_1htd.shape[1], query_1htd.shape[3]
        query_hgtd = query_1htd[0].unflatten(0, (self._shape.kv_heads, -1))
        out_1thd = query_1htd.new_empty(1, tokens, heads, d)
        window = self._shape.window(layer)
        if self._triton:
            return now.slab_rows(query_hgtd.shape[1]).attend(kv_n2hsd, query_hgtd, window, scale)
        if now.decodes:
            query_bhgd = query_hgtd[:, :, now.decode_rows].permute(2, 0, 1, 3)
            out_bhgd = attend_decodes(kv_n2hsd, query_bhgd, now.rows(window), scale)
            out_1thd[0, now.decode_rows] = out_bhgd.flatten(1, 2)
        for first, part in now.prefills:
            rows = slice(first, first + part.count)
            out_hgtd = attend_prefill(
                kv_n2hsd,
                part,
                query_hgtd[:, :, rows],
                keys_1ktd[0, :, rows],
                values_1ktd[0, :, rows],
                window,
                scale,
            )
            out_1thd[0, rows] = out_hgtd.flatten(0, 1).transpose(0, 1)
        return out_1thd

    def commit(self) -> None:
        self._pass = None

    def rollback(self) -> None:
        # What was written lies behind the tokens that count.
        self._pass = None

    def release(self, sequence_id: str) -> None:
        self._drop(sequence_id)

    def close(self) -> None:
        for sequence_id in list(self._saved):
            self._drop(sequence_id)
        self.slab_nl2hsd = self.slab_nl2hsd.new_empty(0)
        self._reservation.release()

    def _clear(self, part: Slice) -> None:
        """What lies behind the last token is masked, but 0 times what is no number is no number."""
        begun = part.end // self.block_tokens * self.block_tokens
        if part.start <= begun < part.end:
            self.slab_nl2hsd[part.sequence.blocks[begun // self.block_tokens]].zero_()

    def _save(self, move: Move) -> None:
        one = block_bytes(self._shape, self.block_tokens)
        held = self._ledger.reserve("host", "kv", len(move.blocks) * one, f"KV of {move.id}")
        try:
            saved = self.slab_nl2hsd[list(move.blocks)].to("cpu")
        except BaseException:
            held.release()
            raise
        self._saved[move.id] = (saved, held)

    def _restore(self, move: Move) -> None:
        saved_nl2hsd, _ = self._saved[move.id]
        for place, block in enumerate(move.blocks, start=move.first):
            self.slab_nl2hsd[block].copy_(saved_nl2hsd[place])
        self._drop(move.id)

    def _drop(self, sequence_id: str) -> None:
        _, held = self._saved.pop(sequence_id, (None, None))
        if held is not None:
            held.release()


class _Pass:
    """Where the tokens of one step lie: computed once for all layers."""

    def __init__(
        self, slices: list[Slice], shape: KvShape, block_tokens: int, device: torch.device
    ) -> None:
        self._size, self._device = block_tokens, device
        self._dtype = shape.dtype
        self.decodes: list[Slice] = []
        self.prefills: list[tuple[int, Slice]] = []
        places: list[int] = []
        block: list[int] = []
        inside: list[int] = []
        for part in slices:
            if part.count == 1:
                places.append(len(block))
                self.decodes.append(part)
            else:
                self.prefills.append((len(block), part))
            for position in range(part.start, part.end):
                block.append(part.sequence.blocks[position // block_tokens])
                inside.append(position % block_tokens)
        self.block_t = torch.tensor(block, device=device)
        self.inside_t = torch.tensor(inside, device=device)
        self.decode_rows = torch.tensor(places, device=device)
        self._rows: dict[int | None, DecodeRows] = {}
        self._slices = slices
        self._slab: SlabRows | None = None

    def slab_rows(self, group: int) -> SlabRows:
        """The same for kernels of Triton, which serve all slices at once."""
        if self._slab is None:
            self._slab = SlabRows(self._slices, group, self._device)
        return self._slab

    def rows(self, window: int | None) -> DecodeRows:
        """The blocks that decodes look at through a window."""
        found = self._rows.get(window)
        if found is None:
            found = DecodeRows.of(self.decodes, self._size, window, self._dtype, self._device)
            self._rows[window] = found
        return found
