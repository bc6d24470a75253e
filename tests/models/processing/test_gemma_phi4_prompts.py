"""What the processors of Gemma 3n and Phi-4 do with odd requests and files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.errors import BrokenFile, InputError
from octavo.models.checkpoint import Checkpoint
from octavo.models.families.gemma3n import Gemma3n
from octavo.models.families.phi4_multimodal import Phi4Multimodal
from octavo.requests import Message, Modality, Part, Request, VideoSampling
from tests.models.families.filling import configured

RATE = 16_000
FAMILIES = {"gemma3n": Gemma3n(), "phi4-multimodal": Phi4Multimodal()}
TOKENS = {"gemma3n": "<image_soft_token>", "phi4-multimodal": "<|audio|>"}
both = pytest.mark.parametrize("name", sorted(FAMILIES))


@pytest.fixture(scope="module")
def processors(tiny: Any) -> dict[str, Any]:
    return {name: family.processor(Checkpoint.at(tiny(name))) for name, family in FAMILIES.items()}


def text_of(processor: Any, prepared: Any) -> str:
    return str(processor.tokenizer.decode(prepared.inputs["input_ids"][0]))


def silence(seconds: float) -> Part:
    return Part.audio((np.zeros(int(seconds * RATE), dtype=np.float32), RATE))


TALK = (
    Message("system", (Part.text("be kind"),)),
    Message("user", (Part.text(" one"), Part.text("two"))),
    Message("assistant", (Part.text("three"),)),
    Message("user", (Part.text("four"),)),
)


def test_own_forms_are_those_of_the_templates(
    tiny: Any, processors: dict[str, Any], held: Any, tmp_path: Path
) -> None:
    for name, processor in processors.items():
        prepared = processor.prepare(Request(TALK), held)
        processor_without = _without_template(name, tiny(name), tmp_path / name)
        assert processor_without._template is None
        again = processor_without.prepare(Request(TALK), held)
        assert text_of(processor, prepared) == text_of(processor_without, again)


def _without_template(name: str, folder: Path, into: Path) -> Any:
    import shutil

    shutil.copytree(folder, into)
    (into / "chat_template.jinja").unlink()
    return FAMILIES[name].processor(Checkpoint.at(into))


def test_written_prompts(processors: dict[str, Any], held: Any) -> None:
    gemma, phi = (processors[name] for name in ("gemma3n", "phi4-multimodal"))
    assert text_of(gemma, gemma.prepare(Request(TALK), held)) == (
        "<bos><start_of_turn>user\nbe kind\n\nonetwo<end_of_turn>\n<start_of_turn>model\n"
        "three<end_of_turn>\n<start_of_turn>user\nfour<end_of_turn>\n<start_of_turn>model\n"
    )
    assert text_of(phi, phi.prepare(Request(TALK), held)) == (
        "<|system|>be kind<|end|><|user|> onetwo<|end|><|assistant|>three<|end|>"
        "<|user|>four<|end|><|assistant|>"
    )


@both
def test_a_template_in_its_own_file_leads(name: str, tiny: Any, held: Any, tmp_path: Path) -> None:
    import shutil

    into = tmp_path / "other"
    shutil.copytree(tiny(name), into)
    (into / "chat_template.json").write_text('{"chat_template": "cat {{ messages | length }}"}')
    processor = FAMILIES[name].processor(Checkpoint.at(into))
    assert text_of(processor, processor.prepare(Request(TALK), held)) == "cat 4"


def test_a_template_that_refuses_or_is_damaged(
    processors: dict[str, Any], tiny: Any, held: Any, tmp_path: Path
) -> None:
    twice = Request((TALK[1], TALK[3]))
    with pytest.raises(InputError, match="alternate"):
        processors["gemma3n"].prepare(twice, held)
    broken = configured(tiny("gemma3n"), tmp_path / "broken", file="tokenizer_config.json")
    (broken / "chat_template.jinja").write_text("{% for")
    with pytest.raises(BrokenFile, match="chat template is damaged"):
        FAMILIES["gemma3n"].processor(Checkpoint.at(broken)).prepare(Request(TALK), held)
    (broken / "chat_template.jinja").write_text("no places")
    with pytest.raises(InputError, match="0 places for 1 pictures"):
        FAMILIES["gemma3n"].processor(Checkpoint.at(broken)).prepare(
            Request.of(Part.image(np.zeros((9, 9, 3), dtype=np.uint8))), held
        )


@both
def test_text_cannot_stand_for_media(name: str, processors: dict[str, Any], held: Any) -> None:
    with pytest.raises(InputError, match="stands for a picture or a sound") as caught:
        processors[name].prepare(Request.of(f"see {TOKENS[name]}"), held)
    assert TOKENS[name] in str(caught.value.next_step)


@both
def test_films_are_their_frames(name: str, processors: dict[str, Any], held: Any) -> None:
    frames = [np.full((40, 30, 3), shade, dtype=np.uint8) for shade in range(20)]
    one, film = (
        processors[name].prepare(Request.of(part, "what?"), held)
        for part in (Part.image(frames[0]), Part.video(frames))
    )
    assert film.media_tokens == 8 * one.media_tokens
    assert film.notes == ("video in memory: 8 frames, as pictures",)
    three = Part.video(frames, VideoSampling(temporal_resolution=3))
    assert processors[name].prepare(Request.of(three), held).media_tokens == 3 * one.media_tokens


@both
def test_a_film_without_frames(name: str, processors: dict[str, Any], held: Any) -> None:
    class Empty:
        def frames(self, part: Part, sampling: VideoSampling) -> Iterator[Any]:
            return iter(())

    with pytest.raises(InputError, match="no frames") as caught:
        processors[name].prepare(Request.of(Part(Modality.VIDEO, "a.mp4")), Empty())
    assert caught.value.where == "a.mp4"


def test_sound_too_short_to_hear(processors: dict[str, Any], held: Any) -> None:
    for name, least in (("gemma3n", 513), ("phi4-multimodal", 400)):
        short, enough = (
            Part.audio((np.ones(samples, dtype=np.float32), RATE)) for samples in (least - 1, least)
        )
        assert processors[name].prepare(Request.of(enough), held).media_tokens > 0
        with pytest.raises(InputError, match=f"{least - 1} samples"):
            processors[name].prepare(Request.of(short), held)
        with pytest.raises(InputError, match="0 samples"):
            processors[name].prepare(Request.of(silence(0)), held)


def test_long_sound_is_heard_in_pieces_by_gemma(processors: dict[str, Any], held: Any) -> None:
    processor = processors["gemma3n"]
    one = processor.prepare(Request.of(silence(30)), held)
    assert one.notes == ()
    long = processor.prepare(Request.of(silence(65)), held)
    assert long.media_tokens == 3 * one.media_tokens
    assert long.inputs["input_features"].shape[0] == 3
    assert long.notes == ("audio in memory: heard in 3 pieces",)
    # 0.01 s more are too short for a piece of their own.
    assert processor.prepare(Request.of(silence(30.01)), held).media_tokens == one.media_tokens


def test_long_sound_is_heard_whole_by_phi(processors: dict[str, Any], held: Any) -> None:
    prepared = processors["phi4-multimodal"].prepare(Request.of(silence(65)), held)
    assert prepared.inputs["audio_input_features"].shape[:2] == (1, 6498)


def test_a_narrow_picture_for_phi(processors: dict[str, Any], held: Any) -> None:
    narrow = Part.image(np.zeros((3000, 2, 3), dtype=np.uint8))
    with pytest.raises(InputError, match="too narrow"):
        processors["phi4-multimodal"].prepare(Request.of(narrow), held)


def test_ids_that_the_tokenizer_lacks(tiny: Any, tmp_path: Path) -> None:
    odd = configured(tiny("gemma3n"), tmp_path / "odd", image_token_id=10**6)
    with pytest.raises(InputError, match="no token 1000000"):
        FAMILIES["gemma3n"].processor(Checkpoint.at(odd))


@both
def test_answers_end_where_the_checkpoint_says(
    name: str, processors: dict[str, Any], tiny: Any
) -> None:
    tokenizer = processors[name].tokenizer
    end = {"gemma3n": "<end_of_turn>", "phi4-multimodal": "<|end|>"}[name]
    ends = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids(end)}
    assert processors[name].end_tokens == ends
    words = tokenizer("red chair")["input_ids"]
    assert processors[name].decode([*words, *ends]) == "red chair"
