"""``octavo platforms``: the table at two widths, one family, JSON, and wrong names."""

from __future__ import annotations

import json

import pytest

from octavo.hardware import accelerators
from octavo.hardware.accelerators import Accelerator, DeviceKind
from octavo.hardware.platforms import Platform, cell, family_names

from .conftest import Program

CARD = Accelerator(DeviceKind.CUDA, "Drawn 1080", 11 * 10**9, None, (6, 1), None, ("no bfloat16",))


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerators, "accelerators", lambda: (CARD,))


@pytest.fixture(autouse=True)
def none_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerators, "accelerators", lambda: ())


@pytest.mark.parametrize("columns", ["80", "120"])
def test_the_table_fits_and_names_everything(
    columns: str, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    ended = program("platforms")
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert max(map(len, lines)) <= int(columns)
    rows = {line.split()[0]: line.split()[1:] for line in lines[1 : 1 + len(family_names())]}
    short = {} if columns == "120" else {"medium": "med", "limited": "lim", "none": "-"}
    for name in family_names():
        levels = [cell(name, platform).level.value for platform in Platform]
        assert rows[name] == [short.get(level, level) for level in levels]


def test_reasons_stand_below(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    out = program("platforms").out
    for name in family_names():
        for platform in Platform:
            assert (cell(name, platform).reason or "") in out
    assert "dots.ocr: an A4 page" in out
    assert "own tests run on cpu only" in out


def test_what_is_here_is_marked(program: Program) -> None:
    header = program("platforms").out.splitlines()[0]
    assert [word for word in header.split() if word.endswith("●")] == ["cpu●"]


def test_a_card_that_is_here(program: Program, card: None) -> None:
    out = program("platforms").out
    assert "cuda●" in out.splitlines()[0]
    assert "cuda: Drawn 1080" in out
    assert "no bfloat16" in out


def test_one_family_with_its_settings(program: Program) -> None:
    out = program("platforms", "gemma3n").out
    assert out.startswith("gemma3n\n")
    cpu = next(line for line in out.splitlines() if line.startswith("cpu"))
    assert "bf16, language int8" in cpu
    assert "4096" in cpu
    assert "whisper" not in out


def test_json_for_machines(program: Program, card: None) -> None:
    facts = json.loads(program("platforms", "--json").out)
    assert facts["detected"] == ["cpu", "cuda"]
    assert facts["devices"][0]["limits"] == ["no bfloat16"]
    cells = {(one["family"], one["platform"]): one for one in facts["cells"]}
    assert len(cells) == len(family_names()) * len(Platform)
    assert cells["qwen3-vl", "cuda"]["detected"]
    assert not cells["qwen3-vl", "mps"]["detected"]
    assert cells["qwen3-vl", "cpu"]["precisions"] == {"language": "int8", "vision": "bf16"}
    one = json.loads(program("platforms", "clip", "--json").out)
    assert {entry["family"] for entry in one["cells"]} == {"clip"}


def test_a_family_that_is_not_there(program: Program) -> None:
    ended = program("platforms", "qwen3vl")
    assert ended.code != 0
    assert ended.err == "error: no family 'qwen3vl'; did you mean qwen3-vl?\n"
