"""Qwen3-VL, Qwen2.5-VL and Qwen2-VL against transformers' own classes and processors."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from octavo.hardware.spec import Precision
from octavo.models.checkpoint import Checkpoint
from octavo.models.families.qwen2_5_vl import Qwen25VL
from octavo.models.families.qwen3_vl import Qwen3VL
from octavo.models.family import Family, Guard, Prepared
from octavo.models.registry import family_of
from octavo.requests import Frame, Message, Part, Request, Sampling, VideoSampling
from tests.golden import qwen_films
from tests.models.families.filling import check_description, configured, filled

FAMILIES: dict[str, Family] = {"qwen3-vl": Qwen3VL(), "qwen2.5-vl": Qwen25VL()}
GOLDEN = json.loads((Path(qwen_films.__file__).parent / "qwen_films.json").read_text())
BOTH = pytest.mark.parametrize("name", sorted(FAMILIES))
NOISE = np.random.default_rng(1)
WIDE = NOISE.integers(0, 256, (100, 140, 3), dtype=np.uint8)
TALL = NOISE.integers(0, 256, (150, 60, 3), dtype=np.uint8)


class Media:
    """Pictures are arrays; films are named after those of the golden file."""

    def picture(self, part: Part) -> Any:
        return part.value

    def sound(self, part: Part, rate: int) -> Any:
        raise AssertionError((part, rate))

    def frames(self, part: Part, sampling: VideoSampling) -> Iterator[Frame]:
        del sampling
        _, _, rate, numbers = qwen_films.FILMS[part.value]
        for number, pixels in zip(numbers, qwen_films.frames(part.value), strict=True):
            yield Frame(number / rate, pixels)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def lively(
    tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Tiny checkpoints with larger weights, whose answers depend on what they are shown."""
    made: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp("lively") / name
            shutil.copytree(tiny(name), folder)
            tensors = load_file(folder / "model.safetensors")
            grown = {
                key: tensor * 8 if tensor.ndim > 1 else tensor for key, tensor in tensors.items()
            }
            save_file(grown, folder / "model.safetensors", metadata={"format": "pt"})
            made[name] = folder
        return made[name]

    return of


def _prepared(folder: Path, request: Request) -> Prepared:
    checkpoint = Checkpoint.at(folder)
    return family_of(checkpoint).processor(checkpoint).prepare(request, Media())


def _answer(folder: Path, module: Any, request: Request, tokens: int = 12) -> tuple[int, ...]:
    checkpoint = Checkpoint.at(folder)
    family = family_of(checkpoint)
    processor = family.processor(checkpoint)
    return family.generate(
        module,
        processor,
        processor.prepare(request, Media()),
        max_new_tokens=tokens,
        sampling=Sampling(),
        guard=Guard(),
    ).tokens


def _stock_processor(folder: Path) -> Any:
    """transformers' own, without the films that need torchvision."""
    import transformers

    name = {"qwen3_vl": "Qwen3VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen2_vl": "Qwen2VL"}
    whole = getattr(transformers, name[Checkpoint.at(folder).model_type] + "Processor")
    pictures = importlib.import_module(
        "transformers.models.qwen2_vl.image_processing_pil_qwen2_vl"
    ).Qwen2VLImageProcessorPil.from_pretrained(folder)

    class Pictures(whole):  # type: ignore[misc,valid-type]
        @classmethod
        def get_attributes(cls) -> list[str]:
            return ["image_processor", "tokenizer"]

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    template = (folder / "chat_template.jinja").read_text()
    return Pictures(image_processor=pictures, tokenizer=tokenizer, chat_template=template)


