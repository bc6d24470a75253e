"""``octavo memory``: traces played, and a disk measured by a stand-in."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import octavo.cli._waiting
from octavo.cli import _replayed
from octavo.memory.disk.tuning import Trial, Tuning, load_tuning
from octavo.memory.policies import ONLINE
from octavo.memory.trace import Access, write_trace

from .conftest import Program


@pytest.fixture
def scan(tmp_path: Path) -> str:
    """Ten rounds over eight layers of 1 MB."""
    accesses = [Access("get", f"layer.{i}", 10**6) for _ in range(10) for i in range(8)]
    write_trace(tmp_path / "scan.jsonl", accesses)
    return "scan.jsonl"


def rows(out: str) -> dict[str, list[str]]:
    """Cells of a table by policy; of the last one where there are several."""
    return {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}


def test_help_names_its_commands(program: Program) -> None:
    for arguments in [("memory",), ("memory", "--help"), ("memory", "-h")]:
        ended = program(*arguments)
        assert ended.code == 0
        assert {"replay", "tune"} <= set(ended.out.split())


def test_a_scan_is_played_with_every_policy(program: Program, scan: str) -> None:
    ended = program("memory", "replay", scan, "--capacity", "4MB")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("scan.jsonl: 80 gets of 8 values, 8 MB together\n")
    assert "\n4 MB, 50% of all values\n" in ended.out
    table = rows(ended.out)
    assert {*ONLINE, "belady"} <= set(table)
    # 4 of 8 hit in each of nine rounds, and 44 of 80 are missed at best.
    assert table["pinned"][1:] == ["36", "45.0", "44", "MB", "44", "0", "+0.0%", "best"]
    assert table["lru"][1:] == ["0", "0.0", "80", "MB", "80", "76", "+81.8%"]
    assert table["belady"][1:4] == ["36", "45.0", "44"]


def test_the_best_comes_first_and_belady_last(program: Program, scan: str) -> None:
    lines = program("memory", "replay", scan, "--capacity", "4MB").out.splitlines()
    names = [line.split()[0] for line in lines if line.strip()]
    start = names.index("policy")
    assert names[start + 1] == "pinned"
    assert names[start + 1 + len(ONLINE)] == "belady"


def test_without_a_capacity_it_plays_three_shares(program: Program, scan: str) -> None:
    out = program("memory", "replay", scan).out
    for heading in ("2 MB, 25%", "4 MB, 50%", "6 MB, 75%"):
        assert heading in out


def test_the_output_fits_a_terminal(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    accesses = [
        Access("get", f"{i % 1009}", 1_234_567 * (i % 7), 12.34 * (i % 5)) for i in range(3000)
    ]
    write_trace(tmp_path / "wide.jsonl", accesses)
    out = program("memory", "replay", "wide.jsonl").out
    assert max(len(line) for line in out.splitlines()) <= 80
    assert "…" not in out


def test_json_for_machines(program: Program, scan: str) -> None:
    ended = program("memory", "replay", scan, "--json", "--capacity", "2MB", "--capacity", "62.5 %")
    facts = json.loads(ended.out)
    assert (facts["trace"], facts["gets"], facts["puts"], facts["keys"]) == (scan, 80, 0, 8)
    assert facts["distinct_bytes"] == 8 * 10**6
    assert [played["capacity"] for played in facts["capacities"]] == [2 * 10**6, 5 * 10**6]
    for played in facts["capacities"]:
        found = {outcome["name"]: outcome for outcome in played["policies"]}
        assert set(found) == set(ONLINE)
        assert played["best"] == played["policies"][0]["name"]
        assert found["lru"]["missed_bytes"] == 80 * 10**6
        expected = 80 / (80 - 9 * played["capacity"] // 10**6) - 1
        assert found["lru"]["regret"]["cost_ratio"] == pytest.approx(expected)
        assert played["belady"]["regret"]["cost"] == 0


def test_costs_of_the_trace_are_shown_as_seconds(program: Program, tmp_path: Path) -> None:
    accesses = [Access("get", key, 10, 0.5) for key in "abab"]
    write_trace(tmp_path / "t.jsonl", accesses)
    out = program("memory", "replay", "t.jsonl", "--capacity", "10").out
    assert "knows no costs" not in out
    assert "1.50 s" in out
    assert "negative" not in out  # one size, one cost: Belady is a bound


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "error: the trace is empty, broken.jsonl; record a run"),
        ("{}\n", "error: line 1 is not an access, broken.jsonl; a line looks like"),
        ('{"op":"put","key":"a","nbytes":1}\n', "error: nothing is read in this trace"),
    ],
)
def test_a_broken_trace_is_an_error(text: str, what: str, program: Program, tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text(text)
    ended = program("memory", "replay", "broken.jsonl")
    assert ended.code == 2
    assert ended.err.startswith(what)
    assert ended.out == ""


def test_a_missing_trace_is_an_error(program: Program) -> None:
    ended = program("memory", "replay", "none.jsonl", "--json")
    assert ended.code == 2
    assert json.loads(ended.out)["error"] == "SourceNotFound"
    assert ended.err == "error: there is no such trace, none.jsonl; check the path\n"


@pytest.mark.parametrize("size", ["0", "0%", "-5%", "many", "x%", "nan%", "inf%"])
def test_a_wrong_capacity_is_an_error(size: str, program: Program, scan: str) -> None:
    ended = program("memory", "replay", scan, "--capacity", size)
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert "--capacity" in ended.err
    assert "unexpected" not in ended.err


def test_it_says_what_it_does_when_that_takes_long(
    program: Program, scan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(octavo.cli._waiting, "PATIENCE_S", 0.0)
    ended = program("memory", "replay", scan, "--capacity", "4MB", "--json")
    assert ended.err.splitlines() == [f"{name} with 4 MB" for name in (*ONLINE, "belady")]
    json.loads(ended.out)


def test_ctrl_c_ends_it(program: Program, scan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_replayed, "play", interrupted)
    ended = program("memory", "replay", scan)
    assert (ended.code, ended.out) == (130, "")


def test_replay_needs_no_torch(scan: str, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from octavo.cli.main import main\n"
        f"main(['memory', 'replay', {scan!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert "belady" in done.stdout


class Tuner:
    """Stands in for ``octavo.memory.disk.tune``: a disk that was measured."""

    def __init__(self) -> None:
        trials = (Trial(1 << 18, 1, 0.5e9, 0.4e9), Trial(4 << 20, 16, 2.5e9, 1.5e9))
        self.tuning = Tuning(4 << 20, 16, True, 2.5e9, 1.5e9, "nvme0n1", None, trials)
        self.asked: list[tuple[Path, int]] = []
        self.interrupted = False

    def tune(
        self, folder: Path, *, total_bytes: int, on_progress: Callable[[str], None] | None = None
    ) -> Tuning:
        if self.interrupted:
            raise KeyboardInterrupt
        self.asked.append((folder, total_bytes))
        if on_progress is not None:
            on_progress("4 MiB blocks, 16 at a time")
        return self.tuning


@pytest.fixture
def tuner(monkeypatch: pytest.MonkeyPatch) -> Tuner:
    stand_in = Tuner()
    monkeypatch.setenv("XDG_CACHE_HOME", "kept")
    monkeypatch.setitem(sys.modules, "octavo.memory.disk.tune", stand_in)
    return stand_in


def test_a_disk_is_measured_and_the_best_is_marked(program: Program, tuner: Tuner) -> None:
    ended = program("memory", "tune", ".", "--size", "64MiB")
    assert (ended.code, ended.err) == (0, "")
    assert tuner.asked == [(Path(), 64 << 20)]
    assert ended.out.startswith(". on nvme0n1, direct I/O\n")
    table = [line.split() for line in ended.out.splitlines()]
    assert ["256", "KiB", "1", "500", "MB/s", "400", "MB/s"] in table
    assert ["4", "MiB", "16", "2.5", "GB/s", "1.5", "GB/s", "best"] in table
    assert ended.out.endswith("Kept in kept/octavo/disks.json\n")
    assert load_tuning(Path()) == tuner.tuning


def test_a_disk_without_direct_reads_says_so(program: Program, tuner: Tuner) -> None:
    tuner.tuning = replace(tuner.tuning, direct=False, device=None, note="tmpfs has no O_DIRECT")
    out = program("memory", "tune", ".").out
    assert out.startswith("., through the page cache\ntmpfs has no O_DIRECT\n")
    assert tuner.asked == [(Path(), 256 << 20)]


def test_a_measured_disk_as_json(program: Program, tuner: Tuner) -> None:
    facts = json.loads(program("memory", "tune", ".", "--json").out)
    assert (facts["block"], facts["depth"], facts["direct"]) == (4 << 20, 16, True)
    assert facts["measured"][0]["read_bytes_per_s"] == 0.5e9
    assert (facts["folder"], facts["kept_in"]) == (".", "kept/octavo/disks.json")


def test_tune_says_what_it_does_when_that_takes_long(
    program: Program, tuner: Tuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(octavo.cli._waiting, "PATIENCE_S", 0.0)
    assert program("memory", "tune", ".").err == "4 MiB blocks, 16 at a time\n"


def test_ctrl_c_ends_tuning(program: Program, tuner: Tuner) -> None:
    tuner.interrupted = True
    ended = program("memory", "tune", ".")
    assert (ended.code, ended.out) == (130, "")


def test_a_missing_folder_is_an_error(program: Program, tuner: Tuner) -> None:
    ended = program("memory", "tune", "nowhere")
    assert ended.code == 2
    assert ended.err.startswith("error: there is no such folder, nowhere; create it")
    assert tuner.asked == []


@pytest.mark.parametrize("size", ["much", "8MB", "0"])
def test_a_wrong_size_is_an_error(size: str, program: Program, tuner: Tuner) -> None:
    ended = program("memory", "tune", ".", "--size", size)
    assert ended.code == 2
    assert "--size" in ended.err
    assert tuner.asked == []


class Lacking:
    """A module that cannot be loaded for want of ``library``."""

    def __init__(self, library: str) -> None:
        self.library = library

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ModuleNotFoundError(f"No module named {self.library!r}", name=self.library)


def test_without_torch_it_names_the_command(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "octavo.memory.disk.tune", Lacking("torch"))
    ended = program("memory", "tune", ".")
    assert ended.code == 2
    assert ended.err == "error: torch is not installed; pip install 'octavo[memory]'\n"


def test_without_a_library_of_the_policies_it_names_the_command(
    program: Program, scan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "octavo.cli._replayed", raising=False)
    monkeypatch.delattr(octavo.cli, "_replayed", raising=False)
    monkeypatch.setitem(sys.modules, "octavo.memory.replay", Lacking("xxhash"))
    ended = program("memory", "replay", scan)
    assert ended.code == 2
    assert ended.err == "error: xxhash is not installed; pip install 'octavo[memory]'\n"


def test_a_fault_of_the_package_is_not_taken_for_a_missing_library(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "octavo.memory.disk.tune", Lacking("octavo.nothing"))
    assert "unexpected ModuleNotFoundError" in program("memory", "tune", ".").err


def test_on_a_terminal_one_line_changes_and_goes(
    program: Program, scan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(octavo.cli._waiting, "PATIENCE_S", 0.0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    ended = program("memory", "replay", scan, "--json")
    assert "belady with 6 MB" in ended.err
    assert ended.err.rindex("\x1b[?25h") > ended.err.rindex("\x1b[?25l")  # the cursor is back
    json.loads(ended.out)
