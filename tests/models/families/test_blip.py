"""BLIP against transformers' own classes and processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.checkpoints import make
from PIL import Image
from safetensors.torch import load_file, save_file

from octavo.errors import InputError, UnsupportedFormat
from octavo.models.checkpoint import Checkpoint
from octavo.models.families.blip import Blip
from octavo.models.family import Guard
from octavo.requests import Part, Request, Sampling
from tests.models.families.filling import check_description, configured, filled

SEP = 3


@pytest.fixture(scope="module")
def folder(tiny: Any) -> Path:
    return tiny("blip")


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("blip", tmp_path_factory.mktemp("blip-vqa"), "tiny-vqa")


def reference(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    from transformers import (
        AutoTokenizer,
        BlipForConditionalGeneration,
        BlipForQuestionAnswering,
        BlipProcessor,
    )
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    answers = "QuestionAnswering" in Checkpoint.at(folder).config["architectures"][0]
    kind = BlipForQuestionAnswering if answers else BlipForConditionalGeneration
    model = kind.from_pretrained(folder, dtype=dtype).eval()
    pictures = BlipImageProcessorPil.from_pretrained(folder)
    return model, BlipProcessor(pictures, AutoTokenizer.from_pretrained(folder))


def theirs_of(folder: Path, picture: Any, text: str, dtype: Any = torch.float32) -> list[int]:
    model, processor = reference(folder, dtype)
    image = Image.fromarray(picture)
    inputs = processor(images=image, text=text or None, return_tensors="pt")
    inputs.pop("token_type_ids", None)
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    length = 1 if "QuestionAnswering" in type(model).__name__ or not text else None
    length = length or inputs["input_ids"].shape[1] - 1
    out = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0, length:].tolist()
    return out[:-1] if out[-1] == SEP else out


def ours_of(
    folder: Path, picture: Any, text: str, held: Any, module: Any = None
) -> tuple[list[int], Any]:
    family = Blip()
    processor = family.processor(Checkpoint.at(folder))
    parts = (Part.image(picture), text) if text else (Part.image(picture),)
    prepared = processor.prepare(Request.of(*parts), held)
    made = family.generate(
        filled(family, folder) if module is None else module,
        processor,
        prepared,
        max_new_tokens=8,
        sampling=Sampling(),
        guard=Guard(),
    )
    return list(made.tokens), prepared


@pytest.mark.parametrize("text", ["", "a photo of"])
def test_captions(folder: Path, picture: Any, held: Any, text: str) -> None:
    ours, prepared = ours_of(folder, picture, text, held)
    assert ours == theirs_of(folder, picture, text)
    assert ours
    assert prepared.prompt_tokens == prepared.inputs["input_ids"].shape[1]
    assert int(prepared.inputs["input_ids"][0, 0]) == 4
    assert SEP not in prepared.inputs["input_ids"][0]


@pytest.mark.parametrize("text", ["what is in this picture", "total?"])
def test_answers(asking: Path, picture: Any, held: Any, text: str) -> None:
    ours, _ = ours_of(asking, picture, text, held)
    assert ours == theirs_of(asking, picture, text)
    assert ours


def test_the_picture_and_the_question_matter(asking: Path, picture: Any, held: Any) -> None:
    module = filled(Blip(), asking)
    other = np.ascontiguousarray(255 - picture)
    answers = {
        tuple(ours_of(asking, seen, text, held, module)[0])
        for seen in (picture, other, picture[:30, :30])
        for text in ("what is in this picture", "the lazy dog", "0123456789")
    }
    assert len(answers) > 2


def test_bfloat16_runs(folder: Path, asking: Path, picture: Any, held: Any) -> None:
    for place, text in ((folder, "a photo of"), (asking, "total?")):
        half = filled(Blip(), place, torch.bfloat16)
        ours, _ = ours_of(place, picture, text, held, half)
        assert ours == theirs_of(place, picture, text, torch.bfloat16)


@pytest.mark.parametrize("other", ["vision", "language"])
def test_components_may_be_of_different_types(
    folder: Path, asking: Path, picture: Any, held: Any, other: str
) -> None:
    for place, text in ((folder, "a photo of"), (asking, "total?")):
        mixed = filled(Blip(), place, **{other: torch.bfloat16})
        assert ours_of(place, picture, text, held, mixed)[0]


def test_the_descriptions_fit_the_models(folder: Path, asking: Path) -> None:
    check_description(Blip(), folder)
    check_description(Blip(), asking)
    spec = Blip().describe(Checkpoint.at(asking))
    assert [len(part.layers) for part in spec.components] == [2, 4]
    assert spec.vision is not None
    assert spec.vision.picture.cost(9, 9).patches == 10


def test_copies_of_tied_weights_and_old_buffers_are_left(
    folder: Path, tmp_path: Path, picture: Any, held: Any
) -> None:
    """As the hub has them."""
    other = configured(folder, tmp_path / "old")
    tensors = load_file(folder / "model.safetensors")
    copies = {
        "text_decoder.cls.predictions.decoder.weight": tensors[
            "text_decoder.bert.embeddings.word_embeddings.weight"
        ].clone(),
        "text_decoder.cls.predictions.decoder.bias": tensors[
            "text_decoder.cls.predictions.bias"
        ].clone(),
        "text_decoder.bert.embeddings.position_ids": torch.arange(128)[None],
    }
    assert not set(copies) & set(tensors)
    save_file({**tensors, **copies}, other / "model.safetensors", metadata={"format": "pt"})
    check_description(Blip(), other)
    assert ours_of(other, picture, "", held)[0] == ours_of(folder, picture, "", held)[0]


def test_defaults_are_those_of_transformers(folder: Path, tmp_path: Path) -> None:
    from transformers import BlipConfig

    bare = configured(folder, tmp_path / "bare", text_config={}, vision_config={})
    spec, config = Blip().describe(Checkpoint.at(bare)), BlipConfig()
    assert spec.text is not None
    assert spec.vision is not None
    assert spec.text.vocabulary == config.text_config.vocab_size
    assert spec.text.heads == config.text_config.num_attention_heads
    assert spec.vision.picture.cost(1, 1).width == config.vision_config.image_size
    assert Blip().processor(Checkpoint.at(bare)).end_tokens == {config.text_config.sep_token_id}


def test_what_it_does_not_take(
    folder: Path, asking: Path, picture: Any, held: Any, tmp_path: Path
) -> None:
    caption = Blip().processor(Checkpoint.at(folder))
    with pytest.raises(InputError, match="has 0"):
        caption.prepare(Request.of("a photo of"), held)
    with pytest.raises(InputError, match="has 2"):
        caption.prepare(Request.of(Part.image(picture), Part.image(picture)), held)
    with pytest.raises(InputError, match="no films"):
        caption.prepare(Request.of(Part.video("a.mp4")), held)
    with pytest.raises(InputError, match="there is none"):
        Blip().processor(Checkpoint.at(asking)).prepare(Request.of(Part.image(picture)), held)
    other = configured(folder, tmp_path / "x", architectures=["BlipForImageTextRetrieval"])
    with pytest.raises(UnsupportedFormat, match="BlipForImageTextRetrieval"):
        Blip().describe(Checkpoint.at(other))
