"""The paged cache under ``octavo.load``: the same answers, in fewer bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from benchmarks.checkpoints import make

import octavo
from octavo.engine.engine import Engine
from octavo.engine.kv_backend import SequenceKv
from octavo.errors import ConfigError
from octavo.models.packaged import missing_packages, packaged
from octavo.requests import Part, Request

FAMILIES = ("text", "qwen3-vl", "qwen2.5-vl", "llava", "llava-next", "dots.ocr")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in made:
            made[family] = make(family, tmp_path_factory.mktemp("kv") / family)
        return made[family]

    return of


def _asked(family: str, new: int = 12) -> Request:
    pixels = np.random.default_rng(3).integers(0, 255, (100, 140, 3), dtype=np.uint8)
    seen = [] if family == "text" else [Part.image(pixels)]
    return Request.of(*seen, "describe the picture", max_new_tokens=new)


@pytest.mark.parametrize("family", FAMILIES)
def test_exact_blocks_give_the_same_tokens(folder: Callable[[str], Path], family: str) -> None:
    with octavo.load(str(folder(family))) as model:
        (wanted,) = model.generate([_asked(family)])
    with octavo.load(str(folder(family)), kv_precision="exact") as model:
        (made,) = model.generate([_asked(family)])
        (again,) = model.generate([_asked(family)])
    assert wanted.failure is None
    assert made.tokens == wanted.tokens == again.tokens


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_it_is_our_cache_that_is_used(folder: Callable[[str], Path], precision: str) -> None:
    with octavo.load(str(folder("qwen3-vl")), kv_precision=precision) as model:
        assert isinstance(model.engine, Engine)
        kv = model.engine._compute.kv
        assert isinstance(kv, SequenceKv)
        assert kv._kv.sizes.precision == precision
        (done,) = model.generate([_asked("qwen3-vl")])
    assert done.failure is None


def test_a_request_that_is_too_long_fails_alone(folder: Callable[[str], Path]) -> None:
    with octavo.load(str(folder("text")), kv_cache_max_length=40) as model:
        long, short = model.generate([_asked("text", 200), _asked("text", 4)])
    assert long.failure is not None
    assert "kv_cache_max_length is 40" in long.failure.what
    assert short.failure is None


@pytest.mark.parametrize(
    ("family", "wishes", "words"),
    [
        ("blip", {"kv_precision": "int8"}, "no paged cache"),
        ("clip", {"kv_cache_max_length": 9}, "no paged cache"),
        ("text", {"kv_precision": "int3"}, "int3"),
        ("text", {"kv_cache_max_length": 0}, "at least 1"),
    ],
)
def test_wishes_that_cannot_be(
    folder: Callable[[str], Path], family: str, wishes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        octavo.load(str(folder(family)), **wishes)


def test_a_real_model_answers_from_eight_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = packaged("smollm2-135m-instruct")
    assert found is not None
    if missing_packages(found):
        pytest.skip(found.install)
    monkeypatch.setenv("OCTAVO_HOME", str(tmp_path))
    with octavo.load(found.name, kv_precision="int8") as model:
        assert "Paris" in model.ask("What is the capital of France?", max_new_tokens=24)
