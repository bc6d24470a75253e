"""``octavo.load`` and what the model then does; references are transformers' own classes."""

from __future__ import annotations

import gc
import json
import shutil
import struct
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import octavo  # noqa: E402
from octavo.errors import (  # noqa: E402
    BrokenFile,
    BudgetExceeded,
    ConfigError,
    InputError,
    OctavoError,
    ReleasedError,
    SourceNotFound,
    UnsupportedFormat,
)
from octavo.models.component import State  # noqa: E402
from octavo.requests import Finish, Part, Request, Sampling  # noqa: E402

Tiny = Callable[[str], Path]


@pytest.fixture
def copy(tiny: Tiny, tmp_path: Path) -> Callable[[str], Path]:
    """A checkpoint to break."""

    def made(family: str) -> Path:
        folder = tmp_path / family
        shutil.copytree(tiny(family), folder)
        return folder

    return made


def test_the_snippet(tiny: Tiny, picture: Any) -> None:
    told: list[Any] = []
    model = octavo.load(
        str(tiny("qwen3-vl")),
        memory="4GB",
        llm_precision="int8",
        vision_precision="bf16",
        on_progress=told.append,
    )
    with model:
        assert {name: str(part.precision) for name, part in model.components.items()} == {
            "vision": "bf16",
            "projector": "bf16",
            "language": "int8",
        }
        assert all(part.state is State.READY for part in model.components.values())
        assert model.plan is not None
        assert "language weights (int8)" in model.plan.explain()
        requests = [Request.of(Part.image(picture), "what?", max_new_tokens=4), Request.of("why?")]
        done = {entry.request_id: entry for entry in model.generate(requests)}
        assert {entry.id for entry in requests} == set(done)
        assert all(entry.failure is None for entry in done.values())
    assert {entry.component for entry in told} == {"vision", "projector", "language"}
    assert all(entry.done_bytes == entry.total_bytes for entry in told if entry.finished)


