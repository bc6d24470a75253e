"""What Qwen's families refuse, and what they read from a checkpoint's smaller files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from octavo.errors import BrokenFile, InputError, UnsupportedFormat
from octavo.models.checkpoint import Checkpoint, Folder
from octavo.requests import Part, Request
from tests.models.families.filling import configured
from tests.models.families.test_qwen_vl import BOTH, FAMILIES, REQUESTS, WIDE, Media, _prepared


@BOTH
def test_sound_is_refused(tiny: Callable[[str], Path], name: str) -> None:
    with pytest.raises(InputError, match=r"hum.wav: .*no sound"):
        _prepared(tiny(name), Request.of(Part.audio("hum.wav"), "what"))


def test_a_narrow_picture_is_refused_by_name(tiny: Callable[[str], Path]) -> None:
    thin = np.zeros((2, 900, 3), np.uint8)
    with pytest.raises(InputError, match="too narrow"):
        _prepared(tiny("qwen3-vl"), Request.of(Part.image(thin)))


def test_a_template_that_refuses(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    words = "{{ raise_exception('no system message') }}"
    checkpoint = _changed(tiny, tmp_path / "strict", "chat_template.jinja", words)
    with pytest.raises(InputError, match="no system message"):
        FAMILIES["qwen3-vl"].processor(checkpoint).prepare(REQUESTS["text"], Media())


@pytest.mark.parametrize("token", ["<|image_pad|>", "<|video_pad|>"])
def test_a_place_for_a_picture_in_the_text_is_refused(
    tiny: Callable[[str], Path], token: str
) -> None:
    with pytest.raises(InputError, match=r"places .* media are given as parts"):
        _prepared(tiny("qwen3-vl"), Request.of(Part.image(WIDE), f"what is {token}"))


def _changed(tiny: Callable[[str], Path], into: Path, file: str, text: str | None) -> Checkpoint:
    shutil.copytree(tiny("qwen3-vl"), into)
    (into / file).unlink(missing_ok=True)
    if text is not None:
        (into / file).write_text(text)
    return Checkpoint.at(into)


def test_a_template_in_the_old_file(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    checkpoint = _changed(tiny, tmp_path / "old", "chat_template.jinja", None)
    words = json.dumps({"chat_template": "{{ messages[0].content[0].text }}!"})
    (tmp_path / "old/chat_template.json").write_text(words)
    prepared = FAMILIES["qwen3-vl"].processor(checkpoint).prepare(Request.of("cat"), Media())
    assert FAMILIES["qwen3-vl"].processor(checkpoint).decode(
        prepared.inputs["input_ids"][0].tolist()
    ) == ("cat!")


def test_no_template(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    checkpoint = _changed(tiny, tmp_path / "none", "chat_template.jinja", None)
    with pytest.raises(InputError, match="no chat template"):
        FAMILIES["qwen3-vl"].processor(checkpoint)


def test_a_template_that_is_no_text(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    checkpoint = _changed(tiny, tmp_path / "bytes", "generation_config.json", None)
    tokenizer = FAMILIES["qwen3-vl"].processor(checkpoint)
    assert tokenizer.end_tokens == {2}, "of the tokenizer, where no file says more"
    (tmp_path / "bytes/chat_template.jinja").write_bytes(b"\xff\xfe\x00")
    from octavo.models.processing.qwen_prompt import chat_template

    with pytest.raises(BrokenFile, match="not text"):
        chat_template(Checkpoint.at(tmp_path / "bytes"), None)


def test_special_tokens_are_no_words(tiny: Callable[[str], Path]) -> None:
    processor = FAMILIES["qwen3-vl"].processor(Checkpoint.at(tiny("qwen3-vl")))
    ids = _prepared(tiny("qwen3-vl"), Request.of("a cat")).inputs["input_ids"][0].tolist()
    assert processor.decode(ids) == "user\na cat\nassistant\n"


def test_end_tokens(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    family = FAMILIES["qwen3-vl"]
    assert family.processor(Checkpoint.at(tiny("qwen3-vl"))).end_tokens == {0, 2}
    one = _changed(tiny, tmp_path / "one", "generation_config.json", '{"eos_token_id": 5}')
    assert family.processor(one).end_tokens == {2, 5}, "the tokenizer's, and what the file adds"


def test_a_damaged_tokenizer(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    checkpoint = _changed(tiny, tmp_path / "bad", "tokenizer.json", "{")
    with pytest.raises(InputError, match="tokenizer"):
        FAMILIES["qwen3-vl"].processor(checkpoint)


def test_a_processor_of_another_model(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    checkpoint = _changed(
        tiny, tmp_path / "other", "preprocessor_config.json", '{"patch_size": 14}'
    )
    with pytest.raises(InputError, match="cuts patches of 14 pixels"):
        FAMILIES["qwen3-vl"].processor(checkpoint)


class _Remote:
    """Files of a folder, as if they were elsewhere."""

    where = "owner/model"

    def __init__(self, folder: Path) -> None:
        self._files = Folder(folder)
        self.names, self.size, self.read = self._files.names, self._files.size, self._files.read


def test_a_remote_checkpoint_is_described_but_not_run(tiny: Callable[[str], Path]) -> None:
    checkpoint = Checkpoint(_Remote(tiny("qwen3-vl")))
    assert FAMILIES["qwen3-vl"].describe(checkpoint).parameters > 500_000
    with pytest.raises(InputError, match="octavo pull owner/model"):
        FAMILIES["qwen3-vl"].processor(checkpoint)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision_config": None}, "no 'vision_config'"),
        ({"text_config": None}, "no 'hidden_size'"),
        ({"text_config": {"hidden_size": "wide"}}, "cannot be used"),
        ({"text_config": 7}, "cannot be used"),
        ({"vision_config": [1]}, "cannot be used"),
    ],
)
@BOTH
def test_a_configuration_of_something_else(
    tiny: Callable[[str], Path], name: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = configured(tiny(name), tmp_path / "broken", **changes)
    with pytest.raises(InputError, match=message):
        FAMILIES[name].describe(Checkpoint.at(folder))


def test_weights_that_are_quantized_already(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder = configured(tiny("qwen3-vl"), tmp_path / "fp8", quantization_config={"bits": 8})
    with pytest.raises(UnsupportedFormat, match="already quantized"):
        FAMILIES["qwen3-vl"].describe(Checkpoint.at(folder))


def test_weights_of_a_type_that_is_not_read(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "bytes"
    shutil.copytree(tiny("qwen3-vl"), folder)
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {name: tensor.to(torch.uint8) for name, tensor in tensors.items()},
        folder / "model.safetensors",
    )
    with pytest.raises(UnsupportedFormat, match="type U8"):
        FAMILIES["qwen3-vl"].describe(Checkpoint.at(folder))
