"""Plays recorded accesses against a policy: what a tier of some size would have hit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from octavo.memory.policies import ONLINE, Belady, Key, Policy, PolicyFactory
from octavo.memory.trace import Access


@dataclass(frozen=True, slots=True)
class Regret:
    """What a policy missed beyond the optimum.

    Attributes:
        cost: missed cost less the optimum's, in the unit of the trace.
        cost_ratio: ``cost`` over the optimum's missed cost: 0.1 is ten per cent more; ``None``
            where the optimum missed nothing and the policy something.
        nbytes: missed bytes less the optimum's.
        bytes_ratio: the same for bytes.

    Where sizes or costs differ, Belady is no bound, and these may be negative.
    """

    cost: float
    cost_ratio: float | None
    nbytes: int
    bytes_ratio: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a policy did on a trace.

    Attributes:
        name: of the policy.
        capacity: bytes of the tier.
        accesses: reads (``get``); only these hit or miss.
        hits: reads of a value in the tier.
        missed_bytes: bytes of the values that had to come from below.
        missed_cost: the recorded cost of those values: seconds where the trace knows them, else
            their number.
        evictions: values that left to make room.
    """

    name: str
    capacity: int
    accesses: int
    hits: int
    missed_bytes: int
    missed_cost: float
    evictions: int

    @property
    def hit_ratio(self) -> float:
        """Hits over reads; 0 where nothing was read."""
        return self.hits / self.accesses if self.accesses else 0.0

    def regret(self, optimum: Outcome) -> Regret:
        """Against the outcome of the best that could be done with this capacity."""
        cost = self.missed_cost - optimum.missed_cost
        nbytes = self.missed_bytes - optimum.missed_bytes
        return Regret(
            cost,
            _ratio(cost, optimum.missed_cost),
            nbytes,
            _ratio(nbytes, optimum.missed_bytes),
        )


def replay(accesses: Iterable[Access], policy_factory: PolicyFactory, capacity: int) -> Outcome:
    """Plays ``accesses`` against one tier of ``capacity`` bytes, empty at first.

    A ``get`` of a value that is not there is a miss: it is read from below and comes in if the
    policy admits it. A ``put`` comes in without a miss and without being asked about; a ``delete``
    drops the value. A value larger than the tier never comes in.

    The policy sees what an owner of a tier tells it, in the same order: ``admits`` after a miss,
    ``evict`` until there is room, then ``insert``.
    """
    return _play(accesses, policy_factory(capacity), capacity)


def optimum(accesses: Sequence[Access], capacity: int) -> Outcome:
    """What Belady's choice with bypass gets: the least misses where sizes and costs are equal."""
    belady = Belady(capacity, accesses)
    return _play(belady.follow(), belady, capacity)


def compare(
    accesses: Sequence[Access],
    capacity: int,
    policies: Mapping[str, PolicyFactory] = ONLINE,
    *,
    on_policy: Callable[[str], None] | None = None,
) -> list[Outcome]:
    """Every policy on the same accesses, in the order given, then Belady.

    ``on_policy`` is told the name of each before it is played.
    """
    outcomes = []
    for name, factory in policies.items():
        if on_policy is not None:
            on_policy(name)
        outcomes.append(replay(accesses, factory, capacity))
    if on_policy is not None:
        on_policy(Belady.name)
    return [*outcomes, optimum(accesses, capacity)]


def best(outcomes: Iterable[Outcome]) -> Outcome:
    """The one with the least missed cost; between equals, the least missed bytes."""
    return min(outcomes, key=lambda outcome: (outcome.missed_cost, outcome.missed_bytes))


def distinct_bytes(accesses: Iterable[Access]) -> int:
    """Bytes of all keys together, each at the largest size it had: a tier that holds everything."""
    sizes: dict[str, int] = {}
    for access in accesses:
        if access.op != "delete":
            sizes[access.key] = max(access.nbytes, sizes.get(access.key, 0))
    return sum(sizes.values())


def _play(accesses: Iterable[Access], policy: Policy, capacity: int) -> Outcome:
    tier = _Tier(policy, capacity)
    sizes, touch = tier.sizes, policy.touch
    reads = hits = missed_bytes = 0
    missed_cost = 0.0
    for access in accesses:
        key, nbytes = access.key, access.nbytes
        if access.op == "get":
            reads += 1
            held = sizes.get(key)
            if held is None:
                missed_bytes += nbytes
                missed_cost += access.cost
                if nbytes <= capacity and policy.admits(key, nbytes, access.cost):
                    tier.take(access)
                continue
            hits += 1
            if held == nbytes:
                touch(key)
            else:  # the trace does not say how it changed; the value is there all the same
                tier.take(access)
        elif access.op == "put":
            tier.take(access)
        else:
            tier.forget(key)
    return Outcome(policy.name, capacity, reads, hits, missed_bytes, missed_cost, tier.evictions)


class _Tier:
    """The owner of the policy: it has no bytes, only their count."""

    def __init__(self, policy: Policy, capacity: int) -> None:
        self.sizes: dict[Key, int] = {}
        self.evictions = 0
        self._policy = policy
        self._capacity = capacity
        self._held = 0

    def take(self, access: Access) -> None:
        """Makes room, then takes the value in; one too large leaves the tier."""
        key, nbytes = access.key, access.nbytes
        if nbytes > self._capacity:
            if key in self.sizes:
                self._evict(key)
            return
        excess = self._held - self.sizes.get(key, 0) + nbytes - self._capacity
        if excess > 0:
            self._make_room(excess, key)
        self._held += nbytes - self.sizes.get(key, 0)
        self.sizes[key] = nbytes
        self._policy.insert(key, nbytes, access.cost)

    def forget(self, key: str) -> None:
        self._held -= self.sizes.pop(key, 0)
        self._policy.remove(key)

    def _make_room(self, excess: int, spared: Key) -> None:
        leaving: list[Key] = []
        for victim in self._policy.victims():
            if excess <= 0:
                break
            if victim != spared:
                leaving.append(victim)
                excess -= self.sizes[victim]
        for victim in leaving:
            self._evict(victim)

    def _evict(self, key: Key) -> None:
        self._held -= self.sizes.pop(key)
        self._policy.evict(key)
        self.evictions += 1


def _ratio(beyond: float, optimum: float) -> float | None:
    if optimum:
        return beyond / optimum
    return None if beyond else 0.0
