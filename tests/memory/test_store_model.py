"""The store against a plain dict, step by step, with every operation it has."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from octavo.errors import BudgetExceeded, TierFull
from octavo.memory.entry import Terms
from octavo.memory.ledger import PLACES
from octavo.memory.prediction import LearnedOrder, Schedule
from tests.memory.stores import KIB, PACKED, RAW, at_rest, ledger_of, make_store, same, value

KEYS = st.integers(0, 9)
SIZES = st.sampled_from([0, 1, 100, 4 * KIB, 16 * KIB, 30 * KIB])


class AgainstDict(RuleBasedStateMachine):
    """``model`` holds what the store must hold; ``droppable`` what it may have dropped."""

    packed = False

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = make_store(Path(self.folder.name), settings=PACKED if self.packed else RAW)
        self.model: dict[int, torch.Tensor] = {}
        self.held: list[tuple[torch.Tensor, torch.Tensor]] = []

    @rule(key=KEYS, seed=st.integers(0, 1000), nbytes=SIZES, flat=st.booleans())
    def put(self, key: int, seed: int, nbytes: int, flat: bool) -> None:
        tensor = (
            torch.full((nbytes,), seed % 256, dtype=torch.uint8) if flat else value(seed, nbytes)
        )
        self.store[key] = tensor
        self.model[key] = tensor.clone()

    @rule(key=KEYS)
    def get(self, key: int) -> None:
        if key not in self.model:
            assert self.store.get(key) is None
            return
        try:
            assert same(self.store[key], self.model[key])
        except BudgetExceeded:
            assert self.held  # only tensors in use can be in the way

    @rule(key=KEYS)
    @precondition(lambda self: len(self.held) < 3)
    def hold(self, key: int) -> None:
        if key in self.model:
            try:
                self.held.append((self.store[key], self.model[key]))
            except BudgetExceeded:
                assert self.held

    @rule()
    def let_go(self) -> None:
        for tensor, expected in self.held:
            assert same(tensor, expected)
        self.held.clear()

    @rule(key=KEYS)
    def delete(self, key: int) -> None:
        assert (self.store.pop(key, None) is not None) == (self.model.pop(key, None) is not None)

    @rule(place=st.sampled_from(["device", "host", "disk"]), nbytes=st.integers(1, 100 * KIB))
    def relieve(self, place: str, nbytes: int) -> None:
        self.store.relieve(place, nbytes)  # type: ignore[arg-type]

    @rule(keys=st.lists(KEYS, max_size=4))
    def prefetch(self, keys: list[int]) -> None:
        self.store.prefetch(keys)

    @rule()
    def flush(self) -> None:
        self.store.flush()

    @rule(order=st.none() | st.lists(KEYS, min_size=1, max_size=12), learned=st.booleans())
    def follow(self, order: list[int] | None, learned: bool) -> None:
        if order is None:
            self.store.follow(None)
        else:
            self.store.follow(LearnedOrder() if learned else Schedule(order, cyclic=True))

    @rule(nbytes=st.integers(0, 20 * KIB))
    def other_owner(self, nbytes: int) -> None:
        try:
            with ledger_of(self.store).reserve("device", "kv", nbytes, "pool"):
                pass
        except BudgetExceeded:
            assert self.held

    @rule(key=KEYS, seed=st.integers(0, 1000))
    def too_large(self, key: int, seed: int) -> None:
        droppable = Terms(droppable=True)
        try:
            self.store.put(key, torch.zeros(80 << 20, dtype=torch.uint8), droppable)
        except (BudgetExceeded, TierFull):
            return
        raise AssertionError("a value larger than every tier was taken")

    @invariant()
    def keys_agree(self) -> None:
        assert set(self.store) == set(self.model)
        for place in PLACES:
            state = ledger_of(self.store).state(place)
            assert state.peak <= state.budget

    def teardown(self) -> None:
        self.held.clear()
        self.store._fetchers.shutdown(wait=True)
        at_rest(self.store)
        self.store.close()
        left = {place: ledger_of(self.store).holdings(place) for place in PLACES}
        assert all(ledger_of(self.store).used(place) == 0 for place in PLACES), left
        assert list(Path(self.folder.name).iterdir()) == []
        self.folder.cleanup()


class PackedAgainstDict(AgainstDict):
    packed = True


AgainstDict.TestCase.settings = PackedAgainstDict.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestRaw = AgainstDict.TestCase
TestPacked = PackedAgainstDict.TestCase
