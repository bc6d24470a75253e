"""Phi-4-multimodal against transformers' own class; inputs and tokens also against what its own
processor makes on torchvision (``tests/golden/phi4_prompts.py``)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from octavo.errors import InputError, UnsupportedFormat
from octavo.hardware.pictures_phi4 import HighDefinition
from octavo.models.checkpoint import Checkpoint
from octavo.models.families.phi4_multimodal import Phi4Multimodal
from octavo.models.family import Guard, Prepared
from octavo.requests import InputMode, Part, Request, Sampling
from tests.golden.phi4_pictures import drawn
from tests.golden.phi4_prompts import CASES, NEW_TOKENS, loud, noise, runs
from tests.models.families.assigned import assigned, check_description_but
from tests.models.families.filling import configured

FAMILY = Phi4Multimodal()
RATE = 16_000
GOLDEN = Path(__file__).parents[2] / "golden" / "phi4_prompts.json"


@pytest.fixture(scope="module")
def folder(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("loud") / "phi4"
    shutil.copytree(tiny("phi4-multimodal"), into)
    return loud(into)


@pytest.fixture(scope="module")
def golden() -> Any:
    return json.loads(GOLDEN.read_text())["cases"]


@pytest.fixture(scope="module")
def module(folder: Path) -> Any:
    return assigned(FAMILY, folder)


@pytest.fixture(scope="module")
def processor(folder: Path) -> Any:
    return FAMILY.processor(Checkpoint.at(folder))


def request_of(name: str) -> Request:
    def part(one: Any) -> Part | str:
        if isinstance(one, str):
            return one
        if one[0] == "image":
            return Part.image(drawn(*one[1:]))
        return Part.audio((noise(one[1]), RATE))

    return Request.of(*map(part, CASES[name]))


def answer(module: Any, processor: Any, prepared: Prepared) -> list[int]:
    made = FAMILY.generate(
        module, processor, prepared, max_new_tokens=NEW_TOKENS, sampling=Sampling(), guard=Guard()
    )
    return list(made.tokens)


@pytest.mark.parametrize("name", sorted(CASES))
def test_ids_and_tokens_are_those_of_the_stock_processor(
    name: str, module: Any, processor: Any, held: Any, golden: Any
) -> None:
    prepared = processor.prepare(request_of(name), held)
    ids = prepared.inputs["input_ids"][0].tolist()
    assert runs(ids) == golden[name]["prompt"]
    assert prepared.prompt_tokens == len(ids)
    assert prepared.media_tokens == sum(token in (2, 3) for token in ids)
    assert answer(module, processor, prepared) == golden[name]["tokens"]


def test_the_cases_answer_differently(golden: Any) -> None:
    answers = {tuple(case["tokens"]) for case in golden.values()}
    assert len(answers) >= 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_logits_and_tokens_as_transformers(
    dtype: torch.dtype, folder: Path, processor: Any, held: Any
) -> None:
    from transformers import Phi4MultimodalForCausalLM

    module = assigned(FAMILY, folder, dtype)
    reference = Phi4MultimodalForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    small = Part.image(drawn(140, 100)), "and", Part.audio((noise(5000), RATE)), "total"
    prepared = processor.prepare(Request.of(*small), held)
    inputs = dict(prepared.inputs)
    # transformers' processor gives the mask as numbers.
    inputs["image_attention_mask"] = inputs["image_attention_mask"].float()
    with torch.inference_mode():
        ours, expected = module(**prepared.inputs).logits, reference(**inputs).logits
        made = reference.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
    assert torch.allclose(ours, expected, atol=1e-5)
    assert answer(module, processor, prepared) == made[0, prepared.prompt_tokens :].tolist()


def test_large_pictures_are_counted_exactly_in_bfloat16(
    folder: Path, processor: Any, held: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bfloat16 has no number between 256 and 258, and the model counts the mask's columns."""
    extended = assigned(FAMILY, folder, torch.bfloat16).model.embed_tokens_extend
    monkeypatch.setattr(processor, "_rule", HighDefinition(crops=36))
    prepared = processor.prepare(Request.of(Part.image(drawn(7650, 440))), held)
    mask = prepared.inputs["image_attention_mask"]
    columns = int(mask[0, 1:, 0, ::2].sum())
    assert columns > 256
    assert columns % 2 == 1

    def features(pixels: torch.Tensor, attention_mask: Any) -> torch.Tensor:
        return torch.zeros(len(pixels), 256, 64, dtype=torch.bfloat16)

    monkeypatch.setattr(extended.image_embed, "get_img_features", features)
    ids = prepared.inputs["input_ids"]
    given = {
        "image_pixel_values": prepared.inputs["image_pixel_values"],
        "image_sizes": prepared.inputs["image_sizes"],
    }
    embeds = torch.zeros(1, ids.shape[1], 64, dtype=torch.bfloat16)
    extended(ids, embeds, image_attention_mask=mask, **given)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        extended(ids, embeds, image_attention_mask=mask.bfloat16(), **given)


