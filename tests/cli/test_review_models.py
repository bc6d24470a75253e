"""Names, streams and files that the commands which run models are given by accident."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("transformers")

from octavo.cli._errors import json_line

from .conftest import Program
from .test_models import models, picture  # noqa: F401


def test_a_folder_in_place_of_a_file(program: Program, tmp_path: Path) -> None:
    (tmp_path / "pages.png").mkdir()
    for asked in (
        ("caption", "none", "pages.png"),
        ("generate", "none", "what?", "--image", "pages.png"),
        ("classify", "none", "pages.png", "-l", "a"),
        ("embed", "none", "--lines", "pages.png", "--json"),
        ("transcribe", "pages.png"),
    ):
        ended = program(*asked)
        assert (ended.code, ended.err.count("error:")) == (2, 1)
        assert "a folder, not a file, pages.png" in ended.err


def test_a_name_that_is_too_long(program: Program) -> None:
    for asked in (("caption", "none", "x" * 5000), ("generate", "x" * 5000, "what?")):
        ended = program(*asked)
        assert (ended.code, ended.err.count("error: cannot be read")) == (2, 1)
        assert "unexpected" not in ended.err


def test_names_in_another_encoding(
    program: Program,
    models: dict[str, str],  # noqa: F811
    tmp_path: Path,
) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    pixels = np.zeros((40, 50, 3), np.uint8)
    try:
        with (tmp_path / name).open("wb") as file:
            Image.fromarray(pixels).save(file, "PNG")
    except OSError:
        pytest.skip("this system has only names in Unicode")
    ended = program("classify", models["clip"], name, "-l", "a", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["source"] == name
    ended.out.encode()
    assert json_line({"name": "Köln"}) == '{"name": "Köln"}'


def test_standard_input_that_is_no_text(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe"), encoding="utf-8"))
    ended = program("generate", "none", "-")
    assert ended.code == 2
    assert "standard input is not UTF-8 text" in ended.err


def test_errors_name_their_class(program: Program, models: dict[str, str], tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "empty.png").touch()
    ended = program("ask-image", models["dots.ocr"], "empty.png", "what?", "--json")
    assert json.loads(ended.out)["error"] == "BrokenFile"
