"""Measuring a disk."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.errors import ConfigError, TierError, TierFull
from octavo.memory.disk import Trial, tune
from octavo.memory.disk.tune import pick
from tests.memory.disk.tiers import MIB, open_files

#: The package's ``tune`` is the function of that name.
MODULE = sys.modules[tune.__module__]

RATES = st.floats(1e6, 1e10)
TRIALS = st.lists(
    st.builds(
        Trial,
        st.sampled_from([1 << 20, 2 << 20, 4 << 20]),
        st.sampled_from([1, 2, 4, 8]),
        RATES,
        RATES,
    ),
    min_size=1,
)


@given(TRIALS)
def test_the_usual_or_else_the_least_depth_of_those_as_good_as_the_best_is_picked(
    trials: list[Trial],
) -> None:
    def seconds(trial: Trial) -> float:
        return 1 / trial.read_bytes_per_s + 1 / trial.write_bytes_per_s

    picked = pick(trials)
    least = min(map(seconds, trials))
    assert seconds(picked) * 0.7 <= least * 1.000001
    good = [trial for trial in trials if seconds(trial) * 0.7 < least * 0.999999]
    usual = [trial for trial in good if (trial.block, trial.depth) == (4 << 20, 4)]
    if usual:
        assert (picked.block, picked.depth) == (4 << 20, 4)
    elif (picked.block, picked.depth) != (4 << 20, 4):
        for trial in good:
            assert (picked.depth, -picked.block) <= (trial.depth, -trial.block)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "_BLOCKS", (MIB, 2 * MIB))
    monkeypatch.setattr(MODULE, "_DEPTHS", (1, 2))


@pytest.mark.usefixtures("quick")
def test_a_disk_is_measured_and_nothing_is_left(tmp_path: Path) -> None:
    told: list[str] = []
    descriptors = open_files()
    found = tune(tmp_path, total_bytes=8 * MIB, on_progress=told.append)
    assert {(trial.block, trial.depth) for trial in found.measured} == {
        (MIB, 1),
        (MIB, 2),
        (2 * MIB, 1),
        (2 * MIB, 2),
    }
    assert pick(found.measured) == Trial(
        found.block, found.depth, found.read_bytes_per_s, found.write_bytes_per_s
    )
    assert len(told) == 1 + 3 * 4
    assert list(tmp_path.iterdir()) == []
    assert open_files() == descriptors


@pytest.mark.usefixtures("quick")
def test_all_bytes_of_a_trial_are_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MODULE, "_TRIAL_S", 60.0)
    read: list[tuple[int, int]] = []
    real = os.preadv

    def seen(fd: int, views: list[memoryview], offset: int) -> int:
        read.append((offset, len(views[0])))
        return real(fd, views, offset)

    monkeypatch.setattr(os, "preadv", seen)
    tune(tmp_path, total_bytes=4 * MIB)
    for block in (MIB, 2 * MIB):
        offsets = [offset for offset, nbytes in read if nbytes == block]
        # Two depths, three rounds each.
        assert sorted(offsets) == sorted([*range(0, 4 * MIB, block)] * 6)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TierError, match="no such folder"):
        tune(tmp_path / "none")


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *rest: object, **named: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(TierError, match="Permission denied"):
        tune(tmp_path)


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_disk_that_is_nearly_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100 * MIB, 90 * MIB, 10 * MIB))
    with pytest.raises(TierFull, match=r"has not 16\.8 MB free"):
        tune(tmp_path, total_bytes=16 * MIB)
    with pytest.raises(ConfigError, match="too few"):
        tune(tmp_path, total_bytes=MIB)


@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, TierFull), (errno.EIO, TierError)])
@pytest.mark.usefixtures("quick")
def test_a_disk_that_fails_meanwhile_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[TierError]
) -> None:
    calls = []
    real = os.pwritev

    def fail(*given: object) -> int:
        calls.append(1)
        if len(calls) > 6:
            raise OSError(code, os.strerror(code))
        return real(*given)

    descriptors = open_files()
    monkeypatch.setattr(os, "pwritev", fail)
    with pytest.raises(error) as caught:
        tune(tmp_path, total_bytes=8 * MIB)
    assert type(caught.value) is error
    assert list(tmp_path.iterdir()) == []
    assert open_files() == descriptors


@pytest.mark.usefixtures("quick")
def test_a_disk_that_slows_down_is_unjust_to_no_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[tuple[int, int]] = []

    def slower(*given: object) -> float:
        order.append((int(str(given[4])), int(str(given[5]))))
        return 1e9 - 1e6 * len(order)

    monkeypatch.setattr(MODULE, "_rate", slower)
    tune(tmp_path, total_bytes=8 * MIB)
    rounds = [order[start : start + 8] for start in range(0, 24, 8)]
    assert rounds[1] == rounds[0][::-1]
    assert rounds[2] == rounds[0]
