"""Headers of safetensors files, also those that lie."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.errors import BrokenFile, OctavoError, SourceNotFound
from octavo.models.checkpoint import CONFIG, INDEX, Checkpoint

save_file = pytest.importorskip("safetensors.numpy").save_file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / CONFIG).write_text('{"model_type": "made-up"}')
    return tmp_path


def _write(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def _entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]} | changes


def test_tensors_lie_where_the_library_put_them(folder: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "a.weight": rng.standard_normal((4, 5)).astype(np.float32),
        "b": rng.integers(0, 9, (3,)).astype(np.int64),
        "c.scalar": np.array(2.5, np.float16),
        "d.empty": np.zeros((0, 7), np.float32),
    }
    save_file(arrays, folder / "model.safetensors", metadata={"format": "np"})
    checkpoint = Checkpoint.at(folder)
    assert set(checkpoint.tensors) == set(arrays)
    content = (folder / "model.safetensors").read_bytes()
    for name, array in arrays.items():
        spec = checkpoint.tensors[name]
        assert spec.shape == array.shape
        assert content[spec.offset : spec.offset + spec.nbytes] == array.tobytes()
    assert checkpoint.model_type == "made-up"


def test_shards_by_their_index(folder: Path) -> None:
    placed = {}
    for number in (1, 2):
        name = f"model-{number}-of-2.safetensors"
        save_file({f"t{number}": np.full((2,), number, np.float32)}, folder / name)
        placed[f"t{number}"] = name
    (folder / INDEX).write_text(json.dumps({"weight_map": placed}))
    checkpoint = Checkpoint.at(folder)
    assert {name: spec.file for name, spec in checkpoint.tensors.items()} == placed


def test_a_single_file_of_another_name(folder: Path) -> None:
    save_file({"t": np.zeros(1, np.float32)}, folder / "adapter.safetensors")
    assert list(Checkpoint.at(folder).tensors) == ["t"]


@pytest.mark.parametrize(
    ("header", "data", "words"),
    [
        (b"{  ", b"", "damaged"),
        (b"[1]", b"", "damaged"),
        ({"t": 3}, b"", "damaged"),
        ({"t": _entry(dtype="Q9")}, b"\0" * 24, "type Q9"),
        ({"t": _entry(shape=[-2, -3])}, b"\0" * 24, "should take"),
        ({"t": _entry(shape=["x"])}, b"\0" * 24, "damaged"),
        ({"t": _entry(data_offsets=[0, 20])}, b"\0" * 24, "should take 24"),
        ({"t": _entry(data_offsets=[-24, 0])}, b"\0" * 24, "should take"),
        ({"t": _entry(data_offsets=[0])}, b"\0" * 24, "damaged"),
        ({"t": _entry()}, b"\0" * 23, "cut short"),
        ({"t": _entry(data_offsets=[1 << 62, (1 << 62) + 24])}, b"\0" * 24, "cut short"),
    ],
)
def test_a_header_that_lies(folder: Path, header: Any, data: bytes, words: str) -> None:
    _write(folder / "model.safetensors", header, data)
    with pytest.raises(BrokenFile, match=words) as caught:
        _ = Checkpoint.at(folder).tensors
    assert caught.value.where is not None
    assert "model.safetensors" in caught.value.where


@pytest.mark.parametrize("content", [b"", b"\0" * 7, b"\xff" * 64, struct.pack("<Q", 100) + b"{}"])
def test_what_is_no_safetensors_file(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(BrokenFile, match="not a safetensors file"):
        _ = Checkpoint.at(folder).tensors


@pytest.mark.parametrize(
    ("index", "words"),
    [
        ({}, "no weight_map"),
        ({"weight_map": 5}, "no weight_map"),
        ({"weight_map": {"t": "gone.safetensors"}}, "no gone"),
        ({"weight_map": {"u": "model.safetensors"}}, "lacks it"),
    ],
)
def test_an_index_that_lies(folder: Path, index: Mapping[str, Any], words: str) -> None:
    save_file({"t": np.zeros(1, np.float32)}, folder / "model.safetensors")
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(OctavoError, match=words):
        _ = Checkpoint.at(folder).tensors


def test_a_tensor_in_two_files(folder: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        save_file({"t": np.zeros(1, np.float32)}, folder / name)
    with pytest.raises(BrokenFile, match="two files"):
        _ = Checkpoint.at(folder).tensors


def test_no_weights_and_no_model(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(SourceNotFound, match=r"no \.safetensors"):
        _ = Checkpoint.at(folder).tensors
    with pytest.raises(SourceNotFound, match="no such model folder"):
        Checkpoint.at(folder / "none")
    (folder / CONFIG).write_text("[]")
    with pytest.raises(BrokenFile, match="not a JSON object"):
        _ = Checkpoint.at(folder).config
    (folder / CONFIG).write_bytes(b"\xff\xfe")
    with pytest.raises(BrokenFile, match="not JSON"):
        _ = Checkpoint.at(folder).config
