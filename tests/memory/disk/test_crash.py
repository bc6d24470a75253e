"""Processes that are killed, and two that want the same folder."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from octavo.errors import CodecError, TierError
from octavo.memory.disk import DiskTier, Extent
from tests.memory.disk.tiers import KIB, MIB, get, ledger, on_disk, put, slab_of, tier, value

#: Writes, replaces and frees values for ever, and says what it has finished.
WRITER = """
    import itertools, json, random, sys
    from pathlib import Path
    from octavo.memory.disk import DiskTier
    from tests.memory.disk.tiers import SMALL, ledger, put, value
    keep, seed = sys.argv[2] == "keep", int(sys.argv[3])
    made = DiskTier(Path(sys.argv[1]), ledger(), keep=keep, tuning=SMALL)
    held = {key: extent for key, _, extent in made.recover()}
    choose = random.Random(seed)
    for turn in itertools.count(seed * 1_000_000):
        key = choose.randrange(12)
        old = held.pop(key, None)
        if old is not None and choose.random() < 0.3:
            print(json.dumps(["freeing", key]), flush=True)
            made.free(old)
            print(json.dumps(["freed", key]), flush=True)
            continue
        nbytes = choose.choice([900, 20_000, 200_000, 1_500_000])
        print(json.dumps(["writing", key, turn, nbytes]), flush=True)
        held[key] = put(made, value(nbytes, seed=turn))
        made.commit(key, {"turn": turn}, held[key])
        print(json.dumps(["written", key, turn, nbytes]), flush=True)
        if old is not None:
            made.free(old)