def test_words_alone_need_no_tower(folder: Path, module: Any, processor: Any, held: Any) -> None:
    bare = assigned(FAMILY, folder, only=FAMILY.components_for(InputMode.LANGUAGE))
    extended = bare.model.embed_tokens_extend
    assert all(p.is_meta for p in extended.image_embed.img_processor.parameters())
    assert all(p.is_meta for p in extended.audio_embed.encoder.parameters())
    prepared = processor.prepare(request_of("text"), held)
    assert answer(bare, processor, prepared) == answer(module, processor, prepared)
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        answer(bare, processor, processor.prepare(request_of("sound"), held))


def test_saved_and_loaded_again(folder: Path, module: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = {name: value.clone() for name, value in module.state_dict().items()}
    state.pop("lm_head.weight")
    again = tmp_path / "again"
    again.mkdir()
    (again / "config.json").write_text((folder / "config.json").read_text())
    save_file(state, again / "model.safetensors", metadata={"format": "pt"})
    kept = assigned(FAMILY, again).state_dict()
    first = load_file(folder / "model.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in first.items())


def test_description_is_that_of_the_module(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # torch's attention reads this layer's weight as a plain tensor.
    check_description_but(monkeypatch, FAMILY, folder, ".head.attention.")
    spec = FAMILY.describe(Checkpoint.at(folder))
    assert [part.name for part in spec.components] == ["vision", "audio", "projector", "language"]
    assert spec.text is not None
    assert spec.text.tied
    assert spec.text.kv_heads == 2
    assert spec.vision is not None
    assert spec.vision.picture == HighDefinition(crops=4)
    assert spec.audio is not None
    assert spec.audio.tokens_per_second == 12.5


def test_tokens_of_sound_are_as_planned(folder: Path, processor: Any, held: Any) -> None:
    audio = FAMILY.describe(Checkpoint.at(folder)).audio
    prepared = processor.prepare(Request.of(Part.audio((noise(10 * RATE), RATE))), held)
    assert prepared.media_tokens == pytest.approx(10 * audio.tokens_per_second, abs=1)


@pytest.mark.parametrize(
    ("name", "component"),
    [
        ("model.layers.3.self_attn.qkv_proj.weight", "language"),
        ("model.embed_tokens.weight", "language"),
        ("model.embed_tokens_extend.image_embed.img_processor.head.probe", "vision"),
        ("model.embed_tokens_extend.image_embed.img_projection_up.weight", "projector"),
        ("model.embed_tokens_extend.image_embed.global_img_feature_extensor", "projector"),
        ("model.embed_tokens_extend.audio_embed.encoder.encoders.0.layer_norm.weight", "audio"),
        ("model.embed_tokens_extend.audio_embed.up_proj_for_speech.weight", "projector"),
    ],
)
def test_components_of_published_names(name: str, component: str) -> None:
    assert FAMILY.component_of(name) == component


def test_the_first_release_is_refused(folder: Path, tmp_path: Path) -> None:
    first = Checkpoint.at(configured(folder, tmp_path / "first", model_type="phi4mm"))
    assert FAMILY.recognizes(first)
    for ask in (FAMILY.describe, FAMILY.build, FAMILY.processor):
        with pytest.raises(UnsupportedFormat, match="first release") as caught:
            ask(first)
        assert "phi4_multimodal" in str(caught.value.next_step)


def test_settings_that_do_not_fit_the_tower_are_refused(folder: Path, tmp_path: Path) -> None:
    odd = configured(folder, tmp_path / "odd", file="preprocessor_config.json", patch_size=16)
    with pytest.raises(InputError, match="patches of 16"):
        FAMILY.describe(Checkpoint.at(odd))
    flat = configured(folder, tmp_path / "flat", file="preprocessor_config.json", size=224)
    with pytest.raises(InputError, match="crops of 224"):
        FAMILY.processor(Checkpoint.at(flat))
    bare = configured(folder, tmp_path / "bare", hidden_size=None)
    with pytest.raises(InputError, match="no 'hidden_size'"):
        FAMILY.describe(Checkpoint.at(bare))
    wrong = configured(folder, tmp_path / "wrong", audio_config=[1])
    with pytest.raises(InputError, match="audio_config"):
        FAMILY.build(Checkpoint.at(wrong))
