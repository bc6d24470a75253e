"""The commands that run models: answers, and one clear error for each thing that is wrong."""

from __future__ import annotations

import json
import shutil
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("transformers")

from benchmarks.checkpoints import make

from octavo.cli._models import words
from octavo.cli.transcribe import _written
from octavo.errors import ConfigError
from octavo.requests import Segment, Transcript

from .conftest import Program


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of tiny checkpoints by family."""
    root = tmp_path_factory.mktemp("models")
    return {name: str(make(name, root / name)) for name in ("dots.ocr", "clip", "blip")}


@pytest.fixture
def picture(tmp_path: Path) -> str:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return "a.png"


def test_generate_streams_and_json_says_the_same(
    program: Program, models: dict[str, str], picture: str
) -> None:
    asked = ("generate", models["dots.ocr"], "what?", "--image", picture, "--max-new-tokens", "6")
    shown = program(*asked)
    assert shown.code == 0, shown.err
    facts = json.loads(program(*asked, "--json").out)
    assert shown.out == facts["text"] + "\n"
    assert (facts["family"], facts["mode"], facts["finish"]) == ("dots.ocr", "vision", "length")
    assert facts["usage"]["completion_tokens"] == 6
    assert facts["plan"]["fits"] is True or facts["plan"]["peak"] > 0


def test_generate_within_a_budget_explains_its_plan(
    program: Program, models: dict[str, str]
) -> None:
    ended = program(
        "generate", models["dots.ocr"], "hi", "--memory", "3GB", "--max-new-tokens", "2", "-v"
    )
    assert ended.code == 0
    assert "language weights" in ended.err
    assert "3 000.0 MB" in ended.err


def test_caption_of_several_goes_on_after_a_bad_one(
    program: Program, models: dict[str, str], picture: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    ended = program("caption", models["blip"], picture, "bad.png", picture)
    assert ended.code == 1
    assert [line.split(":")[0] for line in ended.out.splitlines()] == [picture, picture]
    assert "bad.png" in ended.err
    assert ended.err.count("error:") == 1


def test_ask_image(program: Program, models: dict[str, str], picture: str) -> None:
    ended = program("ask-image", models["dots.ocr"], picture, "what?", "--max-new-tokens", "3")
    assert (ended.code, ended.err) == (0, "")
    facts = json.loads(
        program(
            "ask-image", models["dots.ocr"], picture, "what?", "--max-new-tokens", "3", "--json"
        ).out
    )
    assert facts["text"].strip() == ended.out.strip()


def test_classify_sums_to_one(program: Program, models: dict[str, str], picture: str) -> None:
    asked = ("classify", models["clip"], picture, "-l", "cat", "-l", "dog", "-l", "chair")
    facts = json.loads(program(*asked, "--json").out)
    assert sum(facts["labels"].values()) == pytest.approx(1)
    lines = program(*asked).out.splitlines()
    assert [line.split()[0] for line in lines] == list(facts["labels"])


def test_embed_ranks_and_writes(
    program: Program, models: dict[str, str], picture: str, tmp_path: Path
) -> None:
    (tmp_path / "lines.txt").write_text("a dog\n\na chair\n")
    asked = ("embed", models["clip"], "a cat", "--lines", "lines.txt", "--image", picture)
    ranked = program(*asked, "--query", "a cat", "-o", "vectors.npy")
    assert ranked.code == 0, ranked.err
    assert ranked.out.splitlines()[0].split() == ["1.000", "a", "cat"]
    vectors = np.load(tmp_path / "vectors.npy")
    assert len(vectors) == 4
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    rows = json.loads(program(*asked, "--json").out)
    assert [row["input"] for row in rows] == ["a cat", "a dog", "a chair", picture]
    assert np.allclose([row["vector"] for row in rows], vectors, atol=1e-5)


def test_formats_of_a_transcript() -> None:
    heard = Transcript(
        (Segment(0.0, 1.25, " Hello there."), Segment(3661.0, 3662.5, " Bye.")), "en", 3663.0
    )
    assert _written(heard, "text") == "Hello there. Bye."
    assert _written(heard, "times") == "00:00:00  Hello there.\n01:01:01  Bye."
    assert _written(heard, "srt") == (
        "1\n00:00:00,000 --> 00:00:01,250\nHello there.\n\n2\n01:01:01,000 --> 01:01:02,500\nBye.\n"
    )


def test_words() -> None:
    with pytest.raises(ConfigError, match="empty"):
        words("  ")


def _break(models: dict[str, str], tmp_path: Path, **changes: Any) -> str:
    folder = tmp_path / "broken"
    shutil.copytree(models["dots.ocr"], folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return str(folder)


def _one_error(ended: Any, *wanted: str) -> None:
    """One line that says what, and nothing that looks like a fault of the program."""
    assert ended.code == 2, ended.out
    assert ended.out == ""
    (line,) = ended.err.splitlines()
    assert line.startswith("error: ")
    assert "unexpected" not in line
    for word in wanted:
        assert word in line, line


@pytest.mark.parametrize(
    "command",
    [
        ("generate", "MODEL", "hi"),
        ("caption", "MODEL", "a.png"),
        ("ask-image", "MODEL", "a.png", "what?"),
        ("classify", "MODEL", "a.png", "-l", "cat"),
        ("embed", "MODEL", "a", "--query", "b"),
        ("transcribe", "a.png", "--model", "MODEL"),
    ],
)
def test_every_command_with_a_model_that_cannot_be(
    program: Program,
    models: dict[str, str],
    picture: str,
    tmp_path: Path,
    command: tuple[str, ...],
) -> None:
    def run(model: str, *more: str) -> Any:
        return program(*(model if word == "MODEL" else word for word in command), *more)

    _one_error(run("no/where/at/all"), "no such model")
    _one_error(run("owner/never-pulled"), "octavo pull owner/never-pulled")
    unknown = _break(models, tmp_path, model_type="unheard-of")
    _one_error(run(unknown), "unheard-of", "families:")
    whole = tmp_path / "broken" / "model.safetensors"
    whole.write_bytes(whole.read_bytes()[:-64])
    shutil.copy(Path(models["dots.ocr"]) / "config.json", tmp_path / "broken")
    _one_error(run(unknown), "cut short", "model.safetensors")
    if command[0] != "transcribe":
        _one_error(run(models["dots.ocr"], "--memory", "1MB"), "1.0 MB", "memory")


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        (("generate", "dots.ocr", "hi", "--image", "none.png"), ["none.png", "no such file"]),
        (("generate", "dots.ocr", "hi", "--image", "bad.png"), ["bad.png"]),
        (("generate", "dots.ocr", "hi", "--audio", "beep.wav"), ["do not take", "speech"]),
        (("generate", "dots.ocr", "hi", "--video", "beep.wav"), ["beep.wav"]),
        (("generate", "dots.ocr", ""), ["empty question"]),
        (("generate", "dots.ocr", "hi", "--temperature", "-1"), ["temperature"]),
        (("generate", "dots.ocr", "hi", "--video", "beep.wav", "--frame-sampling", "x"), ["'x'"]),
        (("generate", "clip", "hi"), ["cannot do this task"]),
        (("caption", "dots.ocr", "none.png"), ["none.png"]),
        (("ask-image", "dots.ocr", "bad.png", "what?"), ["bad.png"]),
        (("classify", "clip", "bad.png", "-l", "x"), ["bad.png"]),
        (("classify", "clip", "a.png", "-l", "x", "--template", "no place"), ["{}"]),
        (("classify", "dots.ocr", "a.png", "-l", "x"), ["cannot do this task"]),
        (("embed", "clip"), ["nothing to embed"]),
        (("embed", "clip", "a"), ["--query"]),
        (("embed", "clip", "a", "-o", "no/folder/x.npy"), ["no/folder/x.npy"]),
        (("embed", "clip", "a", "--lines", "a.png", "-o", "x.npy"), ["UTF-8"]),
        (("transcribe", "none.wav"), ["none.wav"]),
        (("transcribe", "beep.wav", "--format", "pdf"), ["pdf"]),
        (("transcribe", "beep.wav", "--model", "clip"), ["cannot do this task", "whisper"]),
    ],
)
def test_one_error_for_each_thing_that_is_wrong(
    program: Program,
    models: dict[str, str],
    picture: str,
    tmp_path: Path,
    command: tuple[str, ...],
    wanted: list[str],
) -> None:
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with wave.open(str(tmp_path / "beep.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(bytes(3200))
    _one_error(program(*(models.get(word, word) for word in command)), *wanted)


def test_pull_of_what_a_package_carries(program: Program) -> None:
    from octavo.models.packaged import missing_packages, packaged

    carried = packaged("all-minilm-l6-v2")
    assert carried is not None
    if missing_packages(carried):
        pytest.skip(carried.install)
    facts = json.loads(program("pull", "sentence-transformers/all-MiniLM-L6-v2", "--json").out)
    assert facts["status"] == "ok"
    assert Path(facts["path"]).is_dir()


def test_pull_offline(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    _one_error(program("pull", "owner/model"), "HF_HUB_OFFLINE", "path")
