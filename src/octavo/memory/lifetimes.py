"""How long values live: references decide what is freed, prediction only where it waits.

Two things that never mix. *References* are the truth: a value is freed when its last reference
is released, and not before. *Outlooks* are guesses from recorded phases: in which phase values
of a class were used last, and after how many phases and uses. A wrong guess costs a copy from a
lower tier and nothing else, because :meth:`Lifetimes.advice` only reorders who leaves a tier.

A *phase* is a kind of work (``"page"``, ``"layout"``, ``"summary"``), named alike in every
cycle; each entry into one is a *step*. There is one sequence of steps in a ``Lifetimes``: two
pipelines that run side by side each want their own.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from octavo.errors import ReleasedError
from octavo.memory.outlook import KeyClass, Life, Outlook
from octavo.memory.policies.base import Key

Advice = Literal["keep", "demote", "drop-first"]

#: An outlook less certain than this changes nothing. Six unanimous lives reach it.
SURE = 0.75
#: Names of phases remembered for :attr:`Lifetimes.recent`.
_RECENT = 64
#: Key classes told apart; those beyond share one, so that a class per key cannot fill memory.
_CLASSES = 256
_OTHERS = "(others)"


@dataclass(frozen=True, slots=True)
class Leak:
    """Values of one class that one owner still refers to and nobody is expected to use.

    Attributes:
        owner: who holds the references.
        key_class: of the keys.
        count: how many keys.
        nbytes: of their values, each counted once; a value never announced by
            :meth:`Lifetimes.born` adds none.
        age: phase steps since the one that was left alone longest was used or referred to.
    """

    owner: str
    key_class: str
    count: int
    nbytes: int
    age: int


@dataclass(slots=True)
class _References:
    """Who refers to a key: a count and the step of the latest acquisition, by owner."""

    owners: dict[str, tuple[int, int]] = field(default_factory=dict)
    free_at_zero: bool = False


def class_of(key: Key) -> str:
    """``"vision"`` of ``("vision", digest)``; else the name of the key's type."""
    if isinstance(key, tuple) and key:
        return str(key[0])
    return type(key).__name__