"""


@contextmanager
def writer(folder: Path, mode: str, seed: int = 0) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(folder), mode, str(seed)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def killed_after(process: subprocess.Popen[str], lines: int) -> list[list[object]]:
    """What the writer had said when it was killed, after at least so many lines."""
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(lines)]
    process.send_signal(signal.SIGKILL)
    said += process.stdout.readlines()
    assert process.wait() == -signal.SIGKILL
    return [json.loads(line) for line in said if line.endswith("\n")]


def allowed(said: list[list[object]], states: dict[object, set[object]]) -> None:
    """Brings ``states`` (by key: turn and bytes of what may be there) up to what was said."""
    for what, key, *rest in said:
        new = tuple(rest) if rest else None
        if what in ("writing", "freeing"):
            states[key] = states.get(key, {None}) | {new}
        else:
            states[key] = {new}


def test_after_kill_9_everything_committed_is_there_and_right(tmp_path: Path) -> None:
    states: dict[object, set[object]] = {}
    for round_number, lines in enumerate((60, 37)):
        with writer(tmp_path, "keep", round_number) as process:
            allowed(killed_after(process, lines), states)
        with tier(tmp_path, keep=True) as made:
            found = {key: (header, extent) for key, header, extent in made.recover()}
            for key, possible in states.items():
                turn = None
                if key in found:
                    header, extent = found[key]
                    turn = (header["turn"], extent.nbytes)
                    assert torch.equal(get(made, extent), value(turn[1], seed=turn[0]))
                assert turn in possible
                states[key] = {turn}
            assert set(found) <= set(states)
            assert made.stats().lost == 0
            # Nothing that was under way takes disk.
            assert on_disk(tmp_path) <= made.stats().used_bytes


def test_what_a_killed_process_left_is_removed_and_a_living_one_keeps_its_own(
    tmp_path: Path,
) -> None:
    with writer(tmp_path, "scratch", 1) as living:
        assert living.stdout is not None
        living.stdout.readline()
        with writer(tmp_path, "scratch", 2) as dying:
            killed_after(dying, 20)
        (alive,) = tmp_path.glob(f"octavo-{living.pid}-*")
        (dead,) = tmp_path.glob(f"octavo-{dying.pid}-*")
        with DiskTier(tmp_path, ledger()) as made:
            assert set(tmp_path.iterdir()) == {alive, made._folder.path}
            assert not dead.exists()
        assert living.poll() is None


def test_one_process_at_a_time_keeps_values_in_a_folder(tmp_path: Path) -> None:
    with writer(tmp_path, "keep") as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(TierError, match="another process keeps its values here"):
            DiskTier(tmp_path, ledger(), keep=True)
        assert process.poll() is None
    with tier(tmp_path, keep=True), pytest.raises(TierError, match="another process"):
        DiskTier(tmp_path, ledger(), keep=True)


def kept(folder: Path, values: dict[object, torch.Tensor]) -> dict[object, Extent]:
    """Commits values in this order and closes."""
    with tier(folder, keep=True) as made:
        extents = {key: put(made, data_b) for key, data_b in values.items()}
        for key, extent in extents.items():
            made.commit(key, {"key": repr(key)}, extent)
    return extents


def test_kept_values_are_there_for_the_next_tier(tmp_path: Path) -> None:
    values: dict[object, torch.Tensor] = {
        ("vision", b"\xff\x00", 3): value(300 * KIB, seed=1),
        "": value(0),
        None: value(5 * MIB, seed=2),
    }
    kept(tmp_path, values)
    for direct in (None, False, None):
        books = ledger()
        with tier(tmp_path, books, keep=True, direct=direct) as made:
            found = made.recover()
            assert made.recover() == []
            assert [key for key, _, _ in found] == list(values)
            for key, header, extent in found:
                assert header == {"key": repr(key)}
                assert torch.equal(get(made, extent), values[key])
                assert (extent.held.kind, extent.held.owner) == ("features", "test")
            assert books.used("disk") == 300 * KIB + 5 * MIB


def test_what_was_not_committed_or_was_freed_is_gone(tmp_path: Path) -> None:
    with tier(tmp_path, keep=True) as made:
        extents = [put(made, value(MIB, seed=n)) for n in range(4)]
        for n in (1, 2):
            made.commit(n, {}, extents[n])
        made.free(extents[1])
        reused = put(made, value(MIB, seed=9))
        assert reused.slot == extents[1].slot
    assert on_disk(tmp_path) == MIB
    with tier(tmp_path, keep=True) as made:
        ((key, _, extent),) = made.recover()
        assert key == 2
        assert torch.equal(get(made, extent), value(MIB, seed=2))
        assert put(made, value(MIB)).slot == 0


def test_of_a_key_committed_twice_the_newer_is_there(tmp_path: Path) -> None:
    with tier(tmp_path, keep=True) as made:
        for seed in (1, 2):
            made.commit("it", {"seed": seed}, put(made, value(MIB, seed=seed)))
    with tier(tmp_path, keep=True) as made:
        ((_, header, extent),) = made.recover()
        assert header == {"seed": 2}
        assert torch.equal(get(made, extent), value(MIB, seed=2))
        assert on_disk(tmp_path) == MIB


def test_a_smaller_budget_keeps_the_newest(tmp_path: Path) -> None:
    kept(tmp_path, {n: value(MIB, seed=n) for n in range(5)})
    with tier(tmp_path, ledger(disk=2 * MIB + 5), keep=True) as made:
        assert [key for key, _, _ in made.recover()] == [3, 4]
        assert made.stats().lost == 3
        assert on_disk(tmp_path) == 2 * MIB
    with tier(tmp_path, keep=True) as made:
        found = {key: get(made, extent) for key, _, extent in made.recover()}
        assert set(found) == {3, 4}
        assert torch.equal(found[3], value(MIB, seed=3))


def test_a_slab_file_that_vanished_costs_its_values_only(tmp_path: Path) -> None:
    extents = kept(tmp_path, {"large": value(MIB), "small": value(100), "gone": value(MIB + 1)})
    slab_of(tmp_path, extents["gone"]).unlink()
    with tier(tmp_path, keep=True) as made:
        assert [key for key, _, _ in made.recover()] == ["large", "small"]
        assert made.stats().lost == 1


def test_keys_that_cannot_be_written_are_refused_only_where_values_are_kept(
    tmp_path: Path,
) -> None:
    with tier(tmp_path) as made:
        made.commit(frozenset(), {}, put(made, value(10)))
    with tier(tmp_path, keep=True) as made, pytest.raises(CodecError, match="frozenset"):
        made.commit(frozenset(), {}, put(made, value(10)))


def test_scratch_and_kept_values_live_in_one_folder(tmp_path: Path) -> None:
    kept(tmp_path, {"it": value(MIB)})
    with DiskTier(tmp_path, ledger()) as scratch:
        put(scratch, value(MIB, seed=1))
        with tier(tmp_path, keep=True) as made:
            ((_, _, extent),) = made.recover()
            assert torch.equal(get(made, extent), value(MIB))
