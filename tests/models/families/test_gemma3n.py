"""Gemma 3n against transformers' own class, processor and timm tower."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from octavo.errors import InputError, MissingDependency, UnsupportedFormat
from octavo.models.checkpoint import Checkpoint
from octavo.models.families.gemma3n import Gemma3n
from octavo.models.family import Guard, Prepared
from octavo.requests import InputMode, Part, Request, Sampling
from tests.golden.gemma3n_tower import SIZES, WIDTH, fill, pixels, samples
from tests.models.families.assigned import assigned, check_description_but
from tests.models.families.filling import configured
from tests.models.families.timm_without_torchvision import import_timm, transformers_with_timm

FAMILY = Gemma3n()
RATE = 16_000
NEW = 6


@pytest.fixture(scope="module")
def folder(tiny: Any) -> Path:
    return tiny("gemma3n")


@pytest.fixture(scope="module")
def sound() -> Any:
    return (np.random.default_rng(1).standard_normal(RATE) * 0.1).astype(np.float32)


@pytest.fixture(scope="module")
def module(folder: Path) -> Any:
    return assigned(FAMILY, folder)


@pytest.fixture(scope="module")
def processor(folder: Path) -> Any:
    return FAMILY.processor(Checkpoint.at(folder))


def reference(folder: Path, dtype: torch.dtype) -> Any:
    """transformers' class with timm's tower; where timm is not installed, with ours, which is then
    compared with golden values only."""
    from transformers import Gemma3nConfig, Gemma3nForConditionalGeneration

    if importlib.util.find_spec("timm") is None:
        from octavo.models.families._gemma3n_tower import own_tower

        config = Gemma3nConfig.from_pretrained(folder)
        config.vision_config = own_tower(config.vision_config)
        return Gemma3nForConditionalGeneration.from_pretrained(
            folder, config=config, dtype=dtype
        ).eval()
    with pytest.MonkeyPatch.context() as patch:
        transformers_with_timm(patch)
        model = Gemma3nForConditionalGeneration.from_pretrained(folder, dtype=dtype).eval()
    assert type(model.model.vision_tower.timm_model).__module__.startswith("timm.")
    return model


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return reference(folder, torch.float32)


@pytest.fixture(scope="module")
def their_processor(folder: Path) -> Any:
    from transformers import AutoTokenizer, Gemma3nAudioFeatureExtractor, Gemma3nProcessor
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    return Gemma3nProcessor(
        Gemma3nAudioFeatureExtractor.from_pretrained(folder),
        SiglipImageProcessorPil.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
        audio_seq_length=8,
        image_seq_length=16,
    )


def contents(picture: Any, sound: Any) -> dict[str, list[Any]]:
    image, audio = Part.image(picture), Part.audio((sound, RATE))
    return {
        "language": [" hello cat "],
        "vision": [image, "what is it?", Part.image(picture[:50, :30])],
        "speech": ["listen", audio, Part.audio((sound[:7000], RATE)), "what is said?"],
        "vision-speech": ["look", image, "and hear", audio, "now"],
    }


def stock(processor: Any, parts: list[Any]) -> dict[str, Any]:
    """What transformers' processor makes of the same request."""
    from PIL import Image

    kinds = [
        {"type": "text", "text": p} if isinstance(p, str) else {"type": p.kind.value} for p in parts
    ]
    said = [
        {"role": "system", "content": [{"type": "text", "text": "be kind"}]},
        {"role": "user", "content": kinds},
    ]
    text = processor.tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    media = [part for part in parts if isinstance(part, Part)]
    inputs = processor(
        text=text,
        images=[Image.fromarray(p.value) for p in media if p.kind == "image"] or None,
        audio=[p.value[0] for p in media if p.kind == "audio"] or None,
        return_tensors="pt",
        add_special_tokens=False,
    )
    inputs.pop("token_type_ids")
    return dict(inputs)


def answer(module: Any, processor: Any, prepared: Prepared) -> list[int]:
    made = FAMILY.generate(
        module, processor, prepared, max_new_tokens=NEW, sampling=Sampling(), guard=Guard()
    )
    return list(made.tokens)


