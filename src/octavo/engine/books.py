"""Who waits, who runs and what each holds. Every change of a sequence's status is made here."""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from collections.abc import Callable, Collection

from octavo.engine.feature_budget import FeatureBudget
from octavo.engine.sequence import Ending, Media, Sequence, Status
from octavo.engine.step import Copy, Ended, Fork, Move, Preempted, Step
from octavo.engine.table import BlockTable

#: Says of a sequence that gives way whether to park its blocks on the host (else: compute again).
Parks = Callable[[Sequence], bool]


def _rank(sequence: Sequence) -> tuple[float, int]:
    return sequence.rank


class Books:
    """Queues and resources.

    Attributes:
        table, features: KV blocks and bytes of features.
        host_free: blocks that can still be parked.
        waiting, running: sequences, the lowest rank first.
        idle: sequences that hold blocks without running, those that did so longest first: kept
            ones, and waiting ones that were continued. They lose their blocks before anybody has
            to give way.
        kept: finished sequences that can be continued, by id.
        step: what goes into the step that is being put together.
    """

    def __init__(
        self, table: BlockTable, features: FeatureBudget, host_blocks: int, parks: Parks
    ) -> None:
        self.table = table
        self.features = features
        self.host_free = self._host_blocks = host_blocks
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.idle: OrderedDict[str, Sequence] = OrderedDict()
        self.kept: dict[str, Sequence] = {}
        self.step = Step(1)
        self._parks = parks

    @property
    def available(self) -> int:
        return self.table.blocks.available

    def wait(self, sequence: Sequence, status: Status = Status.WAITING) -> None:
        sequence.status = status
        insort(self.waiting, sequence, key=_rank)

    def run(self, sequence: Sequence) -> None:
        """From waiting to running, with all blocks that it need not compute."""
        self.waiting.remove(sequence)
        self.idle.pop(sequence.id, None)
        if not sequence.blocks:
            self._attach(sequence)
        sequence.status = Status.RUNNING
        insort(self.running, sequence, key=_rank)

    def preempt(self, victim: Sequence) -> None:
        """Back to waiting; its tokens stay, its blocks go to the host or are forgotten."""
        self.running.remove(victim)
        victim.preemptions += 1
        if self._park(victim):
            self.step.preempted.append(Preempted(victim.id, parked=True))
        else:
            victim.lost += victim.computed
            self.step.preempted.append(Preempted(victim.id, parked=False))
        self._release(victim)
        self.wait(victim, Status.PREEMPTED)

    def restart(self, sequence: Sequence) -> None:
        """Back to waiting with nothing: what it holds or parked cannot be trusted."""
        if sequence in self.running:
            self.running.remove(sequence)
            self.wait(sequence, Status.PREEMPTED)
        self.idle.pop(sequence.id, None)
        sequence.lost += sequence.parked or sequence.computed
        self._unpark(sequence)
        self._release(sequence)

    def reclaim(self, but: Sequence) -> bool:
        """Takes the blocks of the one that is idle for longest; False when none is."""
        idle = next((s for s in self.idle.values() if s is not but), None)
        if idle is not None:
            del self.idle[idle.id]
            self._release(idle)
        return idle is not None

    def end(self, sequence: Sequence, ending: Ending) -> Ended:
        """Over, from wherever it is."""
        queue = self.running if sequence.status is Status.RUNNING else self.waiting
        queue.remove(sequence)
        sequence.status, sequence.ending = Status.FINISHED, ending
        self._unpark(sequence)
        self._let_features_go(sequence, sequence.length)
        self.idle.pop(sequence.id, None)
        if sequence.job.keep and ending.whole:
            self.kept[sequence.id] = self.idle[sequence.id] = sequence
        else:
            self._release(sequence)
        return Ended(sequence, ending)

    def forget(self, sequence: Sequence) -> None:
        """A kept sequence will not be continued."""
        del self.kept[sequence.id]
        self.idle.pop(sequence.id, None)
        self._release(sequence)

    def grow(self, sequence: Sequence, end: int) -> None:
        copy: Copy | None = self.table.grow(sequence, end)
        if copy is not None:
            self.step.copies.append(copy)

    def hold(self, sequence: Sequence, medium: Media) -> bool:
        """Whether the features of the medium are held for the sequence, now or already."""
        if medium not in sequence.holding:
            if not self.features.hold(medium):
                return False
            sequence.holding.append(medium)
        return True

    def advance(self, sequence: Sequence, count: int) -> None:
        """Its next ``count`` tokens are computed."""
        sequence.computed += count
        self.table.seal(sequence)
        self._let_features_go(sequence, sequence.computed)

    def check(self, alive: Collection[Sequence]) -> None:
        """Compares the resources with the sequences.

        Raises:
            RuntimeError: they disagree.
        """
        held = {id(s): s for s in (*self.running, *self.idle.values())}
        self.table.blocks.check(s.blocks for s in held.values())
        self.features.check(m for s in alive for m in s.holding)
        parked = sum(self.table.blocks.needed(s.parked) for s in alive)
        if parked + self.host_free != self._host_blocks or self.host_free < 0:
            raise RuntimeError(f"{parked} blocks are parked, {self.host_free} are free on the host")
        queued = sorted(id(s) for s in (*self.waiting, *self.running))
        if queued != sorted(id(s) for s in alive):
            raise RuntimeError("a sequence is in no queue or in two")
        if any(s.blocks for s in alive if id(s) not in held):
            raise RuntimeError("a waiting sequence holds blocks that nobody can take back")

    def _attach(self, sequence: Sequence) -> None:
        parent = self.kept.get(sequence.job.after or "")
        # What was parked follows on whole blocks only.
        if (
            parent is not None
            and parent.blocks
            and not sequence.parked
            and self.table.fork(sequence, parent)
        ):
            self.step.forks.append(Fork(sequence, parent.id, sequence.computed))
        self.table.follow(sequence)
        if sequence.parked > sequence.computed:
            self._restore(sequence)
        self._unpark(sequence)

    def _restore(self, sequence: Sequence) -> None:
        """Brings back from the host what could not be shared."""
        tokens, first = sequence.parked, len(sequence.blocks)
        self.grow(sequence, tokens)
        blocks = tuple(sequence.blocks[first:])
        self.step.restores.append(Move(sequence.id, blocks, first, tokens))
        sequence.computed = tokens
        self.host_free += self.table.blocks.needed(tokens)
        sequence.parked = 0

    def _park(self, victim: Sequence) -> bool:
        needed = self.table.blocks.needed(victim.computed)
        if not 0 < needed <= self.host_free or not self._parks(victim):
            return False
        self.host_free -= needed
        victim.parked = victim.computed
        blocks = tuple(victim.blocks[:needed])
        self.step.saves.append(Move(victim.id, blocks, 0, victim.parked))
        return True

    def _unpark(self, sequence: Sequence) -> None:
        if sequence.parked:
            self.host_free += self.table.blocks.needed(sequence.parked)
            sequence.parked = 0
            self.step.dropped.append(sequence.id)

    def _release(self, sequence: Sequence) -> None:
        self._let_features_go(sequence, sequence.length)
        self.table.release(sequence)

    def _let_features_go(self, sequence: Sequence, end: int) -> None:
        for medium in [m for m in sequence.holding if m.end <= end]:
            sequence.holding.remove(medium)
            if self.features.let_go(medium):
                self.step.unseen.append(medium.key)
