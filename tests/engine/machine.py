"""A machine without a model: it does to real block contents what a step says.

A token's keys and values are a digest of all that they follow from: the root, every token and
medium up to it. The next token follows from the last digest, so an answer is right only if every
block that was read held the right content.
"""

from __future__ import annotations

import hashlib

from octavo.engine.scheduler import Scheduler
from octavo.engine.sequence import Ending, Job, Sequence
from octavo.engine.step import Ended, Slice, Step

STOP = 0
WORDS = 40


def extend(job: Job, states: list[bytes], tokens: list[int]) -> None:
    """Goes on with what the keys and values of each token follow from."""
    state = states[-1] if states else hashlib.blake2b(job.root, digest_size=12).digest()
    for position in range(len(states), len(tokens)):
        seen = [(position - m.start, m.key) for m in job.media if m.start <= position < m.end]
        said = f"{tokens[position]}|{seen}".encode()
        state = hashlib.blake2b(state + said, digest_size=12).digest()
        states.append(state)


def choose(state: bytes) -> int:
    return state[0] % WORDS


def answer(job: Job, limit: int) -> tuple[list[int], Ending]:
    """What a job answers when it is alone."""
    tokens = list(job.tokens)
    states: list[bytes] = []
    while len(tokens) < len(job.tokens) + limit:
        extend(job, states, tokens)
        tokens.append(choose(states[-1]))
        if tokens[-1] == STOP:
            return tokens[len(job.tokens) :], Ending.STOP
    return tokens[len(job.tokens) :], Ending.LENGTH


class Machine:
    """Block contents on the device and on the host, and features that were seen."""

    def __init__(
        self, scheduler: Scheduler, *, feature_bytes: int = 0, host_blocks: int = 0
    ) -> None:
        self.scheduler = scheduler
        self.size = scheduler.blocks.size
        self.device: list[list[bytes | None]] = [
            [None] * self.size for _ in range(scheduler.blocks.total)
        ]
        self.host: dict[str, list[list[bytes | None]]] = {}
        self.features: dict[bytes, int] = {}
        self.feature_bytes = feature_bytes
        self.host_blocks = host_blocks
        self.computed = 0
        self._states: dict[str, list[bytes]] = {}

    def run(self, step: Step) -> dict[str, int]:
        """Does a step; the tokens that were chosen."""
        self.check(step)
        self.move(step)
        for part in step.slices:
            self.see(part)
            self.read(part)
        for part in step.slices:
            self.write(part)
        self.computed += step.tokens
        return {s.id: choose(self.states(s.sequence)[s.end - 1]) for s in step.slices if s.samples}

    def move(self, step: Step) -> None:
        for name in step.dropped:
            del self.host[name]
        for key in step.unseen:
            assert not any(key == m.key for s in self.scheduler.running for m in s.holding)
            self.features.pop(key, None)
        for save in step.saves:
            assert save.id not in self.host
            assert save.first == 0
            self.host[save.id] = [list(self.device[b]) for b in save.blocks]
        assert sum(map(len, self.host.values())) <= self.host_blocks
        for copy in step.copies:
            kept = self.device[copy.source][: copy.tokens]
            self.device[copy.target] = kept + [None] * (self.size - copy.tokens)
        for restore in step.restores:
            blocks = self.host.pop(restore.id)[restore.first :]
            assert len(blocks) == len(restore.blocks)
            for block, content in zip(restore.blocks, blocks, strict=True):
                self.device[block] = content

    def states(self, sequence: Sequence) -> list[bytes]:
        known = self._states.setdefault(sequence.id, [])
        extend(sequence.job, known, sequence.tokens)
        return known

    def see(self, part: Slice) -> None:
        for medium in part.media:
            assert medium in part.sequence.holding
            self.features[medium.key] = medium.nbytes
        assert sum(self.features.values()) <= self.feature_bytes

    def read(self, part: Slice) -> None:
        blocks = part.sequence.blocks
        held = [self.device[blocks[p // self.size]][p % self.size] for p in range(part.start)]
        assert held == self.states(part.sequence)[: part.start], f"{part.id} reads other content"

    def write(self, part: Slice) -> None:
        states = self.states(part.sequence)
        for position in range(part.start, part.end):
            block = part.sequence.blocks[position // self.size]
            self.device[block][position % self.size] = states[position]

    def check(self, step: Step) -> None:
        """What holds for every step."""
        limits = self.scheduler.limits
        ids = [part.id for part in step.slices]
        assert len(ids) == len(set(ids))
        assert step.tokens == sum(part.count for part in step.slices)
        assert step.tokens <= limits.max_tokens_per_step
        assert len(self.scheduler.running) <= limits.max_running
        running = {sequence.id for sequence in self.scheduler.running}
        assert running.issuperset(ids)
        written = [b for part in step.slices for b in self.written(part)]
        assert len(written) == len(set(written)), "two sequences write into one block"
        for part in step.slices:
            assert 1 <= part.count <= limits.prefill_chunk
            assert part.start == part.sequence.computed
            assert part.end <= part.sequence.length
            others = {b for s in self.scheduler.running if s is not part.sequence for b in s.blocks}
            assert others.isdisjoint(self.written(part)), "a block that another reads is written"
        self.scheduler.check()

    def written(self, part: Slice) -> list[int]:
        first, last = part.start // self.size, (part.end - 1) // self.size
        return part.sequence.blocks[first : last + 1]


def finish(
    scheduler: Scheduler, step: Step, tokens: dict[str, int], *, stops: bool = False
) -> list[Ended]:
    """Tells the scheduler what was chosen; with ``stops`` a chosen ``STOP`` ends the answer."""
    stopped = {name for name, token in tokens.items() if stops and token == STOP}
    return [*step.ended, *scheduler.finished(step, tokens, stopped=stopped)]


def drain(scheduler: Scheduler, machine: Machine, *, stops: bool = False) -> list[Ended]:
    """Steps until nothing is left."""
    ended: list[Ended] = []
    for _ in range(10_000):
        if scheduler.idle:
            return ended
        step = scheduler.step()
        ended += finish(scheduler, step, machine.run(step), stops=stops)
    raise AssertionError("not done")
