"""The manager: parts joined by a level."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from octavo.errors import BudgetExceeded, ConfigError, ReleasedError
from octavo.memory import MemoryManager
from octavo.memory.ledger import PLACES
from octavo.memory.pressure import Pressure
from octavo.memory.replay import compare
from octavo.memory.trace import read_trace
from tests.memory.stores import KIB, same, value

MIB = 1024 * KIB


@pytest.mark.parametrize("level", ["minimal", "balanced", "aggressive"])
def test_every_level_gives_back_what_it_got_within_its_budget(tmp_path: Path, level: str) -> None:
    with MemoryManager(
        device="1MiB", host="12MiB", disk=(tmp_path, "64MiB"), level=level, on="cpu"
    ) as memory:
        for seed in range(80):
            tensor = value(seed, 200 * KIB) if seed % 2 else torch.full((50_000,), float(seed))
            memory["vision", seed] = tensor
        for seed in [*range(80), *range(79, -1, -1)]:
            tensor = value(seed, 200 * KIB) if seed % 2 else torch.full((50_000,), float(seed))
            assert same(memory["vision", seed], tensor)
        stats = memory.stats()
        assert stats.store.values == 80
        assert stats.store.copies["disk"] > 0
        assert all(state.peak <= state.budget for state in stats.places.values())
        assert (stats.store.encoded_ratio is None) == (level == "minimal")
        said = memory.explain()
        assert f"level {level}" in said
        assert "features" in said
    assert all(memory.ledger.used(place) == 0 for place in PLACES)
    assert list(tmp_path.iterdir()) == []


def test_kinds_and_owners_come_from_the_key_or_the_caller() -> None:
    with MemoryManager(device="1MiB", on="cpu", level="minimal") as memory:
        memory["vision", 1] = value(1)
        memory["weights", "layer 3"] = value(2)
        memory.put("x", value(3), kind="kv", owner="chat 7")
        held = {(holding.owner, holding.kind) for holding in memory.ledger.holdings()}
        assert held == {("vision", "features"), ("weights", "weights"), ("chat 7", "kv")}
        with pytest.raises(BudgetExceeded, match=r"chat 7 16\.4 kB of kv"):
            memory["more"] = value(4, MIB)


def test_pools_are_made_at_first_use_and_share_the_budget() -> None:
    with MemoryManager(device="64MiB", host="8MiB", on="cpu", level="minimal") as memory:
        with memory.pool("kv").blocks(12) as blocks:
            assert len(blocks) == 12
            blocks[3].fill_(1)
            assert memory.ledger.state("device").by_kind["kv"] == 16 * MIB
        with pytest.raises(ReleasedError):
            _ = blocks[0]
        with pytest.raises(ConfigError, match="is there already"):
            memory.pool("kv", nbytes=1)
        with pytest.raises(ConfigError, match="no pool"):
            memory.pool("nonsense")  # type: ignore[call-overload]
        with pytest.raises(ConfigError, match="unexpected"):
            memory.pool("text", colour="red")
        part = memory.pool("features").allocate((10, 10), torch.float32)
        assert part.tensor.shape == (10, 10)
        part.release()
        assert set(memory.stats().pools) == {"kv", "features"}
        assert "pool kv" in memory.explain()


def test_values_make_room_for_a_pool(tmp_path: Path) -> None:
    with MemoryManager(
        device="4MiB", host="1MiB", disk=(tmp_path, "64MiB"), on="cpu", level="minimal"
    ) as memory:
        for seed in range(4):
            memory[seed] = value(seed, MIB - 4 * KIB)
        block = (1024,)
        pool = memory.pool("kv", block_shape=block, dtype=torch.float32, nbytes=3 * MIB)
        with pool.blocks(5):
            assert memory.ledger.used("device") <= 4 * MIB
            for seed in range(4):
                assert same(memory[seed], value(seed, MIB - 4 * KIB))


def test_large_tensors_are_kept_in_parts(tmp_path: Path) -> None:
    tensor = torch.randn(600, 1000)
    with MemoryManager(
        device="8MiB", host="4MiB", disk=(tmp_path, "64MiB"), on="cpu", max_tensor="512KiB"
    ) as memory:
        memory["big"] = tensor
        assert list(memory) == ["big"]
        assert all(part.nbytes <= 512 * KIB for part in memory.parts("big"))
        assert same(memory["big"], tensor)


def test_the_laptop_profile_sets_budgets_that_can_be_overridden() -> None:
    with MemoryManager(profile="laptop", host="1GB", on="cpu") as memory:
        assert memory.ledger.budget("device") == 1_500_000_000
        assert memory.ledger.budget("host") == 1_000_000_000
        assert memory.level.name == "balanced"
        memory["it"] = torch.ones(10)
        assert len(list(memory.parts("it"))) == 1


def test_a_trace_is_recorded_and_can_be_replayed(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    with MemoryManager(device="1MiB", on="cpu", level="minimal", trace=path) as memory:
        with memory.phase("first"):
            for seed in range(4):
                memory["page", seed] = value(seed)
        with memory.phase("second"):
            for seed in range(4):
                _ = memory["page", seed]
        del memory["page", 2]
    accesses = list(read_trace(path))
    assert [access.op for access in accesses] == ["put"] * 4 + ["get"] * 4 + ["delete"]
    assert accesses[5].key == "page/1"
    assert accesses[0].phase == "first"
    assert json.loads(path.read_text().splitlines()[0])["nbytes"] == 16 * KIB
    assert compare(accesses, 32 * KIB)


def test_a_known_order_is_followed_and_ended(tmp_path: Path) -> None:
    with MemoryManager(
        device="256KiB", host=0, disk=(tmp_path, "64MiB"), on="cpu", level="minimal"
    ) as memory:
        for seed in range(32):
            memory[seed] = value(seed)
        memory.schedule(range(32), cyclic=True)
        for seed in [*range(32), *range(32)]:
            assert same(memory[seed], value(seed))
        assert memory.stats().store.prefetches > 0
        memory.schedule(None)
        before = memory.stats().store.prefetches
        _ = memory[0]
        assert memory.stats().store.prefetches == before


def test_references_decide_what_is_freed() -> None:
    with MemoryManager(device="1MiB", on="cpu", level="minimal") as memory:
        memory["it"] = value(1)
        memory.lifetimes.acquire("it", "chat")
        assert not memory.lifetimes.free_when_unreferenced("it")
        assert "it" in memory
        memory.lifetimes.release("it", "chat")
        assert "it" not in memory
        assert memory.ledger.used("device") == 0


def test_what_is_not_used_again_leaves_first(tmp_path: Path) -> None:
    """Rough pages are never read after their phase; the policy alone would keep them longest."""
    with MemoryManager(
        device="160KiB", host=0, disk=(tmp_path, "64MiB"), on="cpu", level="minimal"
    ) as memory:
        for turn in range(12):
            with memory.phase("read"):
                memory["prompt", turn] = value(2 * turn)
                memory["rough", turn] = value(2 * turn + 1)
                memory.get(("rough", turn))
            with memory.phase("sum up"):
                memory.get(("prompt", turn))
            with memory.phase("close"):
                memory.get(("prompt", turn))
                del memory["prompt", turn]
        with memory.phase("read"):
            memory["prompt", 99] = value(99)
            memory["rough", 99] = value(98)
            memory.get(("rough", 99))  # and let go at once: what is held cannot leave
        with memory.phase("sum up"):
            for seed in range(100, 109):  # too many for all to stay
                memory["prompt", seed] = value(seed)
            assert "device" not in memory._store.places(("rough", 99))
            assert "device" in memory._store.places(("prompt", 99))


def test_pressure_gives_memory_up_and_takes_it_again(tmp_path: Path) -> None:
    with MemoryManager(
        device=0, host="4MiB", disk=(tmp_path, "64MiB"), on="cpu", level="balanced"
    ) as memory:
        assert memory._monitor is not None
        memory._monitor.stop()
        for seed in range(16):
            memory[seed] = value(seed, 200 * KIB)
        full = memory.ledger.used("host")
        memory._relieve(Pressure("some", 0, 0, None, wanted_bytes=2 * MIB))
        assert memory.ledger.used("host") <= full - 2 * MIB
        assert memory.ledger.budget("host") < 4 * MIB
        memory._relieve(Pressure("none", 0, 0, None, wanted_bytes=0))
        assert memory.ledger.budget("host") == 4 * MIB
        memory.ledger.set_budget("device", 4 * MIB)
        for seed in range(16):
            assert same(memory[seed], value(seed, 200 * KIB))


def test_wrong_settings_are_refused_with_what_would_be_right() -> None:
    with pytest.raises(ConfigError, match="minimal, balanced, aggressive"):
        MemoryManager(device="1GB", level="turbo", on="cpu")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="laptop"):
        MemoryManager(profile="desktop", on="cpu")
    with pytest.raises(ConfigError, match="host"):
        MemoryManager(device="1GB", host="lots", on="cpu")


def test_the_ledger_is_reconciled_with_the_process() -> None:
    with MemoryManager(device="256MiB", on="cpu", level="minimal") as memory:
        memory["it"] = torch.ones(25_000_000)
        found = memory.reconcile()
        assert "main" in found.explain()
        unexplained = found.unexplained["main"]
        assert unexplained is None or abs(unexplained) < 64 * MIB


def test_closing_ends_every_part_though_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = MemoryManager(device="1MiB", disk=(tmp_path, "1MiB"), on="cpu", level="balanced")
    memory["it"] = value(1)

    def broken() -> None:
        raise OSError("injected")

    monkeypatch.setattr(memory._pools, "close", broken)
    with pytest.raises(OSError, match="injected"):
        memory.close()
    assert memory.ledger.used("device") == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("max_tensor", [None, "4KiB"])
def test_values_are_taken_out_and_emptied(max_tensor: str | None) -> None:
    with MemoryManager(device="1MiB", on="cpu", level="minimal", max_tensor=max_tensor) as memory:
        memory["it"], memory["other"] = value(1), value(2)
        memory.prefetch(["it"])
        with memory.pinned("it") as tensor:
            assert same(tensor, value(1))
        assert same(memory.pop("it"), value(1))
        assert memory.pop("it", None) is None
        with pytest.raises(KeyError):
            memory.pop("it")
        memory.clear()
        assert len(memory) == 0


def test_a_tensor_made_in_the_budget_is_counted_once() -> None:
    with MemoryManager(device="1MiB", on="cpu", level="minimal") as memory:
        made = memory.empty((100, 64), torch.float32)
        assert memory.ledger.used("device") == made.nbytes
        memory["vision", 1] = made.fill_(3)
        assert memory.ledger.used("device") == made.nbytes
        (holding,) = memory.ledger.holdings("device")
        assert (holding.owner, holding.kind) == ("vision", "features")
        dropped = memory.empty((100, 64), torch.float32)
        del dropped
        assert memory.stats().store.lent_bytes == 0
        with pytest.raises(BudgetExceeded):
            memory.empty((1 << 20,), torch.float32)
        assert memory.ledger.used("device") == made.nbytes