@pytest.mark.parametrize("mode", [mode.value for mode in InputMode])
def test_same_inputs_logits_and_tokens_as_transformers(
    mode: str,
    module: Any,
    processor: Any,
    theirs: Any,
    their_processor: Any,
    held: Any,
    picture: Any,
    sound: Any,
) -> None:
    parts = contents(picture, sound)[mode]
    request = Request.of(*parts, system="be kind")
    assert request.mode == mode
    prepared = processor.prepare(request, held)
    expected = stock(their_processor, parts)
    assert set(prepared.inputs) == set(expected)
    for name, value in expected.items():
        assert torch.equal(prepared.inputs[name], value), name
    assert prepared.prompt_tokens == expected["input_ids"].shape[1]
    with torch.inference_mode():
        ours, wanted = module(**prepared.inputs).logits, theirs(**expected).logits
        made = theirs.generate(**expected, max_new_tokens=NEW, do_sample=False)
    assert torch.allclose(ours, wanted, atol=1e-5)
    tokens = made[0, prepared.prompt_tokens :].tolist()
    assert len(set(tokens)) > 1
    assert answer(module, processor, prepared) == tokens


def test_media_change_the_answer(
    module: Any, processor: Any, held: Any, picture: Any, sound: Any
) -> None:
    def logits(*parts: Any) -> torch.Tensor:
        with torch.inference_mode():
            return module(**processor.prepare(Request.of(*parts), held).inputs).logits[0, -1]

    seen = [logits(Part.image(one), "what?") for one in (picture, 255 - picture)]
    heard = [logits(Part.audio((one, RATE)), "what?") for one in (sound, sound[::-1].copy())]
    assert (seen[0] - seen[1]).abs().max() > 1e-3
    assert (heard[0] - heard[1]).abs().max() > 1e-3


def test_bfloat16_is_that_of_transformers(
    folder: Path, processor: Any, held: Any, picture: Any, sound: Any
) -> None:
    module = assigned(FAMILY, folder, torch.bfloat16)
    prepared = processor.prepare(
        Request.of(*contents(picture, sound)["vision-speech"], system="be kind"), held
    )
    theirs = reference(folder, torch.bfloat16)
    with torch.inference_mode():
        made = theirs.generate(**prepared.inputs, max_new_tokens=NEW, do_sample=False)
    assert answer(module, processor, prepared) == made[0, prepared.prompt_tokens :].tolist()


def test_words_alone_need_no_tower(
    folder: Path, module: Any, processor: Any, held: Any, picture: Any
) -> None:
    needed = FAMILY.components_for(InputMode.LANGUAGE)
    assert needed == {"language", "projector"}
    bare = assigned(FAMILY, folder, only=needed)
    assert all(p.is_meta for p in bare.model.vision_tower.parameters())
    assert all(p.is_meta for p in bare.model.audio_tower.parameters())
    prepared = processor.prepare(Request.of("hello cat"), held)
    assert answer(bare, processor, prepared) == answer(module, processor, prepared)
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        answer(bare, processor, processor.prepare(Request.of(Part.image(picture)), held))


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
    check_description_but(monkeypatch, FAMILY, folder, ".altup.")
    spec = FAMILY.describe(Checkpoint.at(folder))
    assert [part.name for part in spec.components] == ["vision", "audio", "projector", "language"]
    assert spec.text is not None
    assert (spec.text.window, spec.text.full_layers, spec.text.kv_layers) == (8, 1, 2)
    assert spec.text.tied
    assert spec.vision is not None
    assert spec.vision.layers == 84
    assert spec.vision.picture.cost(1000, 10).tokens == 18
    assert spec.audio is not None
    assert spec.audio.tokens_per_second * 30 == pytest.approx(8)


def test_keys_and_values_match_what_a_cache_holds(
    folder: Path, module: Any, processor: Any, held: Any
) -> None:
    text = FAMILY.describe(Checkpoint.at(folder)).text
    prepared = processor.prepare(Request.of("one two three " * 9), held)
    with torch.inference_mode():
        cache = module(**prepared.inputs, use_cache=True).past_key_values
    kept = [layer for layer in cache.layers if layer.keys is not None and layer.keys.numel()]
    assert len(kept) == text.kv_layers
    sizes = sorted(layer.keys.nbytes + layer.values.nbytes for layer in kept)
    full = prepared.prompt_tokens * 2 * text.kv_heads * text.head_dim * 4
    # transformers keeps one token less than the window; the next one fills it.
    slid = (text.window - 1) * 2 * text.kv_heads * text.head_dim * 4
    assert sizes == [slid, full]
    assert text.kv_bytes(prepared.prompt_tokens, 4) == full + slid * text.window // (
        text.window - 1
    )


