"""Which tokens of which sequences go through the model next. Books only: no tensors, no model.

Continuous batching (Orca, Yu et al. 2022) with chunked prefill beside decodes (Sarathi, Agrawal et
al. 2023) over paged blocks (vLLM, Kwon et al. 2023).
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Collection, Mapping

from octavo.engine.blocks import Blocks
from octavo.engine.books import Books, Parks
from octavo.engine.feature_budget import FeatureBudget
from octavo.engine.limits import Limits
from octavo.engine.planning import Planning
from octavo.engine.sequence import Ending, Job, Sequence
from octavo.engine.step import Ended, Step
from octavo.engine.table import BlockTable
from octavo.errors import BudgetExceeded, ConfigError


def _never(_: Sequence) -> bool:
    return False


class Scheduler:
    """Plans steps for jobs and keeps the books of their blocks and features.

    ``step()`` says what to do, ``finished()`` what came of it (or ``abandon()`` that nothing did);
    they take turns. Used by one thread; only :meth:`cancel` may be called by others.

    Args:
        blocks: of the KV cache.
        limits: of a step; may be set to others between two steps.
        feature_bytes: that features of media may take at the same time.
        host_blocks: blocks of preempted sequences that may lie on the host.
        parks: says of a sequence that gives way whether saving and restoring its blocks is cheaper
            than computing them again.
        share: whether jobs that begin alike share blocks.
        clock: seconds, for deadlines.
    """

    def __init__(
        self,
        blocks: Blocks,
        limits: Limits,
        *,
        feature_bytes: int = 0,
        host_blocks: int = 0,
        parks: Parks = _never,
        share: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits
        self.blocks = blocks
        self._books = Books(
            BlockTable(blocks, share=share),
            FeatureBudget(feature_bytes),
            host_blocks,
            parks,
        )
        self._clock = clock
        self._alive: dict[str, Sequence] = {}
        self._cancelled: set[tuple[str, int]] = set()
        self._deadlines: list[tuple[float, int, str]] = []
        self._steps = self._arrivals = 0
        self._open: Step | None = None

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._alive

    @property
    def waiting(self) -> tuple[Sequence, ...]:
        """Those that wait, in order: the first runs next."""
        return tuple(self._books.waiting)

    @property
    def running(self) -> tuple[Sequence, ...]:
        """Those that run, in order: the last gives way first."""
        return tuple(self._books.running)

    def add(self, job: Job) -> Sequence:
        """Queues a job.

        It goes before those that come later, unless their priority is higher: each level of
        priority is worth ``limits.aging`` steps of waiting.

        Raises:
            BudgetExceeded: it would not fit even if it were alone.
            ConfigError: the id is taken.
        """
        if job.id in self._alive or job.id in self._books.kept:
            raise ConfigError("a job with this id is not over", where=job.id)
        sequence = Sequence(job, self._steps, self._rank(job))
        self._admissible(sequence)
        self._enter(sequence)
        return sequence

    def resume(
        self, job_id: str, max_new_tokens: int, *, deadline: float | None = None
    ) -> Sequence:
        """Continues a kept job that has ended: ``max_new_tokens`` more, from where it stopped.

        It waits its turn anew. If its blocks were needed meanwhile they are computed again.

        Raises:
            BudgetExceeded: it would not fit even if it were alone; it stays kept.
            ConfigError: it was not kept, or was forgotten, or no token is asked for.
        """
        sequence = self._kept(job_id)
        if max_new_tokens < 1:
            raise ConfigError("a job needs a token to make", where=job_id)
        limit = sequence.limit
        sequence.limit = sequence.generated + max_new_tokens
        try:
            self._admissible(sequence)
        except BudgetExceeded:
            sequence.limit = limit
            raise
        del self._books.kept[job_id]
        sequence.ending, sequence.deadline = None, deadline
        sequence.arrival, sequence.rank = self._steps, self._rank(sequence.job)
        self._enter(sequence)
        return sequence

    def forget(self, job_id: str) -> None:
        """Lets the blocks of a kept job go.

        Raises:
            ConfigError: it was not kept.
        """
        self._books.forget(self._kept(job_id))

    def cancel(self, job_id: str) -> bool:
        """Ends a job before the next step; False when it is over already."""
        sequence = self._alive.get(job_id)
        if sequence is None:
            return False
        # With its number: by the next step another job may have the id.
        self._cancelled.add((job_id, sequence.rank[1]))
        return True

    def step(self) -> Step:
        """What to do next; nothing to compute when all is done or every job has just ended.

        Raises:
            ConfigError: the step before is still open.
        """
        if self._open is not None:
            raise ConfigError("a step is open", next_step="tell what came of it first")
        self._steps += 1
        step = self._books.step
        step.number = self._steps
        self._sweep()
        Planning(self._books, self.limits).run()
        held = self._books.features.holds
        step.unseen = [key for key in dict.fromkeys(step.unseen) if not held(key)]
        self._open, self._books.step = step, Step(self._steps + 1)
        return step

    def finished(
        self,
        step: Step,
        tokens: Mapping[str, int],
        *,
        stopped: Collection[str] = (),
        failed: Collection[str] = (),
    ) -> list[Ended]:
        """What came of a step.

        Args:
            step: the open one.
            tokens: by id, the token that was chosen, for each slice that ``samples``.
            stopped: ids whose answer is complete with that token.
            failed: ids that cannot go on.

        Raises:
            ConfigError: another step is open, or a token is missing; nothing has changed.
        """
        self._close(step, {s.id for s in step.slices if s.samples} - set(failed) - set(tokens))
        ended = []
        for part in step.slices:
            sequence = part.sequence
            if sequence.id in failed:
                ended.append(self._end(sequence, Ending.FAILED))
                continue
            samples = part.samples
            self._books.advance(sequence, part.count)
            if samples:
                ended += self._append(sequence, tokens[part.id], part.id in stopped)
        return ended

    def abandon(self, step: Step) -> None:
        """Nothing came of a step; its tokens are planned again.

        Sequences whose blocks were to be copied or moved start over, because nobody knows how far
        that went.

        Raises:
            ConfigError: another step is open.
        """
        self._close(step, set())
        moved = {move.id for move in (*step.saves, *step.restores)}
        moved |= {fork.sequence.id for fork in step.forks}
        copied = {copy.target for copy in step.copies}
        for sequence in tuple(self._alive.values()):
            if sequence.id in moved or not copied.isdisjoint(sequence.blocks):
                self._books.restart(sequence)

    def lose(self, job_id: str) -> None:
        """The keys and values of a job are gone: it starts over when its turn comes.

        Also while a step is open. Harmless when nobody knows the job.
        """
        sequence = self._alive.get(job_id) or self._books.kept.get(job_id)
        if sequence is not None:
            self._books.restart(sequence)

    def check(self) -> None:
        """Compares the books with the sequences.

        Raises:
            RuntimeError: they disagree.
        """
        self._books.check(self._alive.values())

    def _rank(self, job: Job) -> tuple[float, int]:
        """Lower goes first. It never changes, so waiting raises it above all who come later."""
        self._arrivals += 1
        return self._steps / self.limits.aging - job.priority, self._arrivals

    def _admissible(self, sequence: Sequence) -> None:
        needed = self.blocks.needed(sequence.most)
        if needed > self.blocks.total:
            raise BudgetExceeded(
                f"{sequence.most} tokens need {needed} KV blocks of {self.blocks.total}",
                where=sequence.id,
                next_step="ask for fewer new tokens, shorten the prompt, or give KV more memory",
            )
        for medium in sequence.job.media:
            self._books.features.admit(medium, sequence.id)

    def _enter(self, sequence: Sequence) -> None:
        self._alive[sequence.id] = sequence
        if sequence.deadline is not None:
            entry = (sequence.deadline, sequence.rank[1], sequence.id)
            heapq.heappush(self._deadlines, entry)
        self._books.wait(sequence)

    def _kept(self, job_id: str) -> Sequence:
        if job_id not in self._books.kept:
            raise ConfigError(
                "no such job is kept", where=job_id, next_step="ask with Job(..., keep=True)"
            )
        return self._books.kept[job_id]

    def _sweep(self) -> None:
        """Ends who was cancelled and who is late."""
        while self._cancelled:
            self._end_early(*self._cancelled.pop(), Ending.CANCELLED)
        now = self._clock()
        while self._deadlines and self._deadlines[0][0] < now:
            _, number, job_id = heapq.heappop(self._deadlines)
            self._end_early(job_id, number, Ending.EXPIRED)

    def _end_early(self, job_id: str, number: int, ending: Ending) -> None:
        """Unless it is over, or was over and came again."""
        sequence = self._alive.get(job_id)
        if sequence is not None and sequence.rank[1] == number:
            self._books.step.ended.append(self._end(sequence, ending))

    def _append(self, sequence: Sequence, token: int, stopped: bool) -> list[Ended]:
        sequence.tokens.append(token)
        if stopped:
            return [self._end(sequence, Ending.STOP)]
        if sequence.generated >= sequence.limit:
            return [self._end(sequence, Ending.LENGTH)]
        return []

    def _end(self, sequence: Sequence, ending: Ending) -> Ended:
        del self._alive[sequence.id]
        return self._books.end(sequence, ending)

    def _close(self, step: Step, missing: set[str]) -> None:
        if step is not self._open:
            raise ConfigError("this step is not open", where=f"step {step.number}")
        if missing:
            raise ConfigError("no token for a sequence", where=min(missing))
        self._open = None
