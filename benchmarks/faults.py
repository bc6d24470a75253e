"""Memory that runs out 1 000 times at random allocations: what becomes of the requests.

Tiny models answer batches of requests, texts of all lengths and pictures among them. Meanwhile
allocations of tensors fail, drawn from all that are made: in the tower, in attention, while
sampling, while a prompt is prepared; one at a time, and up to four in a row, so that the attempt
to go on fails as well. Some faults refuse bytes of the ledger instead. Counted are requests
without an answer (``lost``), answers unlike those without faults (``wrong``), and what the process
holds after the faults of the last load beside those of the first (``grown``).

The rival is transformers' own ``generate`` over the same module and the same requests, one fault
in each: ``lost`` counts those without an answer.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.engine.faults import (
    FailingAllocations,
    FailingReservations,
    cpu_error,
    cuda_error,
    failing_reservations,
)

from benchmarks.many_requests import FAMILIES, Drawn, Held, checkpoint

if TYPE_CHECKING:
    from octavo.models.model import Model

FAULTS: Final = 1000
#: Requests that are asked together, of so many different ones.
_TOGETHER: Final = 8
_POOL: Final = 48
#: Faults of one round, and the most of them in a row.
_ROUND: Final = 6
_IN_A_ROW: Final = 4
#: Times that a model is loaded.
_LOADS: Final = 5
#: Every so many rounds the ledger refuses instead.
_LEDGER: Final = 5
#: Requests of the rival.
_RIVAL: Final = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("faults")
    group.add_argument("--faults", type=int, default=FAULTS, help="in all, over both models")
    group.add_argument("--faults-seed", type=int, default=0)


def run(options: argparse.Namespace) -> Mapping[str, object]:
    each = (40 if options.fast else options.faults) // len(FAMILIES)
    rival = 4 if options.fast else _RIVAL // len(FAMILIES)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        for family in FAMILIES:
            folder = checkpoint(family, Path(name) / family)
            found[family] = _measure(family, folder, each, rival, options.faults_seed)
            print(f"  {family}: {found[family]}", flush=True)
    sums = {
        key: sum(found[family][key] for family in FAMILIES)
        for key in ("faults", "requests", "lost", "wrong", "rival_requests", "rival_lost")
    }
    return {"faults_in_a_row": _IN_A_ROW, **sums, "by_model": found}


def _measure(family: str, folder: Path, faults: int, rival: int, seed: int) -> dict[str, Any]:
    """Over a few loads: with faults all the time, limits would soon be at their lowest."""
    import octavo

    dice = random.Random(seed)
    pictures = 0.4 if family != "text" else 0.0
    pool = [Drawn.draw(dice, pictures=pictures, longest=120, answer=24) for _ in range(_POOL)]
    tally, held = _Tally(), []
    with (
        FailingAllocations(error=_error) as allocations,
        failing_reservations() as reservations,
    ):
        trial = _Trial(pool, allocations, reservations, dice)
        for part in range(_LOADS):
            with octavo.load(str(folder), device="cpu", precision="fp32") as model:
                if part == 0:
                    trial.learn(model)
                tally = tally.plus(trial.rounds(model, faults // _LOADS))
                held.append(Held.by(model))
                if part == _LOADS - 1:
                    lost = _rival(model, pool, allocations, dice, rival)
    return tally.facts() | {"grown": held[-1].since(held[0])} | lost


def _error(number: int) -> BaseException:
    return (cuda_error, cpu_error)[number % 2](number)


@dataclass(slots=True)
class _Tally:
    """What was counted."""

    faults: int = 0
    requests: int = 0
    lost: int = 0
    wrong: int = 0
    given_up: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    def plus(self, other: _Tally) -> _Tally:
        return _Tally(
            self.faults + other.faults,
            self.requests + other.requests,
            self.lost + other.lost,
            self.wrong + other.wrong,
            self.given_up + other.given_up,
            self.reasons + other.reasons,
        )

    def facts(self) -> dict[str, Any]:
        return {
            "faults": self.faults,
            "requests": self.requests,
            "lost": self.lost,
            "wrong": self.wrong,
            "given_up": dict(self.given_up.most_common()),
            "reasons_of_lost": dict(self.reasons.most_common(8)),
        }


class _Trial:
    """Asks, with faults and without."""

    def __init__(
        self,
        pool: Sequence[Drawn],
        allocations: FailingAllocations,
        reservations: FailingReservations,
        dice: random.Random,
    ) -> None:
        self._pool, self._dice = pool, dice
        self._allocations, self._reservations = allocations, reservations
        self._right: list[tuple[int, ...]] = []
        self._round_allocations = self._round_reservations = 1

    def learn(self, model: Model) -> None:
        """The right answers, each asked alone, and how much a round allocates."""
        before = self._allocations.count
        for number, drawn in enumerate(self._pool):
            (done,) = model.generate([drawn.request(f"right {number}")])
            self._right.append(done.check().tokens)
        each = (self._allocations.count - before) // len(self._pool)
        # Together they take fewer steps, and fewer allocations, than one after the other.
        self._round_allocations = max(each * _TOGETHER // 2, 1)
        before = self._reservations.count
        tally = self._ask(model, range(_TOGETHER))
        self._round_reservations = max(self._reservations.count - before, 1)
        if tally.wrong or tally.lost:
            raise RuntimeError(f"without a fault: {tally.facts()}")

    def rounds(self, model: Model, faults: int) -> _Tally:
        """Until there were so many faults."""
        tally, number = _Tally(), 0
        while tally.faults < faults:
            number += 1
            failed = self._failed
            refused = number % _LEDGER == 0
            self._arm(self._reservations if refused else self._allocations, faults - tally.faults)
            chosen = self._dice.sample(range(len(self._pool)), _TOGETHER)
            tally = tally.plus(self._ask(model, chosen))
            self._allocations.disarm()
            self._reservations.disarm()
            tally.faults += self._failed - failed
        return tally

    @property
    def _failed(self) -> int:
        return len(self._allocations.failed) + len(self._reservations.failed)

    def _arm(self, faults: FailingAllocations | FailingReservations, most: int) -> None:
        whole = (
            self._round_allocations
            if isinstance(faults, FailingAllocations)
            else self._round_reservations
        )
        for place in _places(self._dice, whole, min(_ROUND, most)):
            faults.fail_next(after=place)

    def _ask(self, model: Model, numbers: Sequence[int]) -> _Tally:
        """Asks together, and compares every answer."""
        asked = {f"{number}": number for number in numbers}
        requests = [self._pool[number].request(name) for name, number in asked.items()]
        tally = _Tally(requests=len(requests))
        for done in model.generate(requests):
            number = asked.pop(done.request_id)
            tally.given_up.update(attempt.stage for attempt in done.attempts)
            if done.failure is not None:
                tally.lost += 1
                tally.reasons[f"{done.failure.error}: {done.failure.what}"[:100]] += 1
            elif done.tokens != self._right[number]:
                tally.wrong += 1
        tally.lost += len(asked)
        return tally


def _places(dice: random.Random, whole: int, most: int) -> Iterator[int]:
    """Of faults among ``whole`` allocations and some more: repeated steps allocate as well."""
    while most > 0:
        first = dice.randrange(whole + whole // 4 + 1)
        row = min(dice.choice((1, 1, 1, 2, 3, _IN_A_ROW)), most)
        yield from range(first, first + row)
        most -= row


def _rival(
    model: Model,
    pool: Sequence[Drawn],
    allocations: FailingAllocations,
    dice: random.Random,
    n: int,
) -> dict[str, int]:
    """transformers' own ``generate``, with a fault in each request."""
    import torch

    from octavo.engine.recovery import out_of_memory

    lost = 0
    model.module.set_attn_implementation("sdpa")
    for number in range(n):
        request = pool[number % len(pool)].request(f"rival {number}")
        inputs = dict(model.processor.prepare(request, model.media).inputs)
        before = allocations.count
        settings = {"max_new_tokens": request.max_new_tokens, "do_sample": False}
        with torch.inference_mode():
            model.module.generate(**inputs, **settings)
            allocations.fail_next(after=dice.randrange(allocations.count - before))
            try:
                model.module.generate(**inputs, **settings)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                lost += 1
        allocations.disarm()
    return {"rival_requests": n, "rival_lost": lost}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true")
    add_arguments(parser)
    print(json.dumps(run(parser.parse_args()), indent=1))