def _stock_inputs(folder: Path, request: Request) -> dict[str, torch.Tensor]:
    from PIL import Image

    messages = [
        {
            "role": message.role,
            "content": [
                {"type": "text", "text": part.value}
                if isinstance(part.value, str)
                else {"type": "image", "image": Image.fromarray(part.value)}
                for part in message.parts
            ],
        }
        for message in request.messages
    ]
    made: dict[str, torch.Tensor] = _stock_processor(folder).apply_chat_template(
        messages, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    return dict(made)


def _stock_model(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype).eval()


def _logits(module: Any, prepared: Prepared) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = module(**prepared.inputs).logits
    return found


REQUESTS = {
    "text": Request.of("describe the cat", system="be brief"),
    "one picture": Request.of(Part.image(WIDE), "what is this"),
    "two pictures": Request.of("first", Part.image(WIDE), "then", Part.image(TALL), "compare"),
    "turns": Request(
        (
            Message("user", (Part.image(TALL), Part.text("what is this"))),
            Message("assistant", (Part.text("a chair"),)),
            Message("user", (Part.text("and this"), Part.image(WIDE))),
        )
    ),
}
FILM = Request.of(Part.image(WIDE), Part.video("odd"), "and", Part.image(TALL), Part.video("even"))


@BOTH
@pytest.mark.parametrize("case", sorted(REQUESTS))
def test_inputs_are_those_of_transformers(
    tiny: Callable[[str], Path], name: str, case: str
) -> None:
    prepared = _prepared(tiny(name), REQUESTS[case])
    wanted = _stock_inputs(tiny(name), REQUESTS[case])
    assert sorted(prepared.inputs) == sorted(wanted)
    for key, value in wanted.items():
        assert torch.equal(prepared.inputs[key], value), key
        assert prepared.inputs[key].dtype == value.dtype, key
    assert prepared.prompt_tokens == wanted["input_ids"].shape[1]
    assert prepared.media_tokens == int((wanted["mm_token_type_ids"] > 0).sum())


@BOTH
@pytest.mark.parametrize("film", sorted(qwen_films.FILMS))
def test_inputs_of_films_are_those_of_transformers(
    tiny: Callable[[str], Path], name: str, film: str
) -> None:
    from transformers import AutoTokenizer

    prepared = _prepared(tiny(name), Request.of(Part.video(film), "what"))
    wanted = GOLDEN[name][film]
    words = AutoTokenizer.from_pretrained(tiny(name)).decode(prepared.inputs["input_ids"][0])
    assert qwen_films.shortened(str(words)) == wanted["prompt"]
    assert sorted(prepared.inputs) == wanted["keys"]
    assert prepared.inputs["video_grid_thw"].tolist() == wanted["grid"]
    assert int((prepared.inputs["mm_token_type_ids"] == 2).sum()) == wanted["kinds"]
    assert prepared.inputs.get("second_per_grid_ts", torch.ones(1)).tolist() == wanted.get(
        "pace", [1.0]
    )
    assert film in prepared.notes[0]
    assert " frames of " in prepared.notes[0]


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_same_greedy_tokens_as_transformers(
    lively: Callable[[str], Path], name: str, dtype: torch.dtype
) -> None:
    folder = lively(name)
    ours, theirs = filled(FAMILIES[name], folder, dtype), _stock_model(folder, dtype)
    answers = {}
    for case, request in REQUESTS.items():
        inputs = _stock_inputs(folder, request)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(dtype)
        answers[case] = _answer(folder, ours, request)
        wanted = theirs.generate(**inputs, max_new_tokens=12, do_sample=False)
        found = wanted[0, inputs["input_ids"].shape[1] :].tolist()
        ends = [2, 0]
        assert list(answers[case]) == (found[:-1] if found[-1] in ends else found), case
    prepared = _prepared(folder, FILM)
    inputs = {
        key: value.to(dtype) if value.is_floating_point() else value
        for key, value in prepared.inputs.items()
    }
    wanted = theirs.generate(**inputs, max_new_tokens=12, do_sample=False)
    answers["films"] = _answer(folder, ours, FILM)
    assert list(answers["films"]) == wanted[0, prepared.prompt_tokens :].tolist()
    assert len(set(answers.values())) == len(answers), "answers depend on what is shown"


@BOTH
@pytest.mark.parametrize("merged", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("seen", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_each_component_in_its_own_precision(
    tiny: Callable[[str], Path], name: str, seen: torch.dtype, merged: torch.dtype
) -> None:
    module = filled(FAMILIES[name], tiny(name), torch.bfloat16)
    visual = module.model.visual.to(seen)
    visual.merger.to(merged)
    if name == "qwen3-vl":
        visual.deepstack_merger_list.to(merged)
    prepared = _prepared(tiny(name), FILM)
    found = _logits(module, prepared)
    wanted = _logits(_stock_model(tiny(name)), prepared)
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, atol=0.05, rtol=0)


@BOTH
def test_the_order_of_pictures_counts(lively: Callable[[str], Path], name: str) -> None:
    module = filled(FAMILIES[name], lively(name))
    first = Request.of(Part.image(WIDE), Part.image(WIDE[:, ::-1]), "compare")
    second = Request.of(Part.image(WIDE[:, ::-1]), Part.image(WIDE), "compare")
    one, two = (_logits(module, _prepared(lively(name), each)) for each in (first, second))
    assert one.shape == two.shape
    assert not torch.allclose(one, two, atol=1e-3)


@BOTH
def test_plain_load_state_dict(tiny: Callable[[str], Path], name: str) -> None:
    folder, family = tiny(name), FAMILIES[name]
    checkpoint = Checkpoint.at(folder)
    module: Any = family.build(checkpoint)
    tensors = load_file(folder / "model.safetensors")
    state = {
        parameter: family.convert(source, tensors[source])
        for parameter, source in family.sources(checkpoint, module).items()
    }
    missing, unexpected = module.load_state_dict(state, strict=False, assign=True)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    module.tie_weights()
    prepared = _prepared(folder, FILM)
    assert torch.equal(_logits(module, prepared), _logits(_stock_model(folder), prepared))


@BOTH
def test_text_alone_never_touches_the_vision_tower(
    lively: Callable[[str], Path], name: str
) -> None:
    folder, family = lively(name), FAMILIES[name]
    blind = filled(family, folder, only={"language"})
    assert all(parameter.is_meta for parameter in blind.model.visual.parameters())
    request = REQUESTS["text"]
    assert _answer(folder, blind, request) == _answer(folder, filled(family, folder), request)
    with pytest.raises((RuntimeError, NotImplementedError), match=r"(?i)meta"):
        _answer(folder, blind, REQUESTS["one picture"])


@BOTH
def test_saved_and_loaded_again(tiny: Callable[[str], Path], name: str, tmp_path: Path) -> None:
    module = filled(FAMILIES[name], tiny(name))
    again = tmp_path / "again"
    shutil.copytree(tiny(name), again, ignore=shutil.ignore_patterns("*.safetensors"))
    module.save_pretrained(again)
    prepared = _prepared(again, FILM)
    assert torch.equal(_logits(filled(FAMILIES[name], again), prepared), _logits(module, prepared))


def _old_name(name: str) -> str:
    return name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


@pytest.mark.parametrize("flat", [False, True], ids=["nested config", "flat config"])
def test_tensors_and_settings_as_they_were_named_before(
    tiny: Callable[[str], Path], flat: bool, tmp_path: Path
) -> None:
    old, family = tmp_path / "old", FAMILIES["qwen2.5-vl"]
    shutil.copytree(tiny("qwen2.5-vl"), old)
    tensors = load_file(old / "model.safetensors")
    renamed = {_old_name(name): tensor for name, tensor in tensors.items()}
    assert not set(renamed) & set(tensors)
    save_file(renamed, old / "model.safetensors", metadata={"format": "pt"})
    if flat:
        config = json.loads((old / "config.json").read_text())
        text = config.pop("text_config")
        rope = text.pop("rope_parameters")
        text["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
        text["rope_theta"] = rope["rope_theta"]
        vision = config.pop("vision_config")
        text.pop("model_type")
        vision.pop("model_type")
        whole = {**text, **config, "vision_config": vision, "torch_dtype": "float32"}
        (old / "config.json").write_text(json.dumps(whole))
    check_description(family, old)
    new = family.describe(Checkpoint.at(tiny("qwen2.5-vl")))
    spec = family.describe(Checkpoint.at(old))
    assert (spec.text, spec.vision, spec.nbytes) == (new.text, new.vision, new.nbytes)
    assert [part.parameters for part in spec.components] == [
        part.parameters for part in new.components
    ]
    prepared = _prepared(old, FILM)
    wanted = _logits(_stock_model(tiny("qwen2.5-vl")), prepared)
    assert torch.equal(_logits(filled(family, old), prepared), wanted)


def test_settings_of_qwen3_as_the_hub_has_them(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    text = json.loads((tiny("qwen3-vl") / "config.json").read_text())["text_config"]
    rope = text.pop("rope_parameters")
    text["rope_theta"] = rope.pop("rope_theta")
    folder = configured(
        tiny("qwen3-vl"), tmp_path / "hub", text_config={**text, "rope_scaling": rope}
    )
    prepared = _prepared(folder, FILM)
    wanted = _logits(_stock_model(tiny("qwen3-vl")), prepared)
    assert torch.equal(_logits(filled(FAMILIES["qwen3-vl"], folder), prepared), wanted)


@BOTH
def test_description(tiny: Callable[[str], Path], name: str) -> None:
    check_description(FAMILIES[name], tiny(name))
    spec = FAMILIES[name].describe(Checkpoint.at(tiny(name)))
    assert [part.name for part in spec.components] == ["vision", "projector", "language"]
    assert spec.stored is Precision.FP32
    merging = {tensor.name for part in spec.components for tensor in part.tensors}
    merging = {tensor for tensor in merging if "merger" in tensor}
    assert {tensor.name for tensor in spec.component("projector").tensors} == merging
    assert spec.text is not None
    assert spec.vision is not None
    assert (spec.text.kv_heads, spec.text.head_dim, spec.text.tied) == (2, 16, True)
    assert (spec.vision.layers, spec.vision.hidden, spec.vision.out_hidden) == (3, 64, 64)
    assert spec.vision.deepstack == (2 if name == "qwen3-vl" else 0)
    cost = spec.vision.picture.cost(140, 100)
    prepared = _prepared(tiny(name), REQUESTS["one picture"])
    assert cost.patches == len(prepared.inputs["pixel_values"])
    assert cost.tokens == prepared.media_tokens + 2


def test_an_untied_head_may_be_quantized(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder = configured(tiny("qwen3-vl"), tmp_path / "untied", tie_word_embeddings=False)
    tensors = load_file(folder / "model.safetensors")
    table = tensors["model.language_model.embed_tokens.weight"]
    save_file({**tensors, "lm_head.weight": table + 1}, folder / "model.safetensors")
    check_description(FAMILIES["qwen3-vl"], folder)
    spec = FAMILIES["qwen3-vl"].describe(Checkpoint.at(folder))
    head = {tensor.name: tensor for tensor in spec.component("language").tensors}["lm_head.weight"]
    assert head.matrix


def test_a_head_stored_beside_its_twin_is_not_counted(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "twice"
    shutil.copytree(tiny("qwen3-vl"), folder)
    tensors = load_file(folder / "model.safetensors")
    table = tensors["model.language_model.embed_tokens.weight"].clone()
    save_file({**tensors, "lm_head.weight": table}, folder / "model.safetensors")
    family = FAMILIES["qwen3-vl"]
    spec, plain = (family.describe(Checkpoint.at(each)) for each in (folder, tiny("qwen3-vl")))
    assert spec.nbytes == plain.nbytes


def test_qwen2_vl(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    folder = tmp_path / "qwen2"
    shutil.copytree(tiny("qwen2.5-vl"), folder, ignore=shutil.ignore_patterns("*.safetensors"))
    old = json.loads((folder / "config.json").read_text())
    text = {key: value for key, value in old["text_config"].items() if key != "model_type"}
    marks = {key: value for key, value in old.items() if key.endswith("_token_id")}
    config = Qwen2VLConfig(
        text_config=text,
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2},
        tie_word_embeddings=True,
        **marks,
    )
    torch.manual_seed(0)
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    family = family_of(Checkpoint.at(folder))
    assert isinstance(family, Qwen25VL)
    check_description(family, folder)
    shape = family.describe(Checkpoint.at(folder)).vision
    assert shape is not None
    assert (shape.hidden, shape.ffn, shape.out_hidden, shape.gated) == (32, 128, 64, False)
    prepared = _prepared(folder, FILM)
    assert "second_per_grid_ts" not in prepared.inputs
    wanted = _logits(_stock_model(folder), prepared)
    assert torch.equal(_logits(filled(family, folder), prepared), wanted)


@BOTH
def test_features_can_be_made_apart(tiny: Callable[[str], Path], name: str) -> None:
    family: Any = FAMILIES[name]
    module = filled(family, tiny(name))
    prepared = _prepared(tiny(name), FILM)
    features = family.media_features(module, prepared)
    assert sorted(features) == ["image", "video"]
    kept = {
        key: value for key, value in prepared.inputs.items() if not key.startswith("pixel_values")
    }
    with torch.inference_mode():
        found = module(**kept, mm_encoder_outputs=features).logits
    assert torch.equal(found, _logits(module, prepared))
    assert family.media_features(module, _prepared(tiny(name), REQUESTS["text"])) == {}


def test_importing_a_family_is_cheap() -> None:
    words = (
        "import sys, octavo.models.families.qwen3_vl, octavo.models.families.qwen2_5_vl; "
        "print([name for name in ('torch', 'transformers', 'PIL', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
