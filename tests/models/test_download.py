"""Fetching from a hub on this machine: what is shown, resume, checksums, and every fault."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

hub_library = pytest.importorskip("huggingface_hub")

from octavo.errors import (  # noqa: E402
    BrokenFile,
    DownloadError,
    OutputError,
    SourceNotFound,
    UnsupportedFormat,
)
from octavo.models import download  # noqa: E402
from octavo.models.checkpoint import Checkpoint  # noqa: E402
from octavo.models.download import NOTE, folder_of, look, note_of, pull  # noqa: E402
from octavo.models.hub import installed, resolve  # noqa: E402
from octavo.models.remote import RemoteFiles  # noqa: E402
from tests.models.hub_server import COMMIT, Hub, serving  # noqa: E402

NAME = "owner/small"


def _safetensors(nbytes: int) -> bytes:
    header = json.dumps(
        {"w": {"dtype": "F32", "shape": [nbytes // 4], "data_offsets": [0, nbytes]}}
    ).encode()
    return struct.pack("<Q", len(header)) + header + os.urandom(nbytes)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    from huggingface_hub import constants

    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path / "home"))
    found = Hub(
        files={
            NAME: {
                "config.json": b'{"model_type": "clip"}',
                "model.safetensors": _safetensors(400_000),
                "tokenizer.json": b"{}",
                "pytorch_model.bin": b"pickle",
                "onnx/model.onnx": b"onnx",
            }
        },
        large={"model.safetensors"},
    )
    with serving(found):
        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        template = found.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
        monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _s: None)
        yield found


def _wanted(hub: Hub) -> dict[str, bytes]:
    names = ("config.json", "model.safetensors", "tokenizer.json")
    return {name: hub.files[NAME][name] for name in names}


def _there(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != NOTE}


def test_size_and_licence_before_anything_is_fetched(hub: Hub) -> None:
    model = look(NAME)
    assert (model.revision, model.licence) == (COMMIT, "apache-2.0")
    assert {file.name: file.nbytes for file in model.files} == {
        name: len(content) for name, content in _wanted(hub).items()
    }
    assert hub.asked == []


def test_all_files_and_no_pickle(hub: Hub) -> None:
    told: list[Any] = []
    folder = pull(look(NAME), told.append)
    assert folder == folder_of(NAME)
    assert _there(folder) == _wanted(hub)
    note = note_of(folder)
    assert note is not None
    assert (note["revision"], note["licence"]) == (COMMIT, "apache-2.0")
    assert told[-1].done == told[-1].nbytes == sum(map(len, _wanted(hub).values()))
    assert [entry.done for entry in told] == sorted(entry.done for entry in told)


def test_a_second_pull_fetches_nothing(hub: Hub) -> None:
    pull(look(NAME))
    hub.asked.clear()
    pull(look(NAME))
    assert hub.asked == []


def test_a_stopped_pull_goes_on_where_it_was(hub: Hub) -> None:
    class Stop(Exception):
        pass

    def stop(progress: Any) -> None:
        if progress.file == "model.safetensors" and progress.file_done > 0:
            raise Stop

    hub.cut_after = []
    model = look(NAME)
    content = hub.files[NAME]["model.safetensors"]
    folder = folder_of(NAME)
    part = download._part(folder, next(f for f in model.files if f.name == "model.safetensors"))
    with pytest.raises(Stop):
        pull(model, stop)
    assert note_of(folder) is None
    part.write_bytes(content[:123_456])  # as a killed process leaves it
    (folder / "config.json").write_bytes(hub.files[NAME]["config.json"])
    with pytest.raises(SourceNotFound, match="only fetched in part"):
        resolve(NAME)
    hub.asked.clear()
    pull(model)
    assert ("model.safetensors", "bytes=123456-") in hub.asked
    assert _there(folder) == _wanted(hub)


def test_a_connection_that_breaks_goes_on(hub: Hub) -> None:
    hub.cut_after = [7, 22, 150_000, 10]
    assert _there(pull(look(NAME))) == _wanted(hub)
    assert any(wanted is not None for _, wanted in hub.asked)


def test_a_connection_that_breaks_for_good_keeps_what_came(hub: Hub) -> None:
    hub.cut_after = [100_000, *([0] * 50)]
    del hub.files[NAME]["config.json"], hub.files[NAME]["tokenizer.json"]
    model = look(NAME)
    with pytest.raises(DownloadError, match="hub cannot be reached"):
        pull(model)
    (part,) = folder_of(NAME).glob("*.part")
    assert part.read_bytes() == hub.files[NAME]["model.safetensors"][: part.stat().st_size]
    assert part.stat().st_size == 100_000  # chunks of 1000 bytes here


def test_a_server_without_ranges_begins_anew(hub: Hub) -> None:
    hub.ranges = False
    model = look(NAME)
    file = next(f for f in model.files if f.name == "model.safetensors")
    part = download._part(folder_of(NAME), file)
    part.parent.mkdir(parents=True)
    part.write_bytes(hub.files[NAME][file.name][:5000])
    assert _there(pull(model)) == _wanted(hub)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_changed_bytes_are_refused_and_removed(hub: Hub, name: str) -> None:
    hub.corrupt = {name}
    with pytest.raises(DownloadError, match=name):
        pull(look(NAME))
    folder = folder_of(NAME)
    assert not (folder / name).exists()
    assert not list(folder.glob("*.part"))
    assert note_of(folder) is None
    hub.corrupt = set()
    assert _there(pull(look(NAME))) == _wanted(hub)


def test_a_file_that_changed_on_disk_is_fetched_again(hub: Hub) -> None:
    folder = pull(look(NAME))
    path = folder / "model.safetensors"
    path.write_bytes(b"\0" * path.stat().st_size)
    assert _there(pull(look(NAME))) == _wanted(hub)


def test_no_room(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 50_000})
    monkeypatch.setattr("octavo.models.download.shutil.disk_usage", lambda _p: usage)
    with pytest.raises(OutputError, match=r"to fetch, .* free"):
        pull(look(NAME))
    assert hub.asked == []


def test_a_folder_that_cannot_be_written(hub: Hub, tmp_path: Path) -> None:
    blocked = tmp_path / "home" / "models"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file")
    with pytest.raises(OutputError, match="cannot be written"):
        pull(look(NAME))


def test_a_model_that_is_not_there(hub: Hub) -> None:
    with pytest.raises(SourceNotFound, match="no such model or revision"):
        look("owner/none")
    with pytest.raises(SourceNotFound, match="no such model or revision"):
        look(NAME, "v9")


def test_only_pickle(hub: Hub) -> None:
    del hub.files[NAME]["model.safetensors"]
    with pytest.raises(UnsupportedFormat, match=r"no \.safetensors"):
        look(NAME)


def test_a_gated_model(hub: Hub) -> None:
    hub.gated = True
    with pytest.raises(DownloadError, match="agree") as caught:
        pull(look(NAME))
    assert "HF_TOKEN" in str(caught.value.next_step)


def test_a_hub_that_is_down(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(DownloadError, match="cannot be reached"):
        look(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="HF_HUB_OFFLINE"):
        look(NAME)


def test_a_hub_that_refuses(hub: Hub) -> None:
    hub.status = 418
    with pytest.raises(DownloadError, match="refused"):
        look(NAME)


def test_headers_without_a_download(hub: Hub) -> None:
    checkpoint = resolve(NAME, headers_only=True)
    assert checkpoint.folder is None
    assert checkpoint.model_type == "clip"
    assert checkpoint.tensors["w"].nbytes == 400_000
    ranges = [wanted for name, wanted in hub.asked if name == "model.safetensors"]
    assert all(wanted is not None for wanted in ranges)
    hub.ranges = False
    again = Checkpoint(RemoteFiles(look(NAME)), NAME)
    assert again.tensors == checkpoint.tensors
    assert not folder_of(NAME).exists()


def test_a_remote_file_that_is_not_listed(hub: Hub) -> None:
    with pytest.raises(SourceNotFound):
        RemoteFiles(look(NAME)).read("none.json")


def test_a_pulled_model_is_found_by_name(hub: Hub) -> None:
    with pytest.raises(SourceNotFound, match="no such model") as caught:
        resolve(NAME)
    assert caught.value.next_step == f"octavo pull {NAME}"
    pull(look(NAME))
    assert resolve(NAME).folder == folder_of(NAME)
    assert any(found.name == NAME and found.kind == "pulled" for found in installed())


def test_a_damaged_note(hub: Hub) -> None:
    folder = pull(look(NAME))
    (folder / NOTE).write_text("{")
    with pytest.raises(BrokenFile, match="note"):
        resolve(NAME)
    assert all(found.kind != "pulled" for found in installed())
