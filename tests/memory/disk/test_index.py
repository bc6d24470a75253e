"""The index of a kept folder beside a plain dict, and what damage does to it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.memory.disk.index import NAME, Entry, Index


def entry(key: int, slot: int, stamp: int = 0) -> Entry:
    return Entry(key, {"stamp": stamp}, "kv", "test", 4096, slot, 10, 4096, (stamp,))


def opened(folder: Path) -> Index:
    """As a tier opens it: everything that was found is used."""
    index = Index(folder)
    index.keep_only(index.found)
    return index


STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "void", "reopen"]), st.integers(0, 5), st.integers(0, 5)),
    max_size=40,
)


@settings(max_examples=30, deadline=None)
@given(steps=STEPS)
def test_it_holds_what_a_dict_holds(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("index")
    index = opened(folder)
    by_slot: dict[int, Entry] = {}
    for stamp, (op, key, slot) in enumerate(steps):
        if op == "put" and slot not in by_slot:
            for old in [n for n, held in by_slot.items() if held.key == key]:
                index.void((4096, old))
                del by_slot[old]
            by_slot[slot] = entry(key, slot, stamp)
            index.put(by_slot[slot])
        elif op == "void":
            index.void((4096, slot))
            by_slot.pop(slot, None)
        elif op == "reopen":
            index.close()
            index = opened(folder)
        assert {slot for slot in range(6) if (4096, slot) in index} == set(by_slot)
    index.close()
    assert Index(folder).found == list(by_slot.values())


def filled(folder: Path, count: int) -> bytes:
    index = opened(folder)
    for n in range(count):
        index.put(entry(n, n))
    index.close()
    return (folder / NAME).read_bytes()


def test_a_line_that_was_cut_short_is_not_there(tmp_path: Path) -> None:
    whole = filled(tmp_path, 3)
    for length in range(len(whole) - 1, whole.rindex(b"\n", 0, len(whole) - 1), -1):
        (tmp_path / NAME).write_bytes(whole[:length])
        assert [found.key for found in Index(tmp_path).found] == [0, 1]
    index = opened(tmp_path)
    index.put(entry(7, 7))
    index.close()
    assert [found.key for found in Index(tmp_path).found] == [0, 1, 7]


def test_any_changed_byte_costs_no_more_than_its_line_and_the_next(tmp_path: Path) -> None:
    whole = filled(tmp_path, 3)
    lines = whole.splitlines(keepends=True)
    for at in range(len(lines[0]) - 1, len(lines[0] + lines[1]) + 20):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        (tmp_path / NAME).write_bytes(damaged)
        hit = 0 if at < len(lines[0]) else 1 if at < len(lines[0] + lines[1]) else 2
        found = Index(tmp_path).found
        assert all(one == entry(one.key, one.key) for one in found)
        keys = {one.key for one in found}
        assert hit not in keys
        assert keys >= {0, 1, 2} - {hit, hit + 1}


def test_a_rewrite_that_was_interrupted_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, 3)
    index = Index(tmp_path)

    def refuse(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match="Input/output"):
            index.keep_only(index.found[:1])
    assert {path.name for path in tmp_path.iterdir()} == {NAME}
    (tmp_path / "index.new").write_bytes(b"half of a rewr")
    assert [found.key for found in Index(tmp_path).found] == [0, 1, 2]
    assert {path.name for path in tmp_path.iterdir()} == {NAME}


def test_voided_lines_are_cleared_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octavo.memory.disk.index._DEAD_BYTES", 2000)
    index = opened(tmp_path)
    index.put(entry(-1, 999))
    most = 0
    for n in range(200):
        index.put(entry(n, n))
        index.tidy()
        if n:
            index.void((4096, n - 1))
        most = max(most, (tmp_path / NAME).stat().st_size)
    index.close()
    assert most < 6000
    assert [found.key for found in Index(tmp_path).found] == [-1, 199]
