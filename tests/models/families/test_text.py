"""Language models against transformers' own classes, on the same files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.checkpoints.text import make_of_type

from octavo.errors import BrokenFile, InputError
from octavo.hardware.spec import Precision
from octavo.models.checkpoint import Checkpoint
from octavo.models.families.text import Text
from octavo.models.family import Guard
from octavo.models.quantized import swap
from octavo.models.registry import family_of
from octavo.requests import Message, Part, Request, Sampling
from tests.models.families.filling import check_description, configured, filled

#: With what sets them apart: fused weights, biases, norms of other kinds, sliding windows.
KINDS = [
    "llama", "cohere2", "gemma2", "gemma3_text", "glm4", "mistral", "nemotron", "olmo2", "phi",
    "phi3", "qwen2", "qwen3", "stablelm",
]  # fmt: skip
QUESTION = Request.of("describe the image please", system="assistant")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama whose answers vary: its head is not noise alone."""
    made = tmp_path_factory.mktemp("llama")
    make_of_type(made, "llama")
    _sharpen(made / "model.safetensors")
    return made


def _sharpen(weights: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = {
        name: tensor * (8 if tensor.ndim == 2 else 1) for name, tensor in load_file(weights).items()
    }
    save_file(tensors, weights, metadata={"format": "pt"})


def _theirs(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_description_of_every_kind(kind: str, tmp_path: Path) -> None:
    make_of_type(tmp_path, kind)
    _sharpen(tmp_path / "model.safetensors")
    checkpoint = Checkpoint.at(tmp_path)
    family = family_of(checkpoint)
    assert isinstance(family, Text)
    check_description(family, tmp_path)
    inputs = family.processor(checkpoint).prepare(QUESTION, None).inputs
    theirs = _theirs(tmp_path)
    with torch.inference_mode():
        wanted = theirs(**inputs).logits
        got = filled(family, tmp_path)(**inputs).logits
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-4)
    spec = family.describe(checkpoint)
    assert spec.text is not None
    assert spec.parameters == sum(one.numel() for one in theirs.parameters())
    text = theirs.config
    assert spec.text.layers == len(theirs.model.layers)
    assert spec.text.ffn == text.intermediate_size
    assert spec.stored is Precision.BF16


def test_the_shape_counts_the_bytes_of_the_cache(folder: Path, tmp_path: Path) -> None:
    windowed = configured(folder, tmp_path / "m", model_type="mistral", sliding_window=8)
    for place in (folder, windowed):
        spec = Text().describe(Checkpoint.at(place))
        module = filled(Text(), place)
        ids = torch.arange(20)[None] + 5
        with torch.inference_mode():
            cache = module(ids, use_cache=True).past_key_values
        held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
        assert spec.text is not None
        # A window of w keeps w - 1 tokens between steps.
        seen = 20 if place == folder else 8 - 1
        assert held == spec.text.kv_bytes(seen, element=4)
    assert spec.text.window == 8
    assert spec.text.kv_bytes(20) == spec.text.kv_bytes(8)


def test_some_layers_with_a_window_and_some_without(tmp_path: Path) -> None:
    make_of_type(tmp_path, "gemma2")
    place = configured(tmp_path, tmp_path / "m", sliding_window=8)
    shape = Text().describe(Checkpoint.at(place)).text
    assert shape is not None
    assert (shape.window, shape.full_layers) == (8, 1)
    one = shape.kv_bytes(1) // 2
    assert shape.kv_bytes(20) == one * (20 + 8)


def test_a_head_that_is_stored_and_tied_counts_once(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    place = tmp_path / "m"
    shutil.copytree(folder, place)
    tensors = load_file(place / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(16)
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    assert Text().describe(Checkpoint.at(place)).parameters == (
        Text().describe(Checkpoint.at(folder)).parameters
    )


def test_greedy_tokens_are_those_of_transformers(folder: Path) -> None:
    family = Text()
    processor = family.processor(Checkpoint.at(folder))
    prepared = processor.prepare(QUESTION, None)
    made = family.generate(
        filled(family, folder),
        processor,
        prepared,
        max_new_tokens=24,
        sampling=Sampling(),
        guard=Guard(),
    )
    theirs = _theirs(folder).generate(**prepared.inputs, max_new_tokens=24, do_sample=False)
    wanted = theirs[0, prepared.prompt_tokens :].tolist()
    assert len(set(wanted)) > 4
    assert list(made.tokens) == [token for token in wanted if token not in processor.end_tokens]


def test_quantized_layers_answer_nearly_the_same(folder: Path) -> None:
    family, checkpoint = Text(), Checkpoint.at(folder)
    inputs = family.processor(checkpoint).prepare(QUESTION, None).inputs
    spec = family.describe(checkpoint).component("language")
    with torch.inference_mode():
        wanted = filled(family, folder)(**inputs).logits
        for precision, far in ((Precision.INT8, 0.06), (Precision.INT4, 0.6)):
            module = filled(family, folder)
            names = [tensor.name for tensor in spec.tensors if tensor.matrix]
            assert len(swap(module, names, precision, torch.float32)) == len(names) == 14
            distance = (module(**inputs).logits - wanted).norm() / wanted.norm()
            assert 1e-4 < distance < far


def test_the_template_is_used_and_ends_are_known(folder: Path) -> None:
    processor: Any = Text().processor(Checkpoint.at(folder))
    prepared = processor.prepare(QUESTION, None)
    text = processor.tokenizer.decode(prepared.inputs["input_ids"][0])
    assert text == (
        "<|im_start|>system\nassistant<|im_end|>\n<|im_start|>user\ndescribe the image please"
        "<|im_end|>\n<|im_start|>assistant\n"
    )
    assert prepared.prompt_tokens == prepared.inputs["input_ids"].shape[1]
    assert processor.end_tokens == {processor.tokenizer.convert_tokens_to_ids("<|im_end|>")}
    assert processor.decode([*processor.tokenizer("a cat")["input_ids"], 2]) == "a cat"


def test_a_first_token_is_added_only_where_no_template_did(folder: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    place = tmp_path / "m"
    shutil.copytree(folder, place)
    words = Tokenizer.from_file(str(place / "tokenizer.json"))
    words.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    words.save(str(place / "tokenizer.json"))
    templated = Text().processor(Checkpoint.at(place)).prepare(QUESTION, None)
    assert templated.inputs["input_ids"][0, 0] == 1
    (place / "chat_template.jinja").unlink()
    plain = Text().processor(Checkpoint.at(place)).prepare(QUESTION, None)
    assert plain.inputs["input_ids"][0, 0] == 0


def test_ends_of_all_files_count(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "m"
    shutil.copytree(folder, place)
    (place / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 7]}))
    assert Text().processor(Checkpoint.at(place)).end_tokens == {0, 2, 7}


def test_without_a_template_texts_follow_each_other(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "m"
    shutil.copytree(folder, place)
    (place / "chat_template.jinja").unlink()
    processor: Any = Text().processor(Checkpoint.at(place))
    prepared = processor.prepare(QUESTION, None)
    text = processor.tokenizer.decode(prepared.inputs["input_ids"][0])
    assert text == "assistant\ndescribe the image please"


def test_a_template_that_refuses_system_messages_gets_their_text(
    folder: Path, tmp_path: Path
) -> None:
    place = tmp_path / "m"
    shutil.copytree(folder, place)
    (place / "chat_template.jinja").write_text(
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
        "{% if messages|length > 1 %}{{ raise_exception('one at a time') }}{% endif %}"
        "{{ messages[0]['content'] }}"
    )
    processor: Any = Text().processor(Checkpoint.at(place))
    prepared = processor.prepare(QUESTION, None)
    text = processor.tokenizer.decode(prepared.inputs["input_ids"][0])
    assert text == "assistant\n\ndescribe the image please"
    twice = Request((*QUESTION.messages, Message("user", (Part.text("again"),))), id="r")
    with pytest.raises(InputError, match=r"r: the model's .* refuses .* one at a time"):
        processor.prepare(twice, None)


def test_what_cannot_be_read_is_refused(folder: Path, tmp_path: Path) -> None:
    processor = Text().processor(Checkpoint.at(folder))
    with pytest.raises(InputError, match=r"a\.png: this model reads text, not image"):
        processor.prepare(Request.of(Part.image("a.png"), "What is it?"), None)
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(folder / "config.json", bare)
    with pytest.raises(InputError, match="no tokenizer beside the model"):
        Text().processor(Checkpoint.at(bare))
    shutil.copytree(folder, tmp_path / "broken")
    (tmp_path / "broken" / "tokenizer.json").write_text('{"model": ')
    with pytest.raises(BrokenFile, match="the tokenizer cannot be read"):
        Text().processor(Checkpoint.at(tmp_path / "broken"))
    odd = configured(folder, tmp_path / "odd", num_attention_heads="many")
    with pytest.raises(InputError, match=r"config\.json is not one of a llama model"):
        Text().describe(Checkpoint.at(odd))
