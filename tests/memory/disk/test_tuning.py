"""What is kept of a disk's tuning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from octavo.errors import TierError
from octavo.memory.disk import Trial, Tuning, load_tuning, save_tuning

ONE = Tuning(1 << 20, 8, True, 1e9, 2e9, "sda1", None, (Trial(1 << 20, 8, 1e9, 2e9),))
TWO = Tuning(4 << 20, 1, False, 3e9, 4e9, None, "a note", ())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "octavo" / "disks.json"


def test_it_is_kept_by_disk(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    assert load_tuning(tmp_path) is None
    assert save_tuning(ONE, tmp_path) == cache
    assert load_tuning(inner) == ONE
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("octavo.memory.disk.tuning._disk_of", lambda _: "9:9 /other")
        assert load_tuning(tmp_path) is None
        save_tuning(TWO, tmp_path)
        assert load_tuning(tmp_path) == TWO
    assert load_tuning(tmp_path) == ONE
    assert [path.name for path in cache.parent.iterdir()] == ["disks.json"]


def test_it_is_in_the_home_folder_where_nothing_else_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert save_tuning(ONE, tmp_path) == tmp_path / "home/.cache/octavo/disks.json"


@pytest.mark.parametrize("text", ["", "[]", "nonsense", '{"', "\x00", "3"])
def test_a_damaged_file_is_as_if_it_were_not_there(tmp_path: Path, cache: Path, text: str) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text(text)
    assert load_tuning(tmp_path) is None
    save_tuning(ONE, tmp_path)
    assert load_tuning(tmp_path) == ONE


@pytest.mark.parametrize(
    "change",
    [
        {"block": 5000},
        {"block": "4 MiB"},
        {"block": 4194304.0},
        {"depth": 0},
        {"depth": 33},
        {"measured": [{}]},
        {"measured": None},
        {"read_bytes_per_s": None},
    ],
)
def test_a_damaged_entry_is_as_if_it_were_not_there(
    tmp_path: Path, cache: Path, change: dict[str, object]
) -> None:
    save_tuning(ONE, tmp_path)
    ((disk, entry),) = json.loads(cache.read_text()).items()
    cache.write_text(json.dumps({disk: {**entry, **change}}))
    assert load_tuning(tmp_path) is None
    cache.write_text(json.dumps({disk: [entry]}))
    assert load_tuning(tmp_path) is None
    cache.write_text(json.dumps({disk: {k: v for k, v in entry.items() if k != "block"}}))
    assert load_tuning(tmp_path) is None


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(TierError, match="cannot be kept") as caught:
        save_tuning(ONE, tmp_path)
    assert "XDG_CACHE_HOME" in (caught.value.next_step or "")
    assert load_tuning(tmp_path) is None


def test_a_folder_that_is_not_there_yet_is_on_its_parents_disk(tmp_path: Path) -> None:
    save_tuning(ONE, tmp_path)
    assert load_tuning(tmp_path / "not" / "yet") == ONE
