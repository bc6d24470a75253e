"""Keys and values by sequence: quantized if wanted, with lower tiers, behind the scheduler.

The scheduler only does the accounts here: it is run with ``share=False``, and its block numbers
say nothing about where things lie. What it knows of each sequence is the truth: what this holds
beyond that is let go of at the next step.

Shapes: ``h`` heads of queries, ``k`` heads of keys, ``t`` new tokens of all slices, ``b``
sequences with one new token, ``g`` query heads to each head of keys, ``d`` channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from octavo.engine.attention import attend
from octavo.engine.kv import KvSizes, PagedKV
from octavo.engine.kv_backend_decode import Decoding
from octavo.engine.kv_backend_held import Held, Holdings
from octavo.engine.kv_backend_room import (
    check_step,
    lower_blocks,
    parked_blocks,
    scheduler_blocks,
    staging_bytes,
)
from octavo.engine.kv_extent import KvStore
from octavo.errors import ConfigError
from octavo.memory.ledger import Ledger, Place

if TYPE_CHECKING:
    from octavo.engine.step import Slice, Step


@dataclass(frozen=True, slots=True)
class _Part:
    """A slice of the open step: its tokens begin at ``first`` of the row."""

    held: Held
    first: int
    count: int
    end: int

    @property
    def rows(self) -> slice:
        return slice(self.first, self.first + self.count)

    def counts(self, forked: int) -> bool:
        """Whether the scheduler has heard that its tokens are computed.

        Args:
            forked: tokens from which another sequence goes on now.
        """
        sequence = self.held.sequence
        return max(sequence.computed, sequence.parked, forked) >= self.end


#: Keys and values ``[k, t, d]`` of one layer.
_Pair = tuple[torch.Tensor, torch.Tensor]


class SequenceKv:
    """See :class:`~octavo.engine.backend.KvBackend`.

    New tokens lie in the tensors that the model has made until the scheduler has heard of them
    (``finished``): only the next ``begin`` puts them into blocks, which were taken before. So
    neither a step that breaks off, nor one that is abandoned after ``commit``, changes anything.

    Args:
        ledger: counts the pools as ``kv`` and new tokens as ``staging``, in ``place``.
        sizes: of blocks: model, precision, block size, recent window.
        budget: bytes of both together.
        sequences: that hold something at the same time: those that run, and those that are kept.
        step_tokens: most tokens of a step.
        max_length: tokens that one sequence may have.
        store: of lower tiers; not closed with this.
        lower_bytes: of the store for blocks that the pools do not hold; 0: none is written back
            as long as the accounts are right.
        parked_bytes: of the store for sequences that gave way.
        device, place: where the pools lie.

    Attributes:
        on_lost: told the id of a sequence whose keys and values had to go, for
            :meth:`Scheduler.lose`. Without it none has to.
        parked_blocks: for the scheduler's ``host_blocks``.

    Raises:
        BudgetExceeded: the ledger has no room, or ``budget`` holds too little.
        ConfigError: bytes of lower tiers without a store.
    """

    shares = False

    def __init__(
        self,
        ledger: Ledger,
        sizes: KvSizes,
        *,
        budget: int,
        sequences: int,
        step_tokens: int,
        max_length: int | None = None,
        store: KvStore | None = None,
        lower_bytes: int = 0,
        parked_bytes: int = 0,
        device: torch.device | str = "cpu",
        place: Place = "device",
    ) -> None:
        if store is None and (lower_bytes or parked_bytes):
            raise ConfigError(
                "there is no store for lower tiers", where="KV cache", next_step="give one"
            )
        staging = staging_bytes(sizes.shape, step_tokens)
        self._kv = PagedKV(
            ledger,
            sizes,
            budget=max(budget - staging, 0),
            sequences=sequences,
            max_length=max_length,
            store=store,
            device=device,
            place=place,
        )
        full = self._kv.full.limit
        try:
            if lower_bytes:
                check_step(sizes, full, sequences, step_tokens)
            self._staging = ledger.reserve(place, "staging", staging, "new keys and values")
        except BaseException:
            self._kv.close()
            raise
        self.block_tokens = sizes.block_tokens
        self.total_blocks = scheduler_blocks(sizes, full, sequences, longest=max_length)
        self.total_blocks += lower_blocks(sizes, lower_bytes)
        self.parked_blocks = parked_blocks(sizes, parked_bytes, sequences)
        self._decoding = Decoding(sizes, self._kv.full, self._kv.exact)
        self._held = Holdings(self._kv)
        self._open: _Pass | None = None
        self._done: _Pass | None = None

    @property
    def nbytes(self) -> int:
        return self._kv.nbytes + self._staging.nbytes

    @property
    def on_lost(self) -> Callable[[str], object] | None:
        return self._held.on_lost

    @on_lost.setter
    def on_lost(self, told: Callable[[str], object] | None) -> None:
        self._held.on_lost = told

    def begin(self, step: Step) -> None:
        self.rollback()
        self._settle({fork.parent: fork.tokens for fork in step.forks})
        held = self._held
        for name in step.dropped:
            held.release(name)
        held.sweep({fork.parent for fork in step.forks})
        for move in step.saves:
            held.known(move.id).kv.park()
        for fork in step.forks:
            held.fork(fork)
        held.sweep(set())
        busy = {part.id for part in step.slices} | {move.id for move in step.restores}
        for move in step.restores:
            held.resume(move.id, busy)
        self._open = self._reserved(step.slices, busy)

    def attend(
        self,
        layer: int,
        query_1htd: torch.Tensor,
        keys_1ktd: torch.Tensor,
        values_1ktd: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        """
        Raises:
            ConfigError: keys of another shape than the blocks'.
            LostValue, CorruptValue: a lower tier has lost some of the history.
        """
        now, shape = self._opened(), self._kv.sizes.shape
        keys_ktd, values_ktd = self.keep(layer, keys_1ktd, values_1ktd)
        query_kgtd = query_1htd[0].unflatten(0, (shape.kv_heads, -1))
        out_tkgd = query_1htd.new_empty(now.tokens, *query_kgtd.shape[:2], shape.head_dim)
        if self._kv.store is not None:
            for part in now.parts:
                # After the last layer comes the first one of the next step.
                part.held.kv.prefetch((layer + 1) % shape.layers)
        if now.ones:
            rows = now.one_rows
            out_tkgd[rows] = self._decoding.attend(
                [part.held.kv.layers[layer] for part in now.ones],
                query_kgtd[:, :, rows].permute(2, 0, 1, 3),
                keys_ktd[:, rows].transpose(0, 1),
                values_ktd[:, rows].transpose(0, 1),
                scale,
            ).to(out_tkgd.dtype)
        for part in now.longer:
            out_kgtd = attend(
                part.held.kv.layers[layer],
                query_kgtd[:, :, part.rows],
                keys_ktd[:, part.rows],
                values_ktd[:, part.rows],
                scale=scale,
            )
            out_tkgd[part.rows] = out_kgtd.permute(2, 0, 1, 3)
        return out_tkgd.flatten(1, 2)[None]

    def keep(self, layer: int, keys_1ktd: torch.Tensor, values_1ktd: torch.Tensor) -> _Pair:
        """Keys and values of one layer for the open step, where no attention is wanted.

        Raises:
            ConfigError: they have another shape than the blocks.
        """
        now, shape = self._opened(), self._kv.sizes.shape
        if keys_1ktd.shape != (1, shape.kv_heads, now.tokens, shape.head_dim):
            raise ConfigError(
                f"keys {list(keys_1ktd.shape)} for {now.tokens} tokens of {shape.kv_heads} heads "
                f"of {shape.head_dim} channels",
                where=f"layer {layer}",
                next_step="use a cache that is not quantized for this model",
            )
        now.staged[layer] = _own(keys_1ktd[0]), _own(values_1ktd[0])
        return now.staged[layer]

    def commit(self) -> None:
        now = self._opened()
        missing = self._kv.sizes.shape.layers - len(now.staged)
        if now.parts and missing:
            raise RuntimeError(f"{missing} layers have not been computed")
        self._open, self._done = None, now

    def rollback(self) -> None:
        if self._open is not None:
            for part in self._open.parts:
                part.held.kv.unreserve()
        self._open = None

    def release(self, sequence_id: str) -> None:
        self._held.release(sequence_id)

    def close(self) -> None:
        self._open = self._done = None
        self._decoding.close()
        self._held.close()
        self._kv.close()
        self._staging.release()

    def _reserved(self, slices: list[Slice], busy: set[str]) -> _Pass:
        """Room for all slices, or for none."""
        parts: list[_Part] = []
        first = 0
        try:
            for part in slices:
                held = self._held.of(part)
                parts.append(_Part(held, first, part.count, part.end))
                first += part.count
                if part.count > 1 or not self._kv.sizes.settles(part.start):
                    self._held.reserve(held, part.count, busy)
        except BaseException:
            for done in parts:
                done.held.kv.unreserve()
            raise
        return _Pass(parts, first)

    def _opened(self) -> _Pass:
        if self._open is None:
            raise RuntimeError("no step has begun")
        return self._open

    def _settle(self, forked: dict[str, int]) -> None:
        """Puts the tokens of the step before into blocks, if the scheduler counts them."""
        done, self._done = self._done, None
        if done is None:
            return
        here = [part for part in done.parts if part.held in self._held]
        wanted = [part for part in here if part.counts(forked.get(part.held.sequence.id, 0))]
        for part in here:
            if part not in wanted:
                part.held.kv.unreserve()
        try:
            self._append(wanted, done.staged)
        except BaseException:
            # Nobody knows how far it went.
            for part in wanted:
                self._held.lose(part.held.sequence.id)
            raise

    def _append(self, parts: list[_Part], staged: dict[int, _Pair]) -> None:
        settles = self._kv.sizes.settles
        ones = [part for part in parts if part.count == 1 and settles(part.held.kv.length)]
        longer = [part for part in parts if part not in ones]
        rows = [part.first for part in ones]
        for layer, (keys_ktd, values_ktd) in staged.items():
            if ones:
                self._decoding.write(
                    [part.held.kv.layers[layer] for part in ones],
                    keys_ktd[:, rows].transpose(0, 1),
                    values_ktd[:, rows].transpose(0, 1),
                )
            for part in longer:
                part.held.kv.append(layer, keys_ktd[:, part.rows], values_ktd[:, part.rows])


class _Pass:
    """One step: its slices, and the keys and values of layers that were computed.

    Args:
        parts: in order of the row.
        tokens: of the row.
    """

    def __init__(self, parts: list[_Part], tokens: int) -> None:
        self.parts, self.tokens = parts, tokens
        self.ones = [part for part in parts if part.count == 1]
        self.longer = [part for part in parts if part.count > 1]
        self.staged: dict[int, _Pair] = {}
        places = [part.first for part in self.ones]
        ordered = places == list(range(len(places)))
        #: Rows of single tokens; a slice, which copies nothing, where they stand first.
        self.one_rows: slice | list[int] = slice(0, len(places)) if ordered else places


def _own(states_ktd: torch.Tensor) -> torch.Tensor:
    """As it is, or a copy where it would hold much more memory than is its own."""
    if states_ktd.untyped_storage().nbytes() > 2 * states_ktd.nbytes:
        return states_ktd.clone()
    return states_ktd
