"""When values of a class are used next, learned from the lives of earlier ones.

A life is seen as a chain of situations: the phase of the latest use, how many phases have used
the value so far, and how often this one has. For each situation the *gaps* until the next use
are counted, in phase steps, and the lives that ended there. What is left of that distribution
once a value has waited some steps is its outlook: an empirical survival function (Kaplan and
Meier, "Nonparametric Estimation from Incomplete Observations", 1958), by situation.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Horizon = Literal["soon", "later", "done"]

#: Phase of the latest use or of birth, phases that used the value so far (-1: any number), uses
#: in the latest.
Situation = tuple[str, int, int]

#: Counts of phases and uses are told apart below this.
_TOLD_APART = 8
#: Situations kept per class; the one seen first goes first.
_SITUATIONS = 512
#: Samples in a situation after which all counts are halved: habits may change.
_SAMPLES = 512
#: With fewer samples than this, how many phases used the value before is left aside.
_ENOUGH = 4
#: Unseen samples that an outlook is doubted by.
_DOUBT = 2


@dataclass(frozen=True, slots=True)
class Outlook:
    """When a value is expected to be used next.

    Attributes:
        horizon: ``"soon"`` in this phase step, ``"later"`` in a later one, ``"done"`` never
            again; None when nothing is known.
        steps: about how many phase steps ahead; 0 for ``"soon"``, else None unless ``"later"``.
        confidence: from 0 to 1, the share of like lives that went this way; few lives count less.
    """

    horizon: Horizon | None
    steps: float | None
    confidence: float


class NextUse:
    """Gaps until the next use, in one situation."""

    __slots__ = ("gaps", "never")

    def __init__(self) -> None:
        self.gaps: dict[int, int] = {}
        self.never = 0

    @property
    def samples(self) -> int:
        return sum(self.gaps.values()) + self.never

    def again(self, gap: int) -> None:
        gap = _coarse(gap)
        count = self.gaps[gap] = self.gaps.get(gap, 0) + 1
        if count >= _SAMPLES:
            self._halve()

    def ended(self) -> None:
        self.never += 1
        if self.never >= _SAMPLES:
            self._halve()

    def outlook(self, waited: int) -> Outlook:
        """The outlook of a value that has waited so many steps without a use."""
        now = _coarse(waited)
        soon = self.gaps.get(now, 0)
        later = [(gap, count) for gap, count in self.gaps.items() if gap > now]
        later_count = sum(count for _, count in later)
        seen = soon + later_count + self.never
        if not seen:
            return Outlook(None, None, 0.0)
        if self.never >= max(soon, later_count):
            return Outlook("done", None, self.never / (seen + _DOUBT))
        if soon >= later_count:
            return Outlook("soon", 0.0, soon / (seen + _DOUBT))
        steps = sum(gap * count for gap, count in later) / later_count - waited
        return Outlook("later", max(steps, 1.0), later_count / (seen + _DOUBT))

    def _halve(self) -> None:
        self.gaps = {gap: count // 2 for gap, count in self.gaps.items() if count > 1}
        self.never //= 2


class KeyClass:
    """What is known of the lives of one class of keys. The owner locks."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.longest = 0
        self._situations: dict[Situation, NextUse] = {}
        #: Lives that may be used again, unused longest first.
        self._waiting: OrderedDict[int, Life] = OrderedDict()

    def next_use(self, situation: Situation) -> NextUse:
        found = self._situations.get(situation)
        if found is None:
            if len(self._situations) >= _SITUATIONS:
                del self._situations[next(iter(self._situations))]
            found = self._situations[situation] = NextUse()
        return found

    def outlook(self, situation: Situation, waited: int) -> Outlook:
        exact = self._situations.get(situation)
        if exact is None or exact.samples < _ENOUGH:
            exact = self._situations.get(_any_visits(situation))
        return exact.outlook(waited) if exact else Outlook(None, None, 0.0)

    def wait(self, life: Life) -> None:
        self._waiting[id(life)] = life
        self._waiting.move_to_end(id(life))

    def leave(self, life: Life) -> None:
        self._waiting.pop(id(life), None)

    def settle(self, step: int, patience: int) -> None:
        """Lives unused for long have ended, as far as can be seen."""
        before = step - max(patience, 2 * self.longest)
        while self._waiting:
            life = next(iter(self._waiting.values()))
            if life.step >= before:
                return
            self.leave(life)
            life.ended()

    def explain(self) -> Iterator[str]:
        for (phase, visits, uses), found in sorted(self._situations.items()):
            if visits != -1 or not found.samples:
                continue
            parts = [
                f"{count / found.samples:.0%} " + (f"{gap} phases on" if gap else "in it again")
                for gap, count in sorted(found.gaps.items())
            ]
            if found.never:
                parts.append(f"{found.never / found.samples:.0%} never")
            when = f"used {uses} times in" if uses else "born in"
            name = phase or "(no phase)"
            yield f"{self.name} {when} {name}: next use {', '.join(parts)}"


class Life:
    """One value, from its birth or first sight on. The owner locks."""

    __slots__ = ("_class", "_over", "_phase", "_uses", "_visits", "nbytes", "step")

    def __init__(self, group: KeyClass, nbytes: int, step: int, phase: str) -> None:
        self._class = group
        self._phase = phase
        self._visits = 0
        self._uses = 0
        #: Its silence was counted as its end.
        self._over = False
        self.nbytes = nbytes
        #: Of the latest use, or of birth.
        self.step = step
        group.wait(self)

    def used(self, step: int, phase: str) -> None:
        gap = step - self.step
        for found in self._nexts():
            if self._over:
                found.never = max(found.never - 1, 0)
            found.again(gap)
        self._over = False
        group = self._class
        group.longest = max(group.longest, gap)
        if gap or not self._visits:
            self._visits += 1
            self._uses = 0
        self._uses += 1
        self.step = step
        self._phase = phase
        group.wait(self)

    def died(self) -> None:
        self._class.leave(self)
        self.ended()

    def ended(self) -> None:
        """Counts the latest use as the last, once."""
        if not self._over:
            self._over = True
            for found in self._nexts():
                found.ended()

    def forget(self) -> None:
        self._class.leave(self)

    def outlook(self, step: int) -> Outlook:
        return self._class.outlook(self._situation(), step - self.step)

    def _nexts(self) -> tuple[NextUse, NextUse]:
        situation = self._situation()
        group = self._class
        return group.next_use(situation), group.next_use(_any_visits(situation))

    def _situation(self) -> Situation:
        return (
            self._phase,
            min(self._visits, _TOLD_APART),
            min(self._uses, _TOLD_APART),
        )


def _any_visits(situation: Situation) -> Situation:
    return situation[0], -1, situation[2]


def _coarse(gap: int) -> int:
    """Exact below 16; from there on the power of two below, so that few gaps are told apart."""
    return gap if gap < 16 else 1 << (gap.bit_length() - 1)
