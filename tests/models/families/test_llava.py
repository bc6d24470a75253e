"""LLaVA against transformers' own class and processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from octavo.errors import BrokenFile, InputError, UnsupportedFormat
from octavo.models.checkpoint import Checkpoint
from octavo.models.families.llava import Llava
from octavo.models.family import Guard
from octavo.requests import InputMode, Message, Part, Request, Sampling
from tests.models.families.filling import check_description, configured, filled, renamed

QUESTION = "describe the image please"


@pytest.fixture(scope="module")
def folder(tiny: Any) -> Path:
    return tiny("llava")


@pytest.fixture(scope="module")
def pictures() -> list[Any]:
    draw = np.random.default_rng(1)
    return [draw.integers(0, 255, size, dtype=np.uint8) for size in ((100, 140, 3), (80, 60, 3))]


@pytest.fixture(scope="module")
def module(folder: Path) -> Any:
    return filled(Llava(), folder)


def reference(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoTokenizer, LlavaForConditionalGeneration, LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    tower = model.config.vision_config
    template = folder / "chat_template.jinja"
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil.from_pretrained(folder),
        tokenizer=AutoTokenizer.from_pretrained(folder),
        patch_size=tower.patch_size,
        vision_feature_select_strategy=model.config.vision_feature_select_strategy,
        num_additional_image_tokens=1 if tower.model_type == "clip_vision_model" else 0,
        chat_template=template.read_text() if template.is_file() else None,
    )
    return model, processor


def inputs_of(processor: Any, prompt: str, pictures: list[Any]) -> Any:
    images = [Image.fromarray(picture) for picture in pictures] or None
    made = processor(images=images, text=prompt, return_tensors="pt")
    made.pop("token_type_ids", None)
    return made


def answer_of(model: Any, inputs: Any, count: int = 12) -> list[int]:
    out = model.generate(**inputs, max_new_tokens=count, do_sample=False)
    return out[0, inputs["input_ids"].shape[1] :].tolist()


def answer(folder: Path, module: Any, request: Request, held: Any) -> tuple[list[int], Any]:
    family = Llava()
    processor = family.processor(Checkpoint.at(folder))
    prepared = processor.prepare(request, held)
    made = family.generate(
        module,
        processor,
        prepared,
        max_new_tokens=12,
        sampling=Sampling(),
        guard=Guard(),
    )
    return list(made.tokens), prepared


def same(ours: list[int], theirs: list[int], end: int = 2) -> bool:
    return ours == (theirs[:-1] if theirs[-1] == end else theirs)


def test_one_picture(folder: Path, module: Any, pictures: list[Any], held: Any) -> None:
    request = Request.of(Part.image(pictures[0]), QUESTION)
    ours, prepared = answer(folder, module, request, held)
    model, processor = reference(folder)
    inputs = inputs_of(processor, f"USER: <image>\n{QUESTION} ASSISTANT:", pictures[:1])
    assert torch.equal(prepared.inputs["input_ids"], inputs["input_ids"])
    assert torch.equal(prepared.inputs["pixel_values"], inputs["pixel_values"])
    assert (prepared.prompt_tokens, prepared.media_tokens) == (inputs["input_ids"].shape[1], 16)
    assert same(ours, answer_of(model, inputs))
    with torch.inference_mode():
        theirs = model(**inputs).logits
        assert torch.allclose(module(**prepared.inputs).logits, theirs, atol=1e-4)


def test_pictures_keep_their_order_over_several_messages(
    folder: Path, module: Any, pictures: list[Any], held: Any
) -> None:
    first, second = (Part.image(picture) for picture in pictures)
    talk = (
        Message("user", (first, Part.text("a red chair"), second)),
        Message("assistant", (Part.text("A photo of a cat."),)),
        Message("user", (Part.text("table"), second)),
    )
    ours, prepared = answer(folder, module, Request(talk), held)
    model, processor = reference(folder)
    prompt = (
        "USER: <image>\na red chair<image>\n ASSISTANT: A photo of a cat. "
        "USER: table<image>\n ASSISTANT:"
    )
    inputs = inputs_of(processor, prompt, [*pictures, pictures[1]])
    assert torch.equal(prepared.inputs["input_ids"], inputs["input_ids"])
    assert torch.equal(prepared.inputs["pixel_values"], inputs["pixel_values"])
    assert same(ours, answer_of(model, inputs))
    turned, _ = answer(folder, module, Request.of(second, first, "table"), held)
    straight, _ = answer(folder, module, Request.of(first, second, "table"), held)
    assert turned != straight


def test_text_alone_never_touches_the_tower(folder: Path, held: Any) -> None:
    blind = filled(Llava(), folder, only=Llava().components_for(InputMode.LANGUAGE))
    assert all(p.is_meta for p in blind.model.vision_tower.parameters())
    ours, prepared = answer(folder, blind, Request.of(QUESTION), held)
    assert "pixel_values" not in prepared.inputs
    model, processor = reference(folder)
    assert same(ours, answer_of(model, inputs_of(processor, f"USER: {QUESTION} ASSISTANT:", [])))


@pytest.fixture
def plain(folder: Path, tmp_path: Path) -> Path:
    """Without a chat template."""
    copy = configured(folder, tmp_path / "plain")
    (copy / "chat_template.jinja").unlink()
    return copy


def prompt_ids(folder: Path, request: Request, held: Any) -> list[int]:
    return Llava().processor(Checkpoint.at(folder)).prepare(request, held).inputs[
        "input_ids"
    ][0].tolist()  # fmt: skip


def test_the_classic_prompt(plain: Path, pictures: list[Any], held: Any) -> None:
    _, processor = reference(plain)
    request = Request.of(Part.image(pictures[0]), QUESTION, system="Be short.")
    prompt = f"Be short. USER: <image>\n{QUESTION} ASSISTANT:"
    theirs = inputs_of(processor, prompt, pictures[:1])["input_ids"][0].tolist()
    assert prompt_ids(plain, request, held) == theirs
    talk = (
        Message("user", (Part.text("a cat"),)),
        Message("assistant", (Part.text("a chair"),)),
        Message("user", (Part.text("a table"),)),
    )
    theirs = inputs_of(processor, "USER: a cat ASSISTANT: a chair</s>USER: a table ASSISTANT:", [])
    assert prompt_ids(plain, Request(talk), held) == theirs["input_ids"][0].tolist()


def test_templates_in_other_places(
    plain: Path, folder: Path, tmp_path: Path, pictures: list[Any], held: Any
) -> None:
    request = Request.of(Part.image(pictures[0]), QUESTION)
    wanted = prompt_ids(folder, request, held)
    template = (folder / "chat_template.jinja").read_text()
    for file in ("chat_template.json", "processor_config.json"):
        (plain / file).write_text("{}")
        other = configured(plain, tmp_path / file, file, chat_template=template)
        assert prompt_ids(other, request, held) == wanted
        (plain / file).unlink()
    words = "{% for m in messages %}[{{ m['content'] }}]{% endfor %}"
    simple = configured(plain, tmp_path / "text", "tokenizer_config.json", chat_template=words)
    _, processor = reference(plain)
    theirs = inputs_of(processor, f"[<image>\n{QUESTION}]", pictures[:1])["input_ids"]
    assert prompt_ids(simple, request, held) == theirs[0].tolist()


def test_a_template_that_writes_the_start_token_gets_no_second(
    folder: Path, plain: Path, tmp_path: Path, held: Any
) -> None:
    template = (folder / "chat_template.jinja").read_text()
    (plain / "chat_template.jinja").write_text("{{ bos_token }}" + template)
    assert prompt_ids(plain, Request.of("a cat"), held) == prompt_ids(
        folder, Request.of("a cat"), held
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"vision_feature_select_strategy": "full"},
        {"vision_feature_layer": -1},
    ],
)
def test_other_settings_of_the_tower(
    folder: Path, tmp_path: Path, pictures: list[Any], held: Any, changes: dict[str, Any]
) -> None:
    other = configured(folder, tmp_path / "other", **changes)
    request = Request.of(Part.image(pictures[0]), QUESTION)
    ours, prepared = answer(other, filled(Llava(), other), request, held)
    model, processor = reference(other)
    inputs = inputs_of(processor, f"USER: <image>\n{QUESTION} ASSISTANT:", pictures[:1])
    assert torch.equal(prepared.inputs["input_ids"], inputs["input_ids"])
    assert same(ours, answer_of(model, inputs))
    spec = Llava().describe(Checkpoint.at(other))
    assert spec.vision is not None
    assert spec.vision.picture.cost(140, 100).tokens == prepared.media_tokens


def test_siglip_towers_and_tied_decoders(tmp_path: Path, folder: Path) -> None:
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    config = Checkpoint.at(folder).config
    tower = {
        key: value
        for key, value in config["vision_config"].items()
        if key not in ("model_type", "projection_dim")
    }
    other = configured(
        folder,
        tmp_path / "siglip",
        vision_config={**tower, "model_type": "siglip_vision_model", "vision_use_head": False},
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
        text_config={**config["text_config"], "tie_word_embeddings": True},
    )
    model = LlavaForConditionalGeneration(LlavaConfig.from_pretrained(other))
    model.save_pretrained(other)
    check_description(Llava(), other)
    spec = Llava().describe(Checkpoint.at(other))
    assert spec.text is not None
    assert spec.vision is not None
    assert spec.text.tied
    assert spec.vision.picture.cost(9, 9).tokens == 16
    assert spec.vision.picture.cost(9, 9).patches == 16
    module = filled(Llava(), other)
    assert module.lm_head.weight is module.model.language_model.embed_tokens.weight


def hub_name(name: str) -> str:
    return name.replace("vision_tower.", "vision_tower.vision_model.")


def module_name(name: str) -> str:
    name = name.replace("language_model.model.", "model.language_model.")
    name = name.replace("language_model.lm_head", "lm_head")
    if name.startswith(("vision_tower", "multi_modal")):
        name = "model." + name
    return name


@pytest.mark.parametrize("rename", [hub_name, module_name])
def test_older_and_newer_names_load_the_same(
    folder: Path, module: Any, tmp_path: Path, pictures: list[Any], held: Any, rename: Any
) -> None:
    other = renamed(folder, tmp_path / "other", rename)
    check_description(Llava(), other)
    request = Request.of(Part.image(pictures[0]), QUESTION)
    processor = Llava().processor(Checkpoint.at(other))
    prepared = processor.prepare(request, held)
    with torch.inference_mode():
        theirs = module(**prepared.inputs).logits
        assert torch.equal(filled(Llava(), other)(**prepared.inputs).logits, theirs)


def test_bfloat16_runs(folder: Path, pictures: list[Any], held: Any) -> None:
    half = filled(Llava(), folder, torch.bfloat16)
    ours, _ = answer(folder, half, Request.of(Part.image(pictures[0]), QUESTION), held)
    model, processor = reference(folder)
    inputs = inputs_of(processor, f"USER: <image>\n{QUESTION} ASSISTANT:", pictures[:1])
    inputs["pixel_values"] = inputs["pixel_values"].bfloat16()
    assert same(ours, answer_of(model.bfloat16(), inputs))


@pytest.mark.parametrize("other", ["vision", "language", "projector"])
def test_components_may_be_of_different_types(
    folder: Path, pictures: list[Any], held: Any, other: str
) -> None:
    mixed = filled(Llava(), folder, **{other: torch.bfloat16})
    ours, _ = answer(folder, mixed, Request.of(Part.image(pictures[0]), QUESTION), held)
    assert ours


def test_the_description_fits_the_model(folder: Path) -> None:
    check_description(Llava(), folder)
    spec = Llava().describe(Checkpoint.at(folder))
    assert [part.name for part in spec.components] == ["vision", "projector", "language"]
    assert spec.text is not None
    assert (spec.text.kv_heads, spec.text.head_dim, spec.text.window) == (2, 16, None)


def test_defaults_are_those_of_transformers(folder: Path, tmp_path: Path) -> None:
    from transformers import LlamaConfig, MistralConfig, Qwen2Config

    for config in (LlamaConfig(), MistralConfig(), Qwen2Config()):
        bare = {"model_type": config.model_type}
        other = configured(folder, tmp_path / config.model_type, text_config=bare)
        text = Llava().describe(Checkpoint.at(other)).text
        assert text is not None
        assert text.hidden == config.hidden_size
        assert text.ffn == config.intermediate_size
        assert text.layers == config.num_hidden_layers
        assert text.heads == config.num_attention_heads
        assert text.kv_heads == config.num_key_value_heads
        assert text.vocabulary == config.vocab_size
        assert text.positions == config.max_position_embeddings
        assert text.window == (4096 if config.model_type == "mistral" else None)


def test_what_it_does_not_take(folder: Path, held: Any, tmp_path: Path) -> None:
    processor = Llava().processor(Checkpoint.at(folder))
    with pytest.raises(InputError, match="take no films"):
        processor.prepare(Request.of(Part.video("a.mp4"), "what?"), held)
    with pytest.raises(InputError, match="take no sound"):
        processor.prepare(Request.of(Part.audio("a.wav"), "what?"), held)
    with pytest.raises(InputError, match="stands for a picture"):
        processor.prepare(Request.of("<image> what?"), held)
    pixtral = configured(folder, tmp_path / "p", vision_config={"model_type": "pixtral"})
    with pytest.raises(UnsupportedFormat, match="pixtral"):
        Llava().describe(Checkpoint.at(pixtral))


def test_damaged_templates_and_tokenizers(
    folder: Path, plain: Path, tmp_path: Path, pictures: list[Any], held: Any
) -> None:
    request = Request.of(Part.image(pictures[0]), QUESTION)
    (plain / "chat_template.json").write_text("{}")
    with pytest.raises(BrokenFile, match="chat_template"):
        Llava().processor(Checkpoint.at(plain))
    (plain / "chat_template.json").unlink()
    for template, message in (
        ("{{ raise_exception('no system') }}", "refuses"),
        ("{% for", "refuses"),
        ("type: no room", "room for 0"),
    ):
        (plain / "chat_template.jinja").write_text(template)
        with pytest.raises(InputError, match=message):
            Llava().processor(Checkpoint.at(plain)).prepare(request, held)
    wrong = configured(folder, tmp_path / "wrong", image_token_index=20, image_token_id=None)
    with pytest.raises(InputError, match="picture"):
        Llava().processor(Checkpoint.at(wrong)).prepare(request, held)
