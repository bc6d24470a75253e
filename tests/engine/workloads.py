"""Random workloads that use everything the scheduler offers, checked at every step.

Run it longer by hand: ``python -m tests.engine.workloads --count 10000``.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter

from octavo.engine.blocks import Blocks
from octavo.engine.limits import Limits
from octavo.engine.scheduler import Scheduler
from octavo.engine.sequence import Ending, Job, Media
from octavo.engine.step import Ended, Step
from octavo.errors import BudgetExceeded
from tests.engine.machine import Machine, answer


class Workload:
    """Jobs that come, are cancelled, expire, fail and are continued, while steps are lost.

    Args:
        seed: of everything.
        rough: whether jobs are cancelled, fail or expire, and steps are abandoned.
    """

    def __init__(self, seed: int, *, rough: bool = True) -> None:
        self.random = random.Random(seed)
        self.rough = rough
        pick = self.random
        running = pick.randint(1, 8)
        limits = Limits(
            max_tokens_per_step=running + pick.choice((0, 3, 20)),
            max_running=running,
            prefill_chunk=pick.choice((1, 3, 8, 50)),
            aging=pick.choice((1, 10, 1000)),
        )
        self.host_blocks = pick.choice((0, 5, 100))
        self.feature_bytes = pick.choice((10, 14, 40))
        self.now = 0.0
        self.scheduler = Scheduler(
            Blocks(pick.choice((10, 14, 30, 80)), pick.choice((1, 3, 4))),
            limits,
            feature_bytes=self.feature_bytes,
            host_blocks=self.host_blocks,
            parks=lambda _: pick.random() < 0.6,
            share=pick.random() < 0.8,
            clock=lambda: self.now,
        )
        self.machine = Machine(
            self.scheduler, feature_bytes=self.feature_bytes, host_blocks=self.host_blocks
        )
        self.jobs: dict[str, Job] = {}
        self.limits: dict[str, int] = {}
        self.turns: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.meant: dict[str, set[Ending]] = {}
        self.kept: list[str] = []
        self.refused = self.preempted = self.shared = 0

    def run(self, jobs: int) -> None:
        left = jobs
        for _ in range(20_000):
            while left and self.random.random() < 0.5:
                self.come(f"job-{left}")
                left -= 1
            if self.kept and self.random.random() < 0.3:
                self.go_on(self.kept.pop(self.random.randrange(len(self.kept))))
            if self.rough and self.random.random() < 0.1:
                self.cancel()
            self.step()
            if not left and self.scheduler.idle:
                break
        self.close()

    def come(self, name: str) -> None:
        job = self.job(name)
        try:
            self.scheduler.add(job)
        except BudgetExceeded:
            self.refused += 1
            return
        self.jobs[name], self.limits[name] = job, job.max_new_tokens
        self.turns[name] += 1

    def job(self, name: str) -> Job:
        """Prompts begin alike in tokens, and often but not always in pictures."""
        pick = self.random
        after = pick.choice(self.kept) if self.kept and pick.random() < 0.5 else None
        if after is not None and pick.random() < 0.8:
            parent = self.scheduler._books.kept[after]
            tokens, media = list(parent.tokens), parent.job.media
            root = parent.job.root
            tokens += [pick.randrange(3) for _ in range(pick.randint(0, 5))]
        else:
            tokens = [1] * pick.choice((0, 4, 9)) + [
                pick.randrange(2) for _ in range(pick.randint(1, 14))
            ]
            media, root = self.media(len(tokens)), pick.choice((b"", b"", b"other"))
        return Job(
            name,
            tuple(tokens),
            pick.choice((1, 2, 6, 20)),
            media,
            priority=pick.choice((0, 0, 0, 1, 5)),
            deadline=self.now + pick.randint(0, 60) if self.late() else None,
            root=root,
            keep=pick.random() < 0.3,
            after=after,
        )

    def late(self) -> bool:
        return self.rough and self.random.random() < 0.2

    def media(self, length: int) -> tuple[Media, ...]:
        found, start = [], 0
        while self.random.random() < 0.4:
            start += self.random.randint(0, 3)
            tokens = self.random.randint(1, 6)
            if start + tokens > length:
                break
            key = bytes([self.random.randrange(3)])
            found.append(Media(start, tokens, key, 4 + 3 * key[0]))
            start += tokens
        return tuple(found)

    def go_on(self, name: str) -> None:
        more = self.random.randint(1, 5)
        sequence = self.scheduler._books.kept[name]
        if sequence.ending is Ending.STOP or self.random.random() < 0.3:
            self.scheduler.forget(name)
            return
        try:
            self.scheduler.resume(name, more)
        except BudgetExceeded:
            self.scheduler.forget(name)
            return
        self.limits[name] = sequence.generated + more
        self.turns[name] += 1

    def cancel(self) -> None:
        if self.jobs:
            name = self.random.choice(list(self.jobs))
            alive = self.turns[name] > self.ends[name]
            assert self.scheduler.cancel(name) is alive
            if alive:
                self.meant.setdefault(name, set()).add(Ending.CANCELLED)

    def step(self) -> None:
        self.now += 1
        step = self.scheduler.step()
        self.preempted += len(step.preempted)
        if self.rough and self.random.random() < 0.05:
            self.lose(step)
            return
        tokens = self.machine.run(step)
        failed = {s.id for s in step.slices if self.rough and self.random.random() < 0.01}
        for name in failed:
            self.meant.setdefault(name, set()).add(Ending.FAILED)
            tokens.pop(name, None)
        stopped = {name for name, token in tokens.items() if token == 0}
        ended = self.scheduler.finished(step, tokens, stopped=stopped, failed=failed)
        self.scheduler.check()
        for one in (*step.ended, *ended):
            self.over(one)

    def lose(self, step: Step) -> None:
        """The step fails: before its moves, or after them and somewhere in the model."""
        if self.random.random() < 0.5:
            self.machine.move(step)
        else:
            for name in step.dropped:
                del self.machine.host[name]
            for save in step.saves:
                self.machine.host[save.id] = []
            for restore in step.restores:
                del self.machine.host[restore.id]
            for key in step.unseen:
                self.machine.features.pop(key, None)
        self.scheduler.abandon(step)
        running = self.random.randint(1, 8)
        self.scheduler.limits = Limits(
            running + self.random.choice((0, 8)), running, self.random.choice((1, 8)), aging=10
        )
        self.scheduler.check()
        for one in step.ended:
            self.over(one)

    def over(self, one: Ended) -> None:
        """Ended once, for a reason, and with the tokens that it has when it is alone."""
        sequence, job = one.sequence, self.jobs[one.id]
        self.ends[one.id] += 1
        assert self.ends[one.id] == self.turns[one.id]
        self.shared += sequence.shared
        said = sequence.tokens[len(job.tokens) :]
        expected, ending = answer(job, self.limits[one.id])
        if one.ending.whole:
            assert said == expected
            assert one.ending is ending
            if job.keep:
                self.kept.append(one.id)
            return
        assert said == expected[: len(said)]
        if one.ending is Ending.EXPIRED:
            assert sequence.deadline is not None
            assert sequence.deadline < self.now
        else:
            assert one.ending in self.meant[one.id]

    def close(self) -> None:
        """Nothing is left of anything."""
        assert self.scheduler.idle
        assert self.ends == self.turns
        for name in self.kept:
            self.scheduler.forget(name)
        blocks = self.scheduler.blocks
        assert blocks.available == blocks.total
        self.step()
        assert not self.machine.host
        assert not self.machine.features
        self.scheduler.check()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    asked = parser.parse_args()
    for seed in range(asked.first, asked.first + asked.count):
        try:
            Workload(seed).run(jobs=12)
        except Exception as error:
            error.add_note(f"workload {seed}")
            raise


if __name__ == "__main__":
    main()
