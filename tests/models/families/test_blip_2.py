"""BLIP-2 against transformers' own class and processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.checkpoints import make
from PIL import Image

from octavo.errors import InputError, UnsupportedFormat
from octavo.models.checkpoint import Checkpoint
from octavo.models.families.blip_2 import Blip2
from octavo.models.family import Guard
from octavo.requests import Part, Request, Sampling
from tests.models.families.filling import check_description, configured, filled

QUESTION = "Question: what is in this picture? Answer:"


@pytest.fixture(scope="module", params=["tiny", "tiny-t5"])
def folder(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("blip-2", tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def module(folder: Path) -> Any:
    return filled(Blip2(), folder)


def inputs_of(folder: Path, picture: Any, text: str) -> Any:
    from transformers import AutoTokenizer, Blip2Processor
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    processor = Blip2Processor(
        BlipImageProcessorPil.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
        num_query_tokens=8,
    )
    made = processor(images=Image.fromarray(picture), text=text, return_tensors="pt")
    made.pop("token_type_ids", None)
    return made


def theirs_of(folder: Path, inputs: Any, dtype: torch.dtype = torch.float32) -> list[int]:
    from transformers import Blip2ForConditionalGeneration

    model = Blip2ForConditionalGeneration.from_pretrained(folder, dtype=dtype).eval()
    inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
    out = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0].tolist()
    start = 1 if model.config.text_config.model_type == "t5" else inputs["input_ids"].shape[1]
    out = out[start:]
    return out[:-1] if out[-1] == 2 else out


def ours_of(folder: Path, module: Any, request: Request, held: Any) -> tuple[list[int], Any]:
    family = Blip2()
    processor = family.processor(Checkpoint.at(folder))
    prepared = processor.prepare(request, held)
    made = family.generate(
        module, processor, prepared, max_new_tokens=8, sampling=Sampling(), guard=Guard()
    )
    return list(made.tokens), prepared


@pytest.mark.parametrize(
    ("words", "text"),
    [("what is in this picture?", QUESTION), (QUESTION, QUESTION), ("a photo of", "a photo of")],
)
def test_answers_and_captions(
    folder: Path, module: Any, picture: Any, held: Any, words: str, text: str
) -> None:
    ours, prepared = ours_of(folder, module, Request.of(Part.image(picture), words), held)
    inputs = inputs_of(folder, picture, text)
    assert torch.equal(prepared.inputs["input_ids"], inputs["input_ids"])
    assert torch.equal(prepared.inputs["pixel_values"], inputs["pixel_values"])
    assert (prepared.media_tokens, bool(prepared.notes)) == (8, words != text)
    assert ours == theirs_of(folder, inputs)
    assert ours


def test_a_picture_alone(folder: Path, module: Any, picture: Any, held: Any) -> None:
    ours, prepared = ours_of(folder, module, Request.of(Part.image(picture)), held)
    inputs = inputs_of(folder, picture, "")
    assert torch.equal(prepared.inputs["input_ids"], inputs["input_ids"])
    assert ours == theirs_of(folder, inputs)


def test_the_picture_matters(folder: Path, module: Any, picture: Any, held: Any) -> None:
    answers = {
        tuple(ours_of(folder, module, Request.of(Part.image(seen), "a photo of"), held)[0])
        for seen in (picture, 255 - picture, picture[:30, :30], picture[:, :20] // 4)
    }
    assert len(answers) > 1


def test_bfloat16_runs(folder: Path, picture: Any, held: Any) -> None:
    half = filled(Blip2(), folder, torch.bfloat16)
    ours, _ = ours_of(folder, half, Request.of(Part.image(picture), QUESTION), held)
    assert ours == theirs_of(folder, inputs_of(folder, picture, QUESTION), torch.bfloat16)


@pytest.mark.parametrize("other", ["vision", "language", "projector"])
def test_components_may_be_of_different_types(
    folder: Path, picture: Any, held: Any, other: str
) -> None:
    mixed = filled(Blip2(), folder, **{other: torch.bfloat16})
    assert ours_of(folder, mixed, Request.of(Part.image(picture), QUESTION), held)[0]


def test_a_head_that_is_stored_is_not_tied(folder: Path, module: Any) -> None:
    """Flan-T5's is another matrix than its embeddings, OPT's is the same."""
    head = module.language_model.get_output_embeddings().weight
    shared = module.get_input_embeddings().weight
    t5 = Checkpoint.at(folder).config["text_config"]["model_type"] == "t5"
    assert (head is shared) is not t5
    assert torch.equal(head, shared) is not t5


def test_the_description_fits_the_model(folder: Path) -> None:
    check_description(Blip2(), folder, floats=".wo.weight")
    spec = Blip2().describe(Checkpoint.at(folder))
    t5 = Checkpoint.at(folder).config["text_config"]["model_type"] == "t5"
    assert [part.name for part in spec.components] == ["vision", "projector", "language"]
    assert [len(part.layers) for part in spec.components] == [2, 2, 4 if t5 else 2]
    assert spec.text is not None
    assert spec.vision is not None
    assert (spec.text.tied, spec.text.gated, spec.text.hidden) == (not t5, t5, 64)
    assert (spec.vision.picture.cost(9, 9).patches, spec.vision.picture.cost(9, 9).tokens) == (
        10,
        8,
    )


def test_what_it_does_not_take(folder: Path, picture: Any, held: Any, tmp_path: Path) -> None:
    processor = Blip2().processor(Checkpoint.at(folder))
    with pytest.raises(InputError, match="has 0"):
        processor.prepare(Request.of("what?"), held)
    with pytest.raises(InputError, match="no sound"):
        processor.prepare(Request.of(Part.audio("a.wav")), held)
    with pytest.raises(InputError, match="stands for the picture"):
        processor.prepare(Request.of(Part.image(picture), "<image> what?"), held)
    other = configured(folder, tmp_path / "o", text_config={"model_type": "bloom"})
    with pytest.raises(UnsupportedFormat, match="bloom"):
        Blip2().describe(Checkpoint.at(other))
    blind = configured(folder, tmp_path / "b", image_token_index=None)
    with pytest.raises(InputError, match="image_token_index"):
        Blip2().processor(Checkpoint.at(blind))
