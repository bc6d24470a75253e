"""LLaVA-NeXT against transformers' own class and processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from octavo.errors import InputError
from octavo.models.checkpoint import Checkpoint
from octavo.models.families.llava_next import LlavaNext
from octavo.models.family import Guard
from octavo.requests import InputMode, Part, Request, Sampling
from tests.models.families.filling import check_description, configured, filled, renamed

QUESTION = "describe the image please"
SIZES = [(100, 140), (60, 200), (300, 90), (56, 56), (7, 9), (112, 113), (3, 3), (1, 900)]


@pytest.fixture(scope="module")
def folder(tiny: Any) -> Path:
    return tiny("llava-next")


@pytest.fixture(scope="module")
def module(folder: Path) -> Any:
    return filled(LlavaNext(), folder)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    from transformers import LlavaNextForConditionalGeneration

    return LlavaNextForConditionalGeneration.from_pretrained(folder).eval()


def processor_of_transformers(folder: Path, strategy: str = "default") -> Any:
    from transformers import AutoTokenizer, LlavaNextProcessor
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )

    return LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil.from_pretrained(folder),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        patch_size=14,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=1,
    )


def drawn(size: tuple[int, int], seed: int = 1) -> Any:
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)


def inputs_of(processor: Any, prompt: str, pictures: list[Any]) -> Any:
    images = [Image.fromarray(picture) for picture in pictures] or None
    made = processor(images=images, text=prompt, return_tensors="pt")
    made.pop("token_type_ids", None)
    return made


def answer(module: Any, processor: Any, prepared: Any) -> list[int]:
    made = LlavaNext().generate(
        module, processor, prepared, max_new_tokens=10, sampling=Sampling(), guard=Guard()
    )
    return list(made.tokens)


def answer_of(model: Any, inputs: Any) -> list[int]:
    out = model.generate(**inputs, max_new_tokens=10, do_sample=False)
    tokens = out[0, inputs["input_ids"].shape[1] :].tolist()
    return tokens[:-1] if tokens[-1] == 2 else tokens


@pytest.mark.parametrize("size", SIZES)
def test_one_picture_of_many_sizes(
    folder: Path, module: Any, theirs: Any, held: Any, size: tuple[int, int]
) -> None:
    processor = LlavaNext().processor(Checkpoint.at(folder))
    prepared = processor.prepare(Request.of(Part.image(drawn(size)), QUESTION), held)
    inputs = inputs_of(
        processor_of_transformers(folder), f"USER: <image>\n{QUESTION} ASSISTANT:", [drawn(size)]
    )
    for name in ("input_ids", "pixel_values", "image_sizes"):
        assert torch.equal(prepared.inputs[name], inputs[name]), name
    spec = LlavaNext().describe(Checkpoint.at(folder))
    assert spec.vision is not None
    cost = spec.vision.picture.cost(size[1], size[0])
    assert prepared.media_tokens == cost.tokens
    assert prepared.inputs["pixel_values"].shape[1] == cost.sequences
    with torch.inference_mode():
        logits = module(**prepared.inputs).logits
        assert torch.allclose(logits, theirs(**inputs).logits, atol=1e-4)


def test_pictures_of_different_numbers_of_tiles(
    folder: Path, module: Any, theirs: Any, held: Any
) -> None:
    pictures = [drawn((60, 200)), drawn((140, 150), 2), drawn((100, 140), 3)]
    processor = LlavaNext().processor(Checkpoint.at(folder))
    first, second, third = (Part.image(picture) for picture in pictures)
    prepared = processor.prepare(Request.of(first, "a cat", second, third, "table"), held)
    prompt = "USER: <image>\na cat<image>\n<image>\ntable ASSISTANT:"
    inputs = inputs_of(processor_of_transformers(folder), prompt, pictures)
    assert torch.equal(prepared.inputs["input_ids"], inputs["input_ids"])
    assert torch.equal(prepared.inputs["pixel_values"], inputs["pixel_values"])
    assert answer(module, processor, prepared) == answer_of(theirs, inputs)
    assert [note.split()[2] for note in prepared.notes] == ["4", "5", "5"]


def test_text_alone_never_touches_the_tower(folder: Path, theirs: Any, held: Any) -> None:
    blind = filled(LlavaNext(), folder, only=LlavaNext().components_for(InputMode.LANGUAGE))
    assert all(p.is_meta for p in blind.model.vision_tower.parameters())
    assert not blind.model.image_newline.is_meta
    processor = LlavaNext().processor(Checkpoint.at(folder))
    prepared = processor.prepare(Request.of(QUESTION), held)
    inputs = inputs_of(processor_of_transformers(folder), f"USER: {QUESTION} ASSISTANT:", [])
    assert answer(blind, processor, prepared) == answer_of(theirs, inputs)


def hub_name(name: str) -> str:
    return name.replace("vision_tower.", "vision_tower.vision_model.")


def module_name(name: str) -> str:
    name = name.replace("language_model.model.", "model.language_model.")
    name = name.replace("language_model.lm_head", "lm_head")
    started = name.startswith(("vision_tower", "multi_modal", "image_newline"))
    return "model." + name if started else name


@pytest.mark.parametrize("rename", [hub_name, module_name])
def test_older_and_newer_names_load_the_same(
    folder: Path, module: Any, tmp_path: Path, held: Any, rename: Any
) -> None:
    other = renamed(folder, tmp_path / "other", rename)
    check_description(LlavaNext(), other)
    processor = LlavaNext().processor(Checkpoint.at(other))
    prepared = processor.prepare(Request.of(Part.image(drawn((100, 140))), QUESTION), held)
    with torch.inference_mode():
        ours = filled(LlavaNext(), other)(**prepared.inputs).logits
        assert torch.equal(ours, module(**prepared.inputs).logits)


def test_bfloat16_runs(folder: Path, theirs: Any, held: Any) -> None:
    from transformers import LlavaNextForConditionalGeneration

    half = filled(LlavaNext(), folder, torch.bfloat16)
    processor = LlavaNext().processor(Checkpoint.at(folder))
    prepared = processor.prepare(Request.of(Part.image(drawn((100, 140))), QUESTION), held)
    model = LlavaNextForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16).eval()
    inputs = dict(prepared.inputs)
    inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
    assert answer(half, processor, prepared) == answer_of(model, inputs)


@pytest.mark.parametrize("other", ["vision", "language", "projector"])
def test_components_may_be_of_different_types(folder: Path, held: Any, other: str) -> None:
    mixed = filled(LlavaNext(), folder, **{other: torch.bfloat16})
    processor = LlavaNext().processor(Checkpoint.at(folder))
    prepared = processor.prepare(Request.of(Part.image(drawn((60, 90))), QUESTION), held)
    assert answer(mixed, processor, prepared)


def test_the_description_fits_the_model(folder: Path) -> None:
    check_description(LlavaNext(), folder)
    spec = LlavaNext().describe(Checkpoint.at(folder))
    assert [part.name for part in spec.components] == ["vision", "projector", "language"]


def test_grids_are_those_of_the_configuration(folder: Path, tmp_path: Path, held: Any) -> None:
    grids = [[56, 112], [112, 112]]
    other = configured(folder, tmp_path / "other", image_grid_pinpoints=grids)
    processor = LlavaNext().processor(Checkpoint.at(other))
    prepared = processor.prepare(Request.of(Part.image(drawn((300, 90)))), held)
    with torch.inference_mode():
        filled(LlavaNext(), other)(**prepared.inputs)
    assert prepared.inputs["pixel_values"].shape[1] == 5
    bare = configured(folder, tmp_path / "bare", image_grid_pinpoints=None)
    spec = LlavaNext().describe(Checkpoint.at(bare))
    assert spec.vision is not None
    assert spec.vision.picture.cost(2000, 500).width == 1008


def test_an_empty_picture_is_refused(folder: Path, held: Any) -> None:
    processor = LlavaNext().processor(Checkpoint.at(folder))
    with pytest.raises(InputError, match="is empty"):
        processor.prepare(Request.of(Part.image(drawn((0, 20))), "what?"), held)
    with pytest.raises(InputError, match="take no films"):
        processor.prepare(Request.of(Part.video("a.mp4")), held)
