"""A model of attention alone: the real scheduler drives a backend, float64 says what is right.

A token's query, keys and values follow from its layer, its place and its id, and the next token
from the sequence so far; so each slice can be checked by itself.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from octavo.engine.backend import KvBackend
from octavo.engine.blocks import Blocks
from octavo.engine.kv_backend import SequenceKv
from octavo.engine.kv_layout import KvPrecision
from octavo.engine.limits import Limits
from octavo.engine.scheduler import Scheduler
from octavo.engine.sequence import Job, Sequence
from octavo.engine.step import Slice, Step
from octavo.errors import BudgetExceeded
from octavo.memory.pools import BlockPool
from octavo.memory.pools import Blocks as Taken
from tests.engine.kv_tools import DIM, GROUP, HEADS, softmax_attention

WORDS, LONGEST = 5, 400

#: Largest error over all tokens with values of unit variance.
FAR: dict[KvPrecision, float] = {"exact": 2e-5, "int8": 0.05, "int4": 0.7}


class Vectors:
    """Queries, keys and values of every word at every place."""

    def __init__(self, layers: int, seed: int = 0) -> None:
        draw = torch.Generator().manual_seed(seed)
        size = (layers, HEADS, LONGEST, WORDS, DIM)
        offset = torch.randn(layers, HEADS, 1, 1, DIM, generator=draw) * 3
        self.keys = torch.randn(size, generator=draw) + offset
        self.values = torch.randn(size, generator=draw)
        query = (layers, HEADS * GROUP, LONGEST, WORDS, DIM)
        self.queries = torch.randn(query, generator=draw) * 0.3

    @staticmethod
    def of(table_lhpwd: torch.Tensor, layer: int, tokens: list[int], start: int) -> torch.Tensor:
        """``[h, t, d]`` of tokens from ``start`` on."""
        places = torch.arange(start, len(tokens))
        return table_lhpwd[layer][:, places, torch.tensor(tokens[start:], dtype=torch.long)]


class World:
    """Args:
    kv: what is tested.
    seed: of the jobs and of what goes wrong.
    windows: of the layers.
    """

    def __init__(
        self,
        kv: KvBackend,
        *,
        layers: int = 2,
        windows: tuple[int | None, ...] = (),
        limits: Limits | None = None,
        host_blocks: int = 0,
        seed: int = 0,
        far: float = 2e-5,
    ) -> None:
        self.kv, self.layers, self.windows, self.far = kv, layers, windows or (None,) * layers, far
        self.random = random.Random(seed)
        self.vectors = Vectors(layers)
        self.scheduler = Scheduler(
            Blocks(kv.total_blocks, kv.block_tokens),
            limits or Limits(40, 4, 24, aging=10),
            host_blocks=host_blocks,
            parks=lambda _: self.random.random() < 0.6,
            share=False,
        )
        self.worst, self.checked = 0.0, 0
        self.preempted = self.parked = self.forked = self.refused = 0

    def attend(self, step: Step, layer: int) -> None:
        """One layer of a step, compared with float64."""
        if not step.slices:
            return
        query, keys, values = (
            torch.cat([self._part(table, layer, part) for part in step.slices], 1)[None]
            for table in (self.vectors.queries, self.vectors.keys, self.vectors.values)
        )
        found_1thd = self.kv.attend(layer, query, keys, values, DIM**-0.5)
        assert found_1thd.shape == (1, step.tokens, HEADS * GROUP, DIM)
        first = 0
        for part in step.slices:
            self._check(part, layer, found_1thd[0, first : first + part.count])
            first += part.count

    def _part(self, table: torch.Tensor, layer: int, part: Slice) -> torch.Tensor:
        return Vectors.of(table, layer, part.sequence.tokens[: part.end], part.start)

    def _check(self, part: Slice, layer: int, found_thd: torch.Tensor) -> None:
        tokens = part.sequence.tokens[: part.end]
        truth_hgtd = softmax_attention(
            self._part(self.vectors.queries, layer, part).unflatten(0, (HEADS, GROUP)),
            Vectors.of(self.vectors.keys, layer, tokens, 0),
            Vectors.of(self.vectors.values, layer, tokens, 0),
            self.windows[layer],
        )
        truth_thd = truth_hgtd.flatten(0, 1).transpose(0, 1)
        error = (found_thd.double() - truth_thd).abs().max().item()
        assert error < self.far, f"{part.id} at {part.start} in layer {layer}: {error}"
        self.worst, self.checked = max(self.worst, error), self.checked + part.count

    def tokens(self, step: Step) -> dict[str, int]:
        return {
            part.id: (sum(part.sequence.tokens) + part.end) % WORDS
            for part in step.slices
            if part.samples
        }

    def count(self, step: Step) -> None:
        self.preempted += len(step.preempted)
        self.parked += len(step.saves)
        self.forked += len(step.forks)

    def step(self) -> list[str]:
        """A step without faults; the ids that ended."""
        step = self.scheduler.step()
        self.count(step)
        self.kv.begin(step)
        for layer in range(self.layers):
            self.attend(step, layer)
        self.kv.commit()
        ended = self.scheduler.finished(step, self.tokens(step))
        return [one.id for one in (*step.ended, *ended)]

    def run(self) -> None:
        for _ in range(2000):
            if self.scheduler.idle:
                return
            self.step()
        raise AssertionError("not done")

    def add(self, name: str, tokens: int, new: int, **more: Any) -> Sequence:
        words = tuple(self.random.randrange(WORDS) for _ in range(tokens))
        return self.scheduler.add(Job(name, words, new, **more))


class Rough:
    """Jobs that come, are cancelled, continued and forgotten, while steps are lost anywhere.

    Args:
        faults: whether blocks run out and steps break off.
    """

    def __init__(self, world: World, *, faults: bool = True, kept: int = 3) -> None:
        self.world, self.random, self.faults, self.most = world, world.random, faults, kept
        self.kept: list[str] = []
        self.lost = self.broken = self.out = 0

    def run(self, jobs: int) -> None:
        left = jobs
        for _ in range(3000):
            if left and self.random.random() < 0.4:
                self.come(f"job-{left}")
                left -= 1
            if self.kept and self.random.random() < 0.1:
                self.go_on()
            if self.random.random() < 0.03 and self.world.scheduler.running:
                self.world.scheduler.cancel(self.random.choice(self.world.scheduler.running).id)
            self.step()
            self.world.scheduler.check()
            if not left and self.world.scheduler.idle:
                break
        assert self.world.scheduler.idle
        for name in self.kept:
            self.world.scheduler.forget(name)
        self.world.step()

    def come(self, name: str) -> None:
        pick, kept = self.random, self.world.scheduler._books.kept
        tokens = tuple(pick.randrange(WORDS) for _ in range(pick.choice((1, 8, 30, 70))))
        after = pick.choice(self.kept) if self.kept and pick.random() < 0.7 else None
        if after is not None and len(kept[after].tokens) < LONGEST // 2:
            tokens = (*kept[after].tokens, *tokens)
        job = Job(
            name,
            tokens,
            pick.choice((1, 3, 20, 50)),
            priority=pick.choice((0, 0, 0, 3)),
            keep=pick.random() < 0.4,
            after=after,
        )
        try:
            self.world.scheduler.add(job)
        except BudgetExceeded:
            self.world.refused += 1

    def go_on(self) -> None:
        name = self.kept.pop(self.random.randrange(len(self.kept)))
        kept = self.world.scheduler._books.kept[name]
        try:
            assert kept.length < LONGEST - 30
            self.world.scheduler.resume(name, self.random.choice((1, 9)))
        except (BudgetExceeded, AssertionError):
            self.world.scheduler.forget(name)

    def step(self) -> None:
        step = self.world.scheduler.step()
        self.world.count(step)
        tokens = self.world.tokens(step)
        ended = list(step.ended)
        if self._compute(step):
            ended += self.world.scheduler.finished(step, tokens)
        else:
            self.lost += 1
            self.world.scheduler.abandon(step)
        for one in ended:
            if one.sequence.job.keep and one.ending.whole:
                self.kept.append(one.id)
        while len(self.kept) > self.most:
            self.world.scheduler.forget(self.kept.pop(0))

    def _compute(self, step: Step) -> bool:
        """Whether it went well."""
        kv, layers = self.world.kv, self.world.layers
        fault = self.random.random() if self.faults else 1.0
        if fault < 0.03:
            return False
        try:
            with no_blocks_after(self.random.randrange(12) if fault < 0.1 else None):
                kv.begin(step)
        except BudgetExceeded:
            if fault >= 0.1:
                raise
            self.out += 1
            return False
        stop = self.random.randrange(layers + 1) if 0.1 <= fault < 0.2 else layers + 1
        for layer in range(min(stop, layers)):
            self.world.attend(step, layer)
        if stop <= layers:
            self.broken += 1
            kv.rollback()
            return False
        kv.commit()
        # What is chosen from the logits may fail as well.
        return fault >= 0.25 or not self.faults


@contextmanager
def no_blocks_after(count: int | None) -> Iterator[None]:
    """From the ``count``-th on no block is to be had."""
    taken, real = 0, BlockPool.blocks

    def refuse(pool: BlockPool, wanted: int, *, owner: str = "") -> Taken:
        nonlocal taken
        taken += 1
        if count is not None and taken > count:
            raise BudgetExceeded("injected: no block")
        return real(pool, wanted, owner=owner)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BlockPool, "blocks", refuse)
        yield


def used(kv: SequenceKv) -> tuple[int, int]:
    """Bytes of blocks that are taken."""
    return kv._kv.full.stats().used, kv._kv.exact.stats().used
