"""What is given up when memory runs out, in which order, and how it comes back.

Five rungs, from what costs nothing to what costs most: what lies idle, the keys and values of the
youngest sequence, the length of a chunk of a prompt, the patches of one pass of a tower, and the
number of sequences at a time. All of them change how fast answers come, none what they are. When
nothing is left the step is tried a few times more as it is: memory may have been short because of
somebody else, and what is only garbage is collected first.

Nothing here may be called inside an ``except``: see :mod:`octavo.engine.recovery_faults`.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final, Protocol

from octavo.engine.recovery_faults import Outcome, Shortage, guarded, insist, out_of_memory
from octavo.errors import ConfigError
from octavo.types import Attempt

__all__ = [
    "GivenUp",
    "Ladder",
    "Outcome",
    "Relief",
    "Shortage",
    "guarded",
    "insist",
    "out_of_memory",
]

_IDLE: Final = "idle"
#: A rung that was taken fewer good steps ago has not helped: the others have their turn first.
_HOLDS: Final = 4
#: Climbs without a good step between them. Halving every limit of a large machine takes fewer.
_MOST: Final = 64
#: Tries in a row with nothing given up.
_AGAIN: Final = 4
#: By so much the wait before a notch is given back may grow.
_LONGER: Final = 16
#: Attempts that one request keeps.
_KEPT: Final = 32


class Relief(Protocol):
    """What can be given up. Each way says in words what it was; None: there is nothing of that
    kind left, or it did not free anything.

    They are called between two steps. What runs out of memory itself counts as None, and must
    leave everything as it was.
    """

    def drop_idle(self) -> str | None:
        """Features and KV blocks that nobody holds, and what allocators keep for later."""
        ...

    def offload(self) -> str | None:
        """The keys and values of the youngest running sequence: to the host, or to be computed
        again. It must not come back in the next step; None where only one runs."""
        ...

    def smaller_chunk(self) -> str | None:
        """Half the tokens of a prompt in one step, down to a minimum."""
        ...

    def smaller_tower(self) -> str | None:
        """Fewer patches in one pass of a tower, or in one chunk of it, down to a minimum."""
        ...

    def smaller_batch(self) -> str | None:
        """Half the sequences at a time, down to 1."""
        ...

    def restore(self) -> bool:
        """Raises limits by one notch towards what was planned; True when all are there."""
        ...


class Ladder:
    """Decides what is given up next. Used by one thread.

    A rung is chosen by how often it was taken lately without holding, the lowest of those that
    were taken least: after a good while it begins at the bottom, and a fault that comes back at
    once meets the next rung.

    Args:
        relief: does it.
        patience: good steps before a notch is given back. Where the fault comes back before as
            many have passed again, the wait doubles, up to 16 times.

    Attributes:
        climbs: how often each rung was taken, by name, for statistics.
    """

    def __init__(self, relief: Relief, patience: int = 32) -> None:
        if patience < 1:
            raise ConfigError(f"a patience of {patience} steps", next_step="choose at least 1")
        self._relief = relief
        self._rungs: dict[str, Callable[[], str | None]] = {
            _IDLE: relief.drop_idle,
            "offload": relief.offload,
            "smaller chunk": relief.smaller_chunk,
            "smaller tower": relief.smaller_tower,
            "smaller batch": relief.smaller_batch,
        }
        self._patience = self._wait = patience
        self._lately: Counter[str] = Counter()
        self._good = self._waited = self._in_a_row = self._tries = 0
        self._lowered = self._trying = False
        self._last: str | None = None
        self.climbs: Counter[str] = Counter()

    @property
    def normal(self) -> bool:
        """Whether nothing is given up at present."""
        return not self._lowered

    def climb(self, error_text: str) -> Attempt | None:
        """Gives the next thing up after a step that ran out of memory.

        Returns:
            What was given up, for the record of every request that was running; None when there
            is nothing left and trying again did not help. Then what was to be computed in the step
            cannot be, and the next fault begins at the bottom.
        """
        if self._trying:
            self._wait = min(2 * self._wait, _LONGER * self._patience)
            self._trying = False
        self._good = self._waited = 0
        self._in_a_row += 1
        if self._in_a_row <= _MOST:
            for name in sorted(self._rungs, key=self._lately.__getitem__):
                # What lay idle again since the last climb was made by the very step that failed.
                if name == self._last == _IDLE:
                    continue
                # A rung that runs out of memory itself has freed nothing.
                given_up = guarded(self._rungs[name]).value
                if given_up is not None:
                    return self._took(name, given_up, error_text)
            if self._tries < _AGAIN:
                self._tries += 1
                return self._again(error_text)
        self._lately.clear()
        self._begin_anew()
        return None

    def stood(self) -> None:
        """After every step that did not run out of memory."""
        self._begin_anew()
        self._good += 1
        if self._good == _HOLDS:
            self._lately.clear()
        if self._lowered or self._trying:
            self._waited += 1
            if self._waited >= self._wait:
                self._held()

    def _took(self, name: str, given_up: str, error_text: str) -> Attempt:
        self._lately[name] += 1
        self.climbs[name] += 1
        self._last = name
        self._lowered = True
        return Attempt(f"memory: {name}", kept=False, reason=f"{given_up}, after {error_text}")

    def _again(self, error_text: str) -> Attempt:
        """The same once more: a cycle of objects may have kept what nobody needs."""
        found = gc.collect()
        self.climbs["again"] += 1
        return Attempt(
            "memory: again",
            kept=False,
            reason=f"nothing was left but {found} objects of garbage, after {error_text}",
        )

    def _begin_anew(self) -> None:
        self._in_a_row = self._tries = 0
        self._last = None

    def _held(self) -> None:
        """A whole wait has passed: what was given back before has held, and more can be tried."""
        if self._trying:
            self._wait = self._patience
        self._waited = 0
        self._trying = self._lowered
        if self._lowered:
            self._lowered = guarded(self._relief.restore).value is not True


class GivenUp:
    """What was given up while each request was running, until its completion takes it.

    At most 32 attempts are kept for a request; the last of them says how many more there were.
    """

    def __init__(self) -> None:
        self._by_id: dict[str, list[Attempt]] = {}
        self._more: Counter[str] = Counter()

    def note(self, attempt: Attempt, running: Iterable[str]) -> None:
        """Remembers an attempt for the requests with these ids."""
        for name in running:
            mine = self._by_id.setdefault(name, [])
            if len(mine) < _KEPT:
                mine.append(attempt)
            else:
                mine[-1] = attempt
                self._more[name] += 1

    def take(self, name: str) -> tuple[Attempt, ...]:
        """What there is for a request, which is then forgotten."""
        mine = self._by_id.pop(name, [])
        more = self._more.pop(name, 0)
        if more:
            mine[-1] = replace(mine[-1], reason=f"{mine[-1].reason}, and {more} before it")
        return tuple(mine)

    def __len__(self) -> int:
        return len(self._by_id)