def test_one_bad_request_takes_no_other_with_it(tiny: Tiny, picture: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with octavo.load(str(tiny("qwen3-vl"))) as model:
        asked = [
            Request.of("good", max_new_tokens=3),
            Request.of(Part.image(broken), "bad"),
            Request.of(Part.image(tmp_path / "none.png"), "bad"),
            Request.of(Part.audio(tmp_path / "x.wav"), "bad"),
            Request.of(Part.image(picture), "good", max_new_tokens=3),
        ]
        by_id = {entry.request_id: entry for entry in model.generate(asked)}
    done = [by_id[request.id] for request in asked]
    assert [entry.finish for entry in done] == ["length", "error", "error", "error", "length"]
    assert "broken.png" in str(done[1].failure)
    assert "none.png" in str(done[2].failure)
    assert done[3].failure is not None
    assert done[3].failure.error == "ConfigError"
    with (
        octavo.load(str(tiny("qwen3-vl"))) as model,
        pytest.raises(OctavoError, match=r"none\.png"),
    ):
        model.ask(Part.image(tmp_path / "none.png"), "what?")


def test_stop_strings_and_lengths(tiny: Tiny) -> None:
    with octavo.load(str(tiny("dots.ocr"))) as model:
        (free,) = model.generate([Request.of("hi", max_new_tokens=12)])
        assert free.finish is Finish.LENGTH
        assert free.usage.completion_tokens == len(free.tokens) == 12
        stop = free.text[6:8]
        (ended,) = model.generate(
            [Request.of("hi", max_new_tokens=12, sampling=Sampling(stop=(stop,)))]
        )
        assert ended.finish is Finish.STOP
        assert ended.text == free.text[: free.text.index(stop)]
        pieces = list(
            model.stream(Request.of("hi", max_new_tokens=12, sampling=Sampling(stop=(stop,))))
        )
        assert "".join(pieces) == ended.text
        assert "".join(model.stream(Request.of("hi", max_new_tokens=12))) == free.text


def test_a_seed_repeats_and_greedy_is_greedy(tiny: Tiny) -> None:
    with octavo.load(str(tiny("dots.ocr"))) as model:

        def tokens(**choice: Any) -> tuple[int, ...]:
            request = Request.of("hi", max_new_tokens=16, sampling=Sampling(**choice))
            return next(model.generate([request])).tokens

        greedy = tokens()
        assert tokens(temperature=1.5, top_k=1) == greedy
        hot = [tokens(temperature=5.0, seed=seed) for seed in (1, 1, 2)]
        assert hot[0] == hot[1]
        assert len({greedy, hot[0], hot[2]}) == 3
        assert tokens(repetition_penalty=1000.0) != greedy


def test_cancelling(tiny: Tiny) -> None:
    with octavo.load(str(tiny("dots.ocr"))) as model:
        calls: list[int] = []

        def after_three() -> bool:
            calls.append(1)
            return len(calls) >= 3

        (done,) = model.generate([Request.of("hi", max_new_tokens=50)], cancelled=after_three)
        assert done.finish is Finish.CANCELLED
        # It is asked before each step.
        assert len(done.tokens) == 2


def test_a_lazy_tower_comes_when_it_is_needed(tiny: Tiny, picture: Any) -> None:
    with octavo.load(str(tiny("qwen3-vl")), lazy=["vision", "projector"]) as model:
        assert model.components["vision"].state is State.WAITING
        assert next(model.generate([Request.of("hi", max_new_tokens=3)])).failure is None
        assert model.components["vision"].state is State.WAITING
        asked = Request.of(Part.image(picture), "what?", max_new_tokens=3)
        assert next(model.generate([asked])).failure is None
        assert model.components["vision"].state is State.READY


def test_a_question_while_the_tower_still_loads(
    tiny: Tiny, picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tower's own thread is held back until the words are answered."""
    from octavo.models.loading.running import Loading

    gate = threading.Event()
    plain = Loading._verify

    def held_back(self: Loading) -> None:
        # Threads that components share stay free: the words may still need them.
        if self.component == "vision":
            assert gate.wait(60)
        plain(self)

    monkeypatch.setattr(Loading, "_verify", held_back)
    with octavo.load(str(tiny("qwen3-vl")), wait=False, vision_precision="bf16") as model:
        (first,) = model.generate([Request.of("hi", max_new_tokens=3)])
        before = model.components["vision"].state
        gate.set()
        asked = Request.of(Part.image(picture), "what?", max_new_tokens=3)
        (second,) = model.generate([asked])
    assert first.failure is None
    assert second.failure is None
    assert before is State.LOADING


@pytest.mark.parametrize("precision", ["bf16", "fp16", "int8"])
def test_precisions_stay_near_the_original(tiny: Tiny, picture: Any, precision: str) -> None:
    def logits(**wishes: Any) -> Any:
        with octavo.load(str(tiny("llava")), **wishes) as model:
            request = Request.of(Part.image(picture), "what?")
            prepared = model.processor.prepare(request, model.media)
            with torch.inference_mode():
                return model.module(**prepared.inputs).logits[0, -1].float()

    wanted, made = logits(), logits(precision=precision)
    assert 0 < (made - wanted).norm() < 0.1 * wanted.norm()


def test_closing_frees_the_weights(tiny: Tiny) -> None:
    model = octavo.load(str(tiny("dots.ocr")))
    weight = weakref.ref(model.module.lm_head.weight)
    model.close()
    model.close()
    gc.collect()
    assert weight() is None
    (done,) = model.generate([Request.of("hi")])
    assert done.failure is not None
    assert done.failure.error == ReleasedError.__name__
    assert model.components["language"].state is State.CLOSED


def test_a_budget_that_is_too_small(tiny: Tiny) -> None:
    with pytest.raises(BudgetExceeded) as caught:
        octavo.load(str(tiny("dots.ocr")), memory="1MB")
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("wishes", "error", "words"),
    [
        ({"precision": "int3"}, ConfigError, "no precision"),
        ({"lazy": ["ears"]}, ConfigError, "no component 'ears'"),
        ({"audio_precision": "bf16"}, ConfigError, "no component 'audio'"),
        ({"memory": "much"}, ConfigError, "memory"),
        ({"workload": "pges=3"}, ConfigError, "pges"),
    ],
)
def test_wishes_that_cannot_be(tiny: Tiny, wishes: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        octavo.load(str(tiny("dots.ocr")), **wishes)


def test_models_that_cannot_be_loaded(copy: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound):
        octavo.load(str(tmp_path / "none"))
    folder = copy("dots.ocr")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "unheard-of"}))
    with pytest.raises(UnsupportedFormat, match="unheard-of"):
        octavo.load(str(folder))
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 32}))
    with pytest.raises(InputError, match="shape"):
        octavo.load(str(folder))
    (folder / "config.json").write_text("{")
    with pytest.raises(BrokenFile, match=r"config\.json"):
        octavo.load(str(folder))


def test_weights_that_are_incomplete(copy: Callable[[str], Path]) -> None:
    folder = copy("dots.ocr")
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(BrokenFile, match="cut short"):
        octavo.load(str(folder))
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    header["model.renamed.weight"] = header.pop("model.norm.weight")
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    with pytest.raises(InputError, match=r"no tensor for model\.norm\.weight"):
        octavo.load(str(folder))


def test_a_task_that_a_family_has_not(tiny: Tiny) -> None:
    with octavo.load(str(tiny("dots.ocr"))) as model:
        with pytest.raises(ConfigError, match="cannot do this task") as caught:
            model.embed([Part.text("x")])
        assert "sentence" in str(caught.value.next_step)
        with pytest.raises(ConfigError, match="classify"):
            model.classify(Part.text("x"), ["a"])


def test_clip_as_transformers_has_it(tiny: Tiny, picture: Any) -> None:
    with octavo.load(str(tiny("clip"))) as model:
        vectors = model.embed([Part.text("a cat"), Part.image(picture), Part.text("a dog")])
        shares = model.classify(Part.image(picture), ["cat", "dog"], template="a {}")
        scale = float(model.module.logit_scale.exp())
    assert vectors.shape[0] == 3
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    wanted = np.exp(scale * vectors[[0, 2]] @ vectors[1])
    wanted /= wanted.sum()
    assert shares["cat"] == pytest.approx(wanted[0], abs=1e-4)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    with octavo.load(str(tiny("clip"))) as model:
        assert model.embed([]).shape[0] == 0