def test_unused_keys_and_values_are_not_counted(folder: Path) -> None:
    """Published checkpoints hold keys and values of layers that share earlier ones."""
    checkpoint = Checkpoint.at(folder)
    plain = FAMILY.describe(checkpoint)
    path = "model.language_model.layers.{}.self_attn.k_proj.weight"
    own = checkpoint.tensors[path.format(1)]
    extra = dataclasses.replace(own, name=path.format(3))
    checkpoint.__dict__["tensors"] = {**checkpoint.tensors, extra.name: extra}
    assert FAMILY.describe(checkpoint).components == plain.components
    assert extra.name not in FAMILY.sources(checkpoint, FAMILY.build(checkpoint)).values()


@pytest.mark.parametrize(
    ("name", "component"),
    [
        ("model.language_model.layers.3.mlp.up_proj.weight", "language"),
        ("model.language_model.embed_tokens_per_layer.weight", "language"),
        ("lm_head.weight", "language"),
        ("model.vision_tower.timm_model.blocks.2.9.attn.key.proj.weight", "vision"),
        ("model.audio_tower.conformer.0.ffw_layer_start.ffw_layer_1.weight", "audio"),
        ("model.embed_vision.embedding_projection.weight", "projector"),
        ("model.embed_audio.embedding.weight", "projector"),
    ],
)
def test_components_of_published_names(name: str, component: str) -> None:
    assert FAMILY.component_of(name) == component


def test_nothing_asks_for_torchvision_or_timm(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] in ("timm", "torchvision"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    FAMILY.build(Checkpoint.at(folder))
    FAMILY.processor(Checkpoint.at(folder))


def test_other_towers_need_timm(folder: Path, tmp_path: Path) -> None:
    from transformers.utils import is_timm_available

    vision = json.loads((folder / "config.json").read_text())["vision_config"]
    if not is_timm_available():
        other = configured(
            folder, tmp_path / "other", vision_config=vision | {"architecture": "resnet18"}
        )
        with pytest.raises(MissingDependency, match="resnet18 needs timm"):
            FAMILY.build(Checkpoint.at(other))
    odd = configured(
        folder, tmp_path / "odd", vision_config=vision | {"model_args": {"act_layer": "relu"}}
    )
    with pytest.raises(UnsupportedFormat, match="act_layer"):
        FAMILY.build(Checkpoint.at(odd))


def test_a_configuration_without_a_decoder_is_refused(folder: Path, tmp_path: Path) -> None:
    bare = configured(folder, tmp_path / "bare", text_config=None)
    with pytest.raises(InputError, match="no 'text_config'"):
        FAMILY.describe(Checkpoint.at(bare))
    odd = configured(folder, tmp_path / "odd", text_config=[1])
    with pytest.raises(InputError, match="no object"):
        FAMILY.describe(Checkpoint.at(odd))


@pytest.fixture(scope="module")
def golden() -> Any:
    path = Path(__file__).parents[2] / "golden" / "gemma3n_tower.json"
    return json.loads(path.read_text())


class TestTower:
    @pytest.mark.parametrize("side", sorted(SIZES))
    def test_features_are_those_of_timm(self, side: int, golden: Any) -> None:
        from octavo.models.families._mobilenet_v5 import MobileNetV5

        tower = MobileNetV5(WIDTH, SIZES[side]).eval()
        fill(tower)
        tower.double()
        with torch.inference_mode():
            found = tower(pixels(side).double())
        assert found.shape == (1, 2048, SIZES[side], SIZES[side])
        expected = golden["values"][str(side)]
        assert np.std(expected) > 0.3
        assert samples(found) == pytest.approx(expected, abs=1e-6)

    def test_names_and_shapes_are_those_of_timm(self, golden: Any) -> None:
        from octavo.models.families._mobilenet_v5 import MobileNetV5

        with torch.device("meta"):
            state = MobileNetV5().state_dict()
        assert len(state) == golden["tensors"]
        assert sum(value.numel() for value in state.values()) == golden["parameters"]
        assert set(golden["names"]) <= set(state)

    def test_the_installed_timm_agrees(self) -> None:
        from octavo.models.families._mobilenet_v5 import MobileNetV5

        timm = import_timm()
        with torch.device("meta"):
            theirs = timm.create_model("mobilenetv5_300m_enc", num_classes=0).state_dict()
            ours = MobileNetV5().state_dict()
        assert {n: v.shape for n, v in ours.items()} == {n: v.shape for n, v in theirs.items()}
