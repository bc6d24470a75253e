"""Names, folders and listings that come from strangers."""

from __future__ import annotations

import json
import struct
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("huggingface_hub")

from octavo.cli.pull import _show
from octavo.errors import (
    BrokenFile,
    ConfigError,
    InputError,
    OctavoError,
    OutputError,
    SourceNotFound,
    UnsupportedFormat,
)
from octavo.models import checkpoint as checkpoints
from octavo.models import packaged as packages
from octavo.models.checkpoint import Checkpoint
from octavo.models.download import (
    NOTE,
    RemoteFile,
    RemoteModel,
    _part,
    folder_of,
    look,
    note_of,
    pull,
)
from octavo.models.hub import resolve
from octavo.models.packaged import Packaged, PackagedFile, opened
from tests.models.hub_server import Hub
from tests.models.test_download import NAME, hub  # noqa: F401

OUTSIDE = ("../x.json", "a/../../x.json", "{abs}/x.json", "..\\x.json", "C:\\x.json", "")


def _files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_listed_name_leads_out_of_the_folder(
    hub: Hub,  # noqa: F811
    tmp_path: Path,
    name: str,
) -> None:
    name = name.format(abs=tmp_path)
    model = look(NAME)
    listed = RemoteModel(
        NAME, model.revision, None, False, (*model.files, RemoteFile(name, 2, None, None))
    )
    with pytest.raises(UnsupportedFormat, match="outside the model's folder"):
        pull(listed)
    if name:
        hub.files[NAME][name] = b"{}"
        with pytest.raises(UnsupportedFormat, match="outside the model's folder"):
            look(NAME)
    assert _files(tmp_path) == set()


def test_a_listed_note_does_not_end_a_pull(hub: Hub) -> None:  # noqa: F811
    hub.files[NAME] = {NOTE: b'{"name": "other"}', **hub.files[NAME]}
    hub.corrupt = {"tokenizer.json"}
    with pytest.raises(OctavoError):
        pull(look(NAME))
    assert note_of(folder_of(NAME)) is None


def test_a_pull_of_another_revision_that_stops_leaves_no_mixture(hub: Hub) -> None:  # noqa: F811
    hub.files[NAME]["model.safetensors.index.json"] = b'{"weight_map": {}}'
    folder = pull(look(NAME))
    del hub.files[NAME]["model.safetensors.index.json"]
    hub.files[NAME]["model.safetensors"] += b"more"
    hub.corrupt = {"model.safetensors"}
    model = look(NAME)
    newer = RemoteModel(NAME, "f" * 40, model.licence, False, model.files)
    with pytest.raises(OctavoError):
        pull(newer)
    assert not (folder / "model.safetensors.index.json").exists()
    with pytest.raises(SourceNotFound, match="only fetched in part"):
        resolve(NAME)
    hub.corrupt = set()
    pull(newer)
    assert (note_of(folder) or {})["revision"] == "f" * 40


def test_a_disk_that_fills_up(hub: Hub) -> None:  # noqa: F811
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    model = look(NAME)
    file = next(file for file in model.files if file.name == "model.safetensors")
    part = _part(folder_of(NAME), file)
    part.parent.mkdir(parents=True)
    part.symlink_to("/dev/full")
    with pytest.raises(OutputError, match="No space left"):
        pull(model)
    assert note_of(folder_of(NAME)) is None


def test_words_of_a_hub_are_shown_without_their_escapes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    _show(RemoteModel("o/m", "0" * 40, "mit\x07\nfree", False, ()), False)
    shown = capsys.readouterr().out
    assert "\x07" not in shown
    assert len(shown.splitlines()) == 3


def test_two_that_pull_at_once_take_turns(hub: Hub) -> None:  # noqa: F811
    model = look(NAME)
    begun = threading.Barrier(3)
    ended: list[Path | BaseException] = []

    def fetch() -> None:
        begun.wait(20)
        try:
            ended.append(pull(model))
        except BaseException as error:  # noqa: BLE001
            ended.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert ended == [folder_of(NAME)] * 3
    assert [name for name, _ in hub.asked].count("model.safetensors") == 1


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("", ConfigError),
        ("  ", ConfigError),
        ("~no-such-user/x", SourceNotFound),
        ("a" * 5000, InputError),
        ("owner/..", SourceNotFound),
        ("owner/" + "b" * 200, SourceNotFound),
        ("\udcff/x", SourceNotFound),
    ],
)
def test_names_that_are_none(name: str, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        resolve(name)
    assert "octavo pull owner/" not in str(caught.value)


def _with(folder: Path, name: str, content: bytes) -> Checkpoint:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_bytes(b"{}")
    (folder / name).write_bytes(content)
    return Checkpoint.at(folder)


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000])
def test_a_configuration_that_is_nested_without_end(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BrokenFile, match="not JSON"):
        _ = _with(tmp_path, "config.json", content).config


def test_a_configuration_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "LONGEST_JSON", 20)
    with pytest.raises(BrokenFile, match="too long"):
        _ = _with(tmp_path, "config.json", b"{" + b" " * 30 + b"}").config


@pytest.mark.parametrize(
    "header",
    [
        '{"a":' * 50_000,
        '{"a": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 4]}}',
        '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0.0, 4.0]}}',
        '{"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}',
        json.dumps({"a": {"dtype": "F32", "shape": [1] * 65, "data_offsets": [0, 4]}}),
    ],
)
def test_headers_that_no_library_writes(tmp_path: Path, header: str) -> None:
    content = struct.pack("<Q", len(header)) + header.encode() + bytes(8)
    with pytest.raises(BrokenFile, match="damaged safetensors header"):
        _ = _with(tmp_path, "model.safetensors", content).tensors


def test_an_index_does_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    text = '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}'
    content = struct.pack("<Q", len(text)) + text.encode() + bytes(4)
    (tmp_path / "secret.safetensors").write_bytes(content)
    for place in ("../secret.safetensors", str(tmp_path / "secret.safetensors")):
        index = json.dumps({"weight_map": {"a": place}}).encode()
        made = _with(tmp_path / "m", "model.safetensors.index.json", index)
        with pytest.raises(SourceNotFound, match="secret"):
            _ = made.tensors


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _with(tmp_path, "config.json", b"{}")

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match="Permission denied"):
        _ = made.config


def test_a_package_that_lost_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(packages, "_folder", lambda _name: tmp_path)
    file = PackagedFile("some", "lost.bin", "0" * 64, "model.bin")
    model = Packaged("m", (), (file,), None, "pip install m", "MIT", "here", "tests")
    with pytest.raises(BrokenFile, match="cannot be read") as caught:
        opened(model)
    assert caught.value.next_step == "pip install m --force-reinstall"


def test_a_note_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / "verified" / "m.json"
    note.mkdir(parents=True)  # so that the finished note cannot take its place
    packages._write_note(note, "{}")
    assert _files(tmp_path) == set()
