"""Puts one step together: one pass over the sequences, the lowest rank first.

Whoever comes first takes what it needs, and only from those that come after it. So the first one
always moves on, and nothing that was decided is taken back within the pass.
"""

from __future__ import annotations

from octavo.engine.books import Books
from octavo.engine.limits import Limits
from octavo.engine.sequence import Sequence, Status
from octavo.engine.step import Slice


class Planning:
    """The state of one pass.

    Args:
        books: changed by the pass; the step is ``books.step``.
        limits: of the step.
    """

    def __init__(self, books: Books, limits: Limits) -> None:
        self._books = books
        self._limits = limits
        self._table = books.table
        # Decoding sequences have their token set aside, however long the prompts before them are.
        self._set_aside = {s.id for s in books.running if s.pending == 1}
        self._left = limits.max_tokens_per_step
        self._gave_way: set[str] = set()
        self._coming: set[bytes] = set()

    def run(self) -> None:
        # Only when the limits were lowered.
        for surplus in self._books.running[: self._limits.max_running - 1 : -1]:
            self._preempt(surplus)
        admitting = True
        for sequence in self._candidates():
            if sequence.status is not Status.RUNNING:
                # Nobody overtakes: the blocks that come free are for the first that waits.
                admitting = admitting and self._admit(sequence)
            if sequence.status is Status.RUNNING:
                self._serve(sequence)

    def _candidates(self) -> list[Sequence]:
        """Runners and the first who wait; more than ``max_running`` cannot be admitted."""
        first = self._books.waiting[: self._limits.max_running]
        return sorted([*self._books.running, *first], key=lambda s: s.rank)

    @property
    def _room(self) -> int:
        """Tokens that are not set aside."""
        return self._left - len(self._set_aside)

    def _serve(self, sequence: Sequence) -> None:
        """Gives it the tokens that limits, features and blocks allow; perhaps none."""
        self._set_aside.discard(sequence.id)
        self._table.follow(sequence)
        if self._table.next_key(sequence) in self._coming:
            return
        end = self._with_features(sequence, self._reach(sequence))
        if end > sequence.computed and self._find_blocks(sequence, end):
            self._compute(sequence, end)

    def _reach(self, sequence: Sequence) -> int:
        """The end of its tokens in this step by the limits; within a prompt the end of a block."""
        # Parts of one length: each is a pass over the weights, however short it is.
        parts = -(-sequence.pending // self._limits.prefill_chunk)
        count = min(-(-sequence.pending // parts), self._room)
        end = sequence.computed + count
        if count == sequence.pending:
            return end
        aligned = end - end % self._table.blocks.size
        return aligned if aligned > sequence.computed else end

    def _with_features(self, sequence: Sequence, end: int) -> int:
        """The end that can be reached with the features that fit."""
        for medium in sequence.media_in(sequence.computed, end):
            while not self._books.hold(sequence, medium):
                # Others give way only to one that could not move at all.
                if medium.start > sequence.computed or not self._take_features(sequence):
                    return max(medium.start, sequence.computed)
        return end

    def _take_features(self, sequence: Sequence) -> bool:
        holders = [s for s in self._after(sequence) if s.holding]
        if holders:
            self._preempt(holders[-1])
        return bool(holders)

    def _find_blocks(self, sequence: Sequence, end: int) -> bool:
        while self._table.missing(sequence, end) > self._books.available:
            if self._books.reclaim(sequence):
                continue
            after = self._after(sequence)
            if not after:
                return False
            self._preempt(after[-1])
        return True

    def _compute(self, sequence: Sequence, end: int) -> None:
        self._coming.update(self._table.keys_ahead(sequence))
        self._books.grow(sequence, end)
        self._books.step.add(Slice(sequence, sequence.computed, end - sequence.computed))
        self._left -= end - sequence.computed

    def _admit(self, sequence: Sequence) -> bool:
        """Lets it run if its whole prompt fits beside what the others still need."""
        if sequence.id in self._gave_way or self._room < 1 or not self._make_way(sequence):
            return False
        self._books.run(sequence)
        return True

    def _make_way(self, sequence: Sequence) -> bool:
        """Takes what is idle and preempts those of a lower priority, but only if that is enough."""
        if self._fits(sequence):
            return True
        victims = self._enough(sequence)
        for victim in victims or ():
            self._preempt(victim)
        while victims is not None and not self._fits(sequence):
            if not self._books.reclaim(sequence):
                return False
        return victims is not None

    def _fits(self, sequence: Sequence) -> bool:
        """Whether it can run now."""
        running = self._books.running
        if len(running) >= self._limits.max_running:
            return False
        cost = self._table.blocks.needed(sequence.length) - len(sequence.blocks)
        if not sequence.blocks:
            cost -= sum(map(self._table.blocks.is_held, self._table.shareable(sequence)))
        return cost + self._promised(running) <= self._books.available

    def _enough(self, sequence: Sequence) -> list[Sequence] | None:
        """Who must give way besides the idle ones; None if even all of them are not enough."""
        stay, victims, after = list(self._books.running), [], self._after(sequence)
        own = sequence.blocks or self._table.shareable(sequence)
        while not self._would_fit(sequence, own, stay):
            if not after or after[-1].job.priority >= sequence.job.priority:
                return None
            victims.append(after.pop())
            stay.remove(victims[-1])
        return victims

    def _would_fit(self, sequence: Sequence, own: list[int], stay: list[Sequence]) -> bool:
        """Whether it could run if only it and ``stay`` held blocks; it begins with ``own``."""
        if len(stay) >= self._limits.max_running:
            return False
        held = {*own, *(block for s in stay for block in s.blocks)}
        more = self._table.blocks.needed(sequence.length) - len(own)
        return more + self._promised(stay) <= self._table.blocks.total - len(held)

    def _promised(self, running: list[Sequence]) -> int:
        """Blocks that these still need for their prompts, and one more each.

        The one more keeps a sequence from being admitted only to give way a few steps later.
        """
        return sum(self._table.missing(s, s.length) + 1 for s in running)

    def _after(self, sequence: Sequence) -> list[Sequence]:
        """Runners of a higher rank; the last is the youngest of the lowest priority."""
        return [s for s in self._books.running if s.rank > sequence.rank]

    def _preempt(self, victim: Sequence) -> None:
        self._set_aside.discard(victim.id)
        self._gave_way.add(victim.id)
        self._books.preempt(victim)
