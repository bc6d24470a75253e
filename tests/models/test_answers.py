"""Real weights, offline: a question, a transcript, a ranking; through ``octavo.load``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import octavo
from octavo.errors import BudgetExceeded
from octavo.models.packaged import missing_packages, packaged
from octavo.requests import Part, Request

SPEECH = Path(__file__).parents[1] / "fixtures" / "speech.wav"


@pytest.fixture(autouse=True, scope="module")
def _offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HF_HUB_OFFLINE", "1")
        patched.setenv("OCTAVO_HOME", str(tmp_path_factory.mktemp("home")))
        yield


def _needs(name: str) -> str:
    found = packaged(name)
    assert found is not None
    if missing_packages(found):
        pytest.skip(found.install)
    return name


@pytest.mark.parametrize("precision", [None, "int8", "int4"])
def test_a_language_model_answers_in_english(precision: str | None) -> None:
    with octavo.load(_needs("smollm2-135m-instruct"), precision=precision) as model:
        asked = Request.of(
            "What is the capital of France? Answer in one sentence.", max_new_tokens=24
        )
        (done,) = model.generate([asked])
        streamed = "".join(model.stream(asked))
        held = model.components["language"]
    assert done.failure is None
    assert "Paris" in done.text
    assert done.finish == "stop"
    assert streamed == done.text
    bytes_each = {None: 2.0, "int8": 1.3, "int4": 0.9}[precision]  # embeddings stay in bf16
    assert held.nbytes < bytes_each * held.parameters * 1.01


def test_progress_and_budget_of_packed_weights() -> None:
    told: list[Any] = []
    with octavo.load(_needs("smollm2-135m-instruct"), on_progress=told.append) as model:
        assert model.components["language"].loaded == told[-1].done_bytes
    done = [entry.done_bytes for entry in told]
    assert done == sorted(done)
    assert told[-1].finished
    assert told[-1].done_bytes == told[-1].total_bytes
    with pytest.raises(BudgetExceeded):
        octavo.load("smollm2-135m-instruct", memory="200MB")


def test_sentences_are_ranked_by_meaning() -> None:
    with octavo.load(_needs("all-minilm-l6-v2")) as model:
        texts = ["A cat sleeps on the sofa.", "The invoice is due in May.", "Stocks fell today."]
        vectors = model.embed([Part.text(text) for text in [*texts, "kittens and puppies"]])
    likeness = vectors[:-1] @ vectors[-1]
    assert likeness.argmax() == 0
    assert vectors.shape == (4, 384)


def test_speech_is_written_down() -> None:
    with octavo.load(_needs("whisper-base"), precision="int8") as model:
        heard = model.transcribe(Part.audio(SPEECH))
    assert heard.language == "en"
    assert heard.text.lower().startswith("good morning")
