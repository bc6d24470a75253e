"""Keys and values by the scheduler's block numbers, against attention in float64."""

from __future__ import annotations

import random
from typing import Any

import pytest

pytest.importorskip("torch")

import torch

from octavo.engine import attention, slab_decode, slab_prefill
from octavo.engine.blocks import Blocks
from octavo.engine.kv_layout import KvShape
from octavo.engine.limits import Limits
from octavo.engine.scheduler import Scheduler
from octavo.engine.sequence import Job
from octavo.engine.slab import SlabKv, block_bytes
from octavo.engine.step import Step
from octavo.errors import BudgetExceeded
from octavo.memory.ledger import Ledger

HEADS, KEYS, D, SIZE = 4, 2, 16, 8


def numbers(ids: list[int], start: int, kind: int, layer: int, heads: int) -> torch.Tensor:
    """Vectors ``[h, t, d]`` that follow from each token, its place and its layer alone."""
    rows = []
    for place, token in enumerate(ids, start=start):
        seed = ((token * 1009 + place) * 7 + kind) * 5 + layer
        rows.append(torch.randn(heads, D, generator=torch.Generator().manual_seed(seed)))
    return torch.stack(rows, 1)


def expected(tokens: list[int], start: int, layer: int, window: int | None) -> torch.Tensor:
    """``[t, h, d]`` of the tokens from ``start`` on."""
    query = numbers(tokens[start:], start, 0, layer, HEADS).double()
    keys = numbers(tokens, 0, 1, layer, KEYS).double().repeat_interleave(HEADS // KEYS, 0)
    values = numbers(tokens, 0, 2, layer, KEYS).double().repeat_interleave(HEADS // KEYS, 0)
    logits = query @ keys.transpose(1, 2) * 0.25
    here = torch.arange(start, len(tokens))[:, None]
    there = torch.arange(len(tokens))
    hidden = there > here
    if window is not None:
        hidden |= there <= here - window
    return (logits.masked_fill(hidden, -torch.inf).softmax(-1) @ values).transpose(0, 1)


class Driver:
    """A scheduler and a slab; the next token follows from the tokens before it."""

    def __init__(
        self,
        blocks: int,
        *,
        dtype: torch.dtype = torch.float32,
        window: int | None = None,
        **other: Any,
    ) -> None:
        self.shape = KvShape(2, KEYS, D, dtype, (None, window))
        self.ledger = Ledger({"host": 1 << 28})
        self.kv = SlabKv(self.ledger, self.shape, blocks=blocks, block_tokens=SIZE)
        self.scheduler = Scheduler(Blocks(blocks, SIZE), Limits(48, 6, 24), **other)
        self.worst = 0.0
        self.far = 1e-4 if dtype is torch.float32 else 0.05

    def compute(self, step: Step) -> None:
        self.kv.begin(step)
        for layer in range(self.shape.layers):
            made = []
            for kind, heads in ((0, HEADS), (1, KEYS), (2, KEYS)):
                parts = [
                    numbers(
                        part.sequence.tokens[part.start : part.end], part.start, kind, layer, heads
                    )
                    for part in step.slices
                ]
                made.append(torch.cat(parts, 1)[None].to(self.shape.dtype))
            out_thd = self.kv.attend(layer, *made, 0.25)[0]
            row = 0
            for part in step.slices:
                mine = out_thd[row : row + part.count].double()
                wanted = expected(
                    part.sequence.tokens[: part.end], part.start, layer, self.shape.window(layer)
                )
                assert mine.isfinite().all()
                self.worst = max(self.worst, float((mine - wanted).abs().max()))
                row += part.count

    def turn(self, chance: random.Random) -> None:
        step = self.scheduler.step()
        if chance.random() < 0.1 and step.slices:
            # The step breaks off after it was computed, or half of it.
            self.compute(step)
            self.kv.rollback()
            self.scheduler.abandon(step)
            return
        if step.slices:
            self.compute(step)
        else:
            self.kv.begin(step)
        self.kv.commit()
        tokens = {
            part.id: sum(part.sequence.tokens[-3:]) * 31 % 97
            for part in step.slices
            if part.samples
        }
        self.scheduler.finished(step, tokens)
        self.scheduler.check()


@pytest.mark.parametrize("seed", range(6))
def test_random_workloads(seed: int) -> None:
    chance = random.Random(seed)
    driver = Driver(
        chance.choice((14, 40)),
        window=chance.choice((None, 5, 20)),
        dtype=chance.choice((torch.float32, torch.bfloat16)),
        host_blocks=chance.choice((0, 20)),
        parks=lambda _sequence: chance.random() < 0.7,
    )
    waiting = 12
    while waiting or not driver.scheduler.idle:
        if waiting and chance.random() < 0.4:
            waiting -= 1
            prompt = tuple(range(chance.choice((3, 9, 17, 40))))
            more = tuple(chance.randrange(97) for _ in range(chance.randrange(1, 30)))
            job = Job(f"j{waiting}", prompt + more, chance.randrange(1, 25))
            driver.scheduler.add(job)
        if chance.random() < 0.03 and driver.scheduler.running:
            driver.scheduler.cancel(chance.choice(driver.scheduler.running).id)
        driver.turn(chance)
    assert driver.worst < driver.far
    assert not driver.kv._saved
    driver.kv.close()
    assert driver.ledger.used("host") == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_without_torch_s_kernel_it_is_the_same(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (attention, slab_decode):
        monkeypatch.setattr(module, "kernel_for", lambda _query: None)
    driver = Driver(40, dtype=dtype, window=20)
    chance = random.Random(1)
    for number in range(5):
        driver.scheduler.add(Job(f"j{number}", tuple(range(number, 30 + 7 * number)), 12))
    while not driver.scheduler.idle:
        driver.turn(chance)
    assert driver.worst < 1e-5


def test_small_tiles_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    one = block_bytes(KvShape(1, KEYS, D, torch.float32), SIZE) // 2
    for module in (slab_decode, slab_prefill):
        monkeypatch.setattr(module, "_TILE", 2 * one)
    test_random_workloads(3)


def test_what_others_left_in_a_block_does_not_count() -> None:
    driver = Driver(4)
    driver.kv.slab_nl2hsd.fill_(torch.nan)
    driver.scheduler.add(Job("a", (1, 2, 3), 12))
    while not driver.scheduler.idle:
        driver.turn(random.Random(4))
    assert driver.worst < 1e-4


def test_shared_blocks_are_read_not_computed() -> None:
    driver = Driver(40)
    chance = random.Random(2)
    prompt = tuple(range(40))
    driver.scheduler.add(Job("first", prompt, 3))
    while not driver.scheduler.idle:
        driver.turn(chance)
    sequence = driver.scheduler.add(Job("second", (*prompt, 7), 3))
    while not driver.scheduler.idle:
        driver.turn(chance)
    assert sequence.shared == 40
    assert driver.worst < 1e-4


@pytest.fixture
def shape() -> KvShape:
    return KvShape(2, KEYS, D, torch.float32)


def test_a_ledger_without_room_refuses(shape: KvShape) -> None:
    ledger = Ledger({"host": 4096})
    with pytest.raises(BudgetExceeded, match="KV blocks"):
        SlabKv(ledger, shape, blocks=100, block_tokens=SIZE)
    assert ledger.used("host") == 0


def test_no_memory_for_the_slab_gives_the_reservation_back(
    shape: KvShape, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger({"host": 1 << 28})

    def none(_nbytes: int) -> torch.Tensor:
        raise MemoryError

    monkeypatch.setattr("octavo.engine.slab.host_buffer", none)
    with pytest.raises(MemoryError):
        SlabKv(ledger, shape, blocks=10, block_tokens=SIZE)
    assert ledger.used("host") == 0