class Lifetimes:
    """Watches births, uses and deaths by phase. Safe to use from many threads.

    Invariants: ``free`` is called for a key only when it has no reference; a key that has one is
    never forgotten; everything else is bounded, by ``max_keys`` and by statistics per class.

    Args:
        free: frees the value of a key, called without any lock held; see
            :meth:`free_when_unreferenced`.
        key_class: the class of a key; keys of one class are expected to live alike.
        patience: phase steps without a use after which a value counts as used for the last
            time, for as long as it is not used again; at least twice the longest pause that its
            class has shown.
        max_keys: lives watched at once; beyond it the one unused longest is forgotten, which
            loses a sample for learning and nothing else.
    """

    def __init__(
        self,
        free: Callable[[Key], object] | None = None,
        *,
        key_class: Callable[[Key], str] = class_of,
        patience: int = 16,
        max_keys: int = 65_536,
    ) -> None:
        self._free = free
        self._key_class = key_class
        self._patience = patience
        self._max_keys = max_keys
        # Re-entrant: a finalizer may release while this thread is inside.
        self._lock = threading.RLock()
        self._phase = ""
        self._step = 0
        self._recent: deque[str] = deque(maxlen=_RECENT)
        self._classes: dict[str, KeyClass] = {}
        self._lives: OrderedDict[Key, Life] = OrderedDict()  # unused longest first
        self._references: dict[Key, _References] = {}
        self._being_freed: set[Key] = set()

    # Phases.

    def enter_phase(self, name: str) -> None:
        """A new step begins."""
        with self._lock:
            self._phase = name
            self._step += 1
            self._recent.append(name)
            for group in self._classes.values():
                group.settle(self._step, self._patience)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A step for as long as the block runs; then the phase around it goes on."""
        around = self._phase
        self.enter_phase(name)
        try:
            yield
        finally:
            with self._lock:
                self._phase = around

    @property
    def current(self) -> str:
        """The phase now; empty before the first."""
        return self._phase

    @property
    def recent(self) -> tuple[str, ...]:
        """The latest phases, oldest first."""
        with self._lock:
            return tuple(self._recent)

    # What happens to values.

    def born(self, key: Key, nbytes: int) -> None:
        """``key`` has a new value. References to the key stay; a wish to free it does not."""
        with self._lock:
            self._end(key)
            if key in self._references:
                self._references[key].free_at_zero = False
            self._begin(key, nbytes)

    def used(self, key: Key) -> None:
        """The value was used. One not known to be born counts as born before its first use."""
        with self._lock:
            life = self._lives.get(key)
            if life is None:
                life = self._begin(key, 0)
            else:
                self._lives.move_to_end(key)
            life.used(self._step, self._phase)

    def died(self, key: Key) -> None:
        """The owner deleted the value: its last use was its last. References stay."""
        with self._lock:
            self._end(key)

    def forget(self, key: Key) -> None:
        """The value went for another reason (no room): says nothing about its last use."""
        with self._lock:
            life = self._lives.pop(key, None)
            if life is not None:
                life.forget()

    # Guesses.

    def expects(self, key: Key) -> Outlook:
        """When ``key`` is probably used next."""
        with self._lock:
            life = self._lives.get(key)
            return Outlook(None, None, 0.0) if life is None else life.outlook(self._step)

    def advice(self, key: Key) -> Advice:
        """What to do with ``key`` when its tier needs room.

        ``"drop-first"``: surely never used again, send it down before all others. ``"demote"``:
        surely not used in this phase or the next, send it down before those to ``"keep"``.
        """
        outlook = self.expects(key)
        if outlook.confidence < SURE:
            return "keep"
        if outlook.horizon == "done":
            return "drop-first"
        far = outlook.horizon == "later" and outlook.steps is not None and outlook.steps > 1
        return "demote" if far else "keep"

    # References.

    def acquire(self, key: Key, owner: str) -> None:
        """``owner`` refers to ``key``, once more. Acquire first, read then.

        Raises:
            ReleasedError: the value is being freed at this moment.
        """
        with self._lock:
            if key in self._being_freed:
                raise ReleasedError(
                    f"{key!r} is being freed", where=owner, next_step="make the value again"
                )
            held = self._references.setdefault(key, _References())
            held.owners[owner] = (held.owners.get(owner, (0, 0))[0] + 1, self._step)

    def release(self, key: Key, owner: str) -> int:
        """Takes one reference of ``owner`` back; how many the key has left, of all owners.

        Raises:
            ReleasedError: ``owner`` has none; nothing is changed.
        """
        with self._lock:
            held = self._references.get(key)
            if held is None or owner not in held.owners:
                raise ReleasedError(
                    f"{key!r} was released more often than acquired",
                    where=owner,
                    next_step="release once for each acquire",
                )
            count, step = held.owners[owner]
            if count > 1:
                held.owners[owner] = (count - 1, step)
            else:
                del held.owners[owner]
            left = sum(count for count, _ in held.owners.values())
            doomed = left == 0 and held.free_at_zero
            if left == 0:
                del self._references[key]
            if doomed:
                self._being_freed.add(key)
        if doomed:
            self._free_now(key)
        return left

    @contextmanager
    def held(self, key: Key, owner: str) -> Iterator[None]:
        """``owner`` refers to ``key`` for as long as the block runs."""
        self.acquire(key, owner)
        try:
            yield
        finally:
            self.release(key, owner)

    def references(self, key: Key) -> int:
        """How many references ``key`` has, of all owners."""
        with self._lock:
            held = self._references.get(key)
            return sum(count for count, _ in held.owners.values()) if held else 0

    def free_when_unreferenced(self, key: Key) -> bool:
        """Has ``key`` freed when its last reference goes; whether that was at once."""
        with self._lock:
            held = self._references.get(key)
            if held is not None:
                held.free_at_zero = True
                return False
            if key in self._being_freed:
                return False
            self._being_freed.add(key)
        self._free_now(key)
        return True

    def leaks(self, older_than_phases: int = 8) -> list[Leak]:
        """References that look forgotten, most bytes first.

        A reference counts when the key has neither been used nor acquired by that owner for
        more than ``older_than_phases`` steps and is not surely expected to be used again; or
        when the step of its last use is over and it is surely never used again.
        """
        found: dict[tuple[str, str], tuple[int, int, int]] = {}
        with self._lock:
            for key, held in self._references.items():
                life = self._lives.get(key)
                outlook = self.expects(key)
                sure = outlook.confidence >= SURE
                for owner, (_, acquired) in held.owners.items():
                    age = self._step - max(acquired, life.step if life else 0)
                    if sure and outlook.horizon != "done":
                        continue
                    if age > (0 if sure else older_than_phases):
                        row = (owner, self._key_class(key))
                        count, nbytes, oldest = found.get(row, (0, 0, 0))
                        more = life.nbytes if life else 0
                        found[row] = (count + 1, nbytes + more, max(oldest, age))
        leaks = [Leak(*row, *sums) for row, sums in found.items()]
        return sorted(leaks, key=lambda leak: (-leak.nbytes, leak.owner, leak.key_class))

    def explain(self) -> str:
        """What has been learned, a line for each class and phase."""
        with self._lock:
            return "\n".join(
                line for name in sorted(self._classes) for line in self._classes[name].explain()
            )

    def __len__(self) -> int:
        """Lives watched now."""
        return len(self._lives)

    def _begin(self, key: Key, nbytes: int) -> Life:
        name = self._key_class(key)
        if name not in self._classes and len(self._classes) >= _CLASSES:
            name = _OTHERS
        group = self._classes.get(name)
        if group is None:
            group = self._classes[name] = KeyClass(name)
        life = self._lives[key] = Life(group, nbytes, self._step, self._phase)
        if len(self._lives) > self._max_keys:
            self._lives.popitem(last=False)[1].forget()
        return life

    def _end(self, key: Key) -> None:
        life = self._lives.pop(key, None)
        if life is not None:
            life.died()

    def _free_now(self, key: Key) -> None:
        """Calls ``free``, without the lock; ``key`` is marked as being freed."""
        try:
            if self._free is not None:
                self._free(key)
            self.died(key)
        finally:
            with self._lock:
                self._being_freed.discard(key)
