"""Weights that packages carry: found, checked once, joined from parts; every fault."""

from __future__ import annotations

import hashlib
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from octavo.errors import BrokenFile, MissingDependency, OutputError, SourceNotFound
from octavo.models import hub, packaged
from octavo.models.packaged import PACKAGED, Packaged, PackagedFile, missing_packages, opened


@pytest.fixture
def carried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Packaged:
    """Two packages, each with a part of ``model.bin``."""
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path / "home"))
    files = []
    for number, content in enumerate((b"first half, ", b"second half"), 1):
        package = tmp_path / "site" / f"octavo_test_part{number}"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "part").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        files.append(PackagedFile(package.name, "part", digest, "model.bin"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    for name in [name for name in sys.modules if name.startswith("octavo_test_part")]:
        monkeypatch.delitem(sys.modules, name)
    model = Packaged(
        "test-model", ("owner/test",), tuple(files), None, "pip install it", "MIT", "here", "tests"
    )
    monkeypatch.setattr(packaged, "PACKAGED", (model,))
    monkeypatch.setattr(hub, "PACKAGED", (model,))
    return model


def _part(tmp_path: Path, number: int = 1) -> Path:
    return tmp_path / "site" / f"octavo_test_part{number}" / "part"


def test_names_and_aliases() -> None:
    found = packaged.packaged("openai/Whisper-base")
    assert found is not None
    assert found.name == "whisper-base"
    assert packaged.packaged("none") is None
    assert len({model.name for model in PACKAGED}) == len(PACKAGED)
    for model in PACKAGED:
        assert model.licence
        assert model.origin
        assert all(len(file.sha256) == 64 for file in model.files)


def test_parts_are_joined_once(carried: Packaged, tmp_path: Path) -> None:
    folder = opened(carried)
    whole = folder / "model.bin"
    assert whole.read_bytes() == b"first half, second half"
    made = whole.stat().st_mtime_ns
    assert opened(carried) == folder
    assert whole.stat().st_mtime_ns == made
    assert [path.name for path in folder.iterdir()] == ["model.bin"]


def test_a_changed_part_leaves_nothing_behind(carried: Packaged, tmp_path: Path) -> None:
    _part(tmp_path, 2).write_bytes(b"second hulf")
    with pytest.raises(BrokenFile, match="SHA-256"):
        opened(carried)
    assert list((tmp_path / "home" / "models" / "test-model").iterdir()) == []


def test_a_package_that_is_not_installed(carried: Packaged, tmp_path: Path) -> None:
    shutil.rmtree(_part(tmp_path, 2).parent)
    assert missing_packages(carried) == ("octavo_test_part2",)
    with pytest.raises(MissingDependency) as caught:
        opened(carried)
    assert caught.value.next_step == "pip install it"
    with pytest.raises(SourceNotFound, match="no such model") as nowhere:
        hub.resolve("owner/test")
    assert "pip install it" in str(nowhere.value.next_step)


def test_a_cache_that_cannot_be_written(carried: Packaged, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(OutputError, match="cannot be written"):
        opened(carried)


def test_whole_files_are_checked_once_for_each_change(
    carried: Packaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = replace(carried, opens="part", files=carried.files[:1])
    checks: list[str] = []
    plain = packaged._check

    def counted(model: Packaged, file: PackagedFile, digest: str) -> None:
        checks.append(file.path)
        plain(model, file, digest)

    monkeypatch.setattr(packaged, "_check", counted)
    assert opened(whole) == _part(tmp_path)
    assert opened(whole) == _part(tmp_path)
    assert len(checks) == 1
    _part(tmp_path).write_bytes(b"First half, ")
    with pytest.raises(BrokenFile, match="SHA-256"):
        opened(whole)
    _part(tmp_path).unlink()
    with pytest.raises(BrokenFile, match="cannot be read"):
        opened(whole)


def test_a_note_that_cannot_be_kept_only_costs_time(carried: Packaged, tmp_path: Path) -> None:
    whole = replace(carried, opens="part", files=carried.files[:1])
    (tmp_path / "home").write_text("a file")
    assert opened(whole) == _part(tmp_path)


@pytest.mark.parametrize("name", ["whisper-base", "all-minilm-l6-v2", "smollm2-135m-instruct"])
def test_the_real_ones(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = packaged.packaged(name)
    assert model is not None
    if missing_packages(model):
        pytest.skip(f"not installed: {model.install}")
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path))
    place = opened(model)
    assert place.exists()
    if name == "whisper-base":
        assert (place / "model.bin").stat().st_size == 145_217_532


def test_what_is_no_model(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("x")
    with pytest.raises(SourceNotFound, match="not a model file"):
        hub.resolve(str(file))
    with pytest.raises(SourceNotFound, match=r"config\.json"):
        hub.resolve(str(tmp_path))
    with pytest.raises(SourceNotFound, match="no such model"):
        hub.resolve("nothing-like-it")
