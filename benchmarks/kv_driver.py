"""A text model over :class:`SequenceKv`, step by step as the scheduler says."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

from octavo.engine.blocks import Blocks
from octavo.engine.cache import ATTENTION, shape_of
from octavo.engine.kv_backend import SequenceKv
from octavo.engine.kv_layout import KvPrecision, KvSizes
from octavo.engine.limits import Limits
from octavo.engine.packed import PackedCache
from octavo.engine.scheduler import Scheduler
from octavo.engine.sequence import Job
from octavo.engine.step import Slice, Step
from octavo.memory import DiskTier, Ledger, TieredStore

#: Tokens of one step, and bytes of the lower tiers.
STEP: Final = 64
_HOST, _DISK = 64 << 20, 4 << 30

#: Told of each slice with the last hidden states of its tokens.
Told = Callable[[Slice, torch.Tensor], None]


class Driver:
    """Args:
    model: a causal language model of transformers.
    budget: bytes of the pools and of the new tokens of a step.
    lower: whether there is a disk for what they do not hold.
    """

    def __init__(
        self, model: Any, precision: KvPrecision, budget: int, *, lower: bool = False
    ) -> None:
        self.model = model
        self._folder = tempfile.TemporaryDirectory() if lower else None
        sizes = KvSizes(shape_of(model.config, model.dtype), precision)
        # The store reads and writes through memory of its own.
        self.ledger = Ledger({"device": budget + (_HOST if lower else 0), "host": _HOST})
        self._store: TieredStore | None = None
        if self._folder is not None:
            self.ledger.set_budget("disk", _DISK)
            disk = DiskTier(Path(self._folder.name), self.ledger)
            self._store = TieredStore(self.ledger, disk=disk)
        self.kv = SequenceKv(
            self.ledger,
            sizes,
            budget=budget,
            sequences=1,
            step_tokens=STEP,
            store=self._store,
            lower_bytes=_DISK if lower else 0,
        )
        assert self.kv.nbytes <= budget
        self.layers = sizes.shape.layers
        self.scheduler = Scheduler(
            Blocks(min(self.kv.total_blocks, 1 << 16), self.kv.block_tokens),
            Limits(STEP, 1, STEP),
            share=False,
        )
        self._cache = PackedCache(self.kv, self.layers)
        self._shape = (1, sizes.shape.kv_heads, sizes.shape.head_dim)
        self._dtype = sizes.shape.dtype

    @property
    def tokens(self) -> int:
        """Of one sequence, that the scheduler admits."""
        return self.scheduler.blocks.total * self.kv.block_tokens

    def read(self, ids: list[int], new: int, told: Told | None = None) -> list[int]:
        """The tokens of a greedy answer to ``ids``."""
        self.model.set_attn_implementation(ATTENTION)
        sequence = self.scheduler.add(Job("text", tuple(ids), new))
        while not self.scheduler.idle:
            self._step(lambda step: self._computed(step, told))
        return sequence.tokens[len(ids) :]

    def fill(self, tokens: int, new: int) -> int:
        """A sequence of random keys and values with ``new`` tokens to make, two at least; how many
        it has."""
        sequence = self.scheduler.add(Job("random", (17,) * (tokens + 1), new))
        while sequence.pending > 1:
            self._step(self._made_up)
        return sequence.computed

    def go_on(self) -> None:
        """One step with the model."""
        self._step(lambda step: self._computed(step, None))

    def close(self) -> None:
        self.kv.close()
        if self._store is not None:
            self._store.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _step(self, compute: Callable[[Step], list[int]]) -> None:
        step = self.scheduler.step()
        self.kv.begin(step)
        chosen = compute(step)
        self.kv.commit()
        sampled = [part.id for part in step.slices if part.samples]
        self.scheduler.finished(step, dict(zip(sampled, chosen, strict=True)))

    def _computed(self, step: Step, told: Told | None) -> list[int]:
        parts = step.slices
        ids = [token for part in parts for token in part.sequence.tokens[part.start : part.end]]
        positions = [place for part in parts for place in range(part.start, part.end)]
        hidden_td = self.model.model(
            input_ids=torch.tensor([ids]),
            position_ids=torch.tensor([positions]),
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state[0]
        first, last = 0, []
        for part in parts:
            if told is not None:
                told(part, hidden_td[first : first + part.count])
            first += part.count
            if part.samples:
                last.append(first - 1)
        chosen: list[int] = self.model.lm_head(hidden_td[last]).argmax(-1).tolist()
        return chosen

    def _made_up(self, step: Step) -> list[int]:
        batch, heads, channels = self._shape
        for layer in range(self.layers):
            states = torch.randn(batch, heads, step.tokens, channels).to(self._dtype)
            self.kv.keep(layer, states, states.clone())
        return [17 for part in step.slices if part.samples]
