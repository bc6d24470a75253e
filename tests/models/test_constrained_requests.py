"""Requests with a form, asked of a loaded model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("llguidance")

import jsonschema

import octavo
from octavo.errors import ConfigError
from octavo.requests import Request, Sampling
from octavo.response import ResponseForm

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"kind": {"enum": ["a", "b"]}, "size": {"type": "integer", "maximum": 99}},
    "required": ["kind", "size"],
    "additionalProperties": False,
}
HOT = Sampling(temperature=8.0, top_k=5, top_p=0.5, seed=3)


@pytest.fixture
def model(tiny: Callable[[str], Path]) -> Any:
    with octavo.load(str(tiny("text"))) as made:
        yield made


@pytest.mark.parametrize("sampling", [Sampling(), HOT, Sampling(repetition_penalty=1.5)])
def test_an_answer_has_its_form_and_stops(model: Any, sampling: Sampling) -> None:
    form = ResponseForm.choice(["a red cat", "a chair"])
    (done,) = model.generate([Request.of("?", sampling=sampling, response=form, max_new_tokens=40)])
    assert done.check().text in ("a red cat", "a chair")
    assert done.finish == "stop"
    assert done.usage.completion_tokens == len(done.tokens)


def test_requests_beside_it_are_as_ever(model: Any) -> None:
    form = ResponseForm.json_schema(SCHEMA)
    (free,) = model.generate([Request.of("?", max_new_tokens=12)])
    asked = [
        Request.of("?", max_new_tokens=12),
        Request.of("?", response=form, max_new_tokens=400, sampling=HOT),
        Request.of("?", max_new_tokens=12),
    ]
    done = {one.request_id: one for one in model.generate(asked)}
    first, held, last = (done[request.id] for request in asked)
    assert first.tokens == free.tokens == last.tokens
    jsonschema.validate(json.loads(held.text), SCHEMA)


def test_a_cut_answer_is_as_it_was_said(model: Any) -> None:
    form = ResponseForm.json_schema(SCHEMA)
    (done,) = model.generate([Request.of("?", response=form, max_new_tokens=4)])
    assert done.finish == "length"
    assert not form.is_whole(done.text)
    assert form.is_whole('{"kind": "a", "size": 1}')


def test_it_is_streamed(model: Any) -> None:
    form = ResponseForm.regex("(?:ab){3}")
    assert "".join(model.stream(Request.of("?", response=form))) == "ababab"


def test_where_the_model_may_not_say_it_the_request_fails_alone(model: Any) -> None:
    words = model.processor.tokenizer("a", add_special_tokens=False)["input_ids"]
    model.module.generation_config.suppress_tokens = words
    asked = [
        Request.of("?", response=ResponseForm.choice(["a"])),
        Request.of("?", max_new_tokens=2),
    ]
    failed, fine = model.generate(asked)
    with pytest.raises(ConfigError, match="no token to choose"):
        failed.check()
    assert fine.failure is None


def test_stop_strings_and_a_form_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="stop string"):
        Request.of("?", sampling=Sampling(stop=("x",)), response=ResponseForm.regex("a"))


@pytest.mark.parametrize(
    "family", ["qwen3-vl", "dots.ocr", "gemma3n", "llava", "phi4-multimodal", "blip", "blip-2"]
)
def test_every_family_that_answers_takes_one(family: str, tiny: Callable[[str], Path]) -> None:
    import numpy as np

    from octavo.requests import Part

    picture = Part.image(np.zeros((56, 56, 3), np.uint8))
    form = ResponseForm.choice(["yes", "no"])
    with octavo.load(str(tiny(family))) as made:
        (done,) = made.generate([Request.of(picture, "?", response=form)])
    assert done.check().text in ("yes", "no")
