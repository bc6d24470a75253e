"""CLIP against transformers' own class and processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from octavo.errors import BrokenFile, ConfigError, InputError
from octavo.models.checkpoint import Checkpoint
from octavo.models.families.clip import Clip
from octavo.requests import Request
from tests.models.families.filling import check_description, configured, filled

TEXTS = ["a photo of a cat", "a table", "the quick brown fox jumps over the lazy dog"]


@pytest.fixture(scope="module")
def folder(tiny: Any) -> Path:
    return tiny("clip")


@pytest.fixture(scope="module")
def pictures() -> list[Any]:
    draw = np.random.default_rng(1)
    sizes = [(40, 60), (60, 40), (3, 3), (200, 33)]
    return [draw.integers(0, 255, (*size, 3), dtype=np.uint8) for size in sizes]


@pytest.fixture(scope="module")
def theirs(folder: Path, pictures: list[Any]) -> Any:
    from transformers import AutoTokenizer, CLIPModel, CLIPProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPProcessor(
        CLIPImageProcessorPil.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    )
    inputs = processor(
        text=TEXTS,
        images=[Image.fromarray(picture) for picture in pictures],
        return_tensors="pt",
        padding=True,
    )
    inputs.pop("token_type_ids", None)
    with torch.inference_mode():
        return CLIPModel.from_pretrained(folder).eval()(**inputs)


@pytest.fixture(scope="module")
def ours(folder: Path) -> tuple[Clip, Any, Any]:
    family = Clip()
    return family, filled(family, folder), family.processor(Checkpoint.at(folder))


def test_vectors_are_those_of_transformers(ours: Any, theirs: Any, pictures: list[Any]) -> None:
    family, module, processor = ours
    texts = family.embed_texts(module, processor, TEXTS)
    seen = family.embed_pictures(module, processor, pictures)
    assert torch.allclose(texts, theirs.text_embeds, atol=1e-5)
    assert torch.allclose(seen, theirs.image_embeds, atol=1e-5)
    assert torch.allclose(texts.norm(dim=-1), torch.ones(len(TEXTS)), atol=1e-6)


def test_scores_are_logits_per_image(ours: Any, theirs: Any, pictures: list[Any]) -> None:
    family, module, processor = ours
    scores = family.score_pictures(module, processor, pictures, TEXTS)
    assert scores.dtype == torch.float32
    assert torch.allclose(scores, theirs.logits_per_image, atol=1e-4)
    assert theirs.logits_per_image.std() > 0.1


def test_many_go_in_batches(ours: Any) -> None:
    family, module, processor = ours
    texts = [f"{number} cats" for number in range(70)]
    together = family.embed_texts(module, processor, texts)
    alone = torch.cat([family.embed_texts(module, processor, [text]) for text in texts])
    assert torch.allclose(together, alone, atol=1e-5)
    draw = np.random.default_rng(2)
    pictures = [draw.integers(0, 255, (8, 9, 3), dtype=np.uint8) for _ in range(35)]
    assert family.embed_pictures(module, processor, pictures).shape == (35, 32)
    assert family.embed_pictures(module, processor, []).shape == (0, 32)
    assert family.embed_texts(module, processor, []).shape == (0, 32)


def test_a_long_text_is_cut_and_keeps_its_end(ours: Any) -> None:
    _, _, processor = ours
    ids = processor.texts(["cat " * 100])["input_ids"]
    assert ids.shape == (1, 32)
    assert int(ids[0, -1]) in processor.end_tokens


def test_bfloat16_stays_near(ours: Any, folder: Path, pictures: list[Any]) -> None:
    family, module, processor = ours
    half = filled(family, folder, torch.bfloat16)
    vectors = family.embed_pictures(half, processor, pictures)
    exact = family.embed_pictures(module, processor, pictures)
    assert vectors.dtype == torch.float32
    assert float((vectors * exact).sum(-1).min()) > 0.99


@pytest.mark.parametrize("other", ["vision", "language", "projector"])
def test_components_may_be_of_different_types(
    ours: Any, folder: Path, pictures: list[Any], other: str
) -> None:
    family, module, processor = ours
    mixed = filled(family, folder, **{other: torch.bfloat16})
    scores = family.score_pictures(mixed, processor, pictures, TEXTS)
    exact = family.score_pictures(module, processor, pictures, TEXTS)
    assert float((scores - exact).abs().max()) < 0.2


def test_texts_need_no_vision_tower_and_pictures_no_text_tower(
    ours: Any, folder: Path, pictures: list[Any]
) -> None:
    family, module, processor = ours
    blind = filled(family, folder, only={"language", "projector"})
    assert torch.equal(
        family.embed_texts(blind, processor, TEXTS), family.embed_texts(module, processor, TEXTS)
    )
    mute = filled(family, folder, only={"vision", "projector"})
    assert torch.equal(
        family.embed_pictures(mute, processor, pictures),
        family.embed_pictures(module, processor, pictures),
    )


def test_the_description_fits_the_model(folder: Path) -> None:
    check_description(Clip(), folder)
    spec = Clip().describe(Checkpoint.at(folder))
    assert [part.name for part in spec.components] == ["vision", "language", "projector"]
    assert spec.vision is not None
    assert spec.text is not None
    assert spec.vision.picture.cost(100, 50).patches == 17
    assert (spec.embedding_dim, spec.text.positions, spec.text.gated) == (32, 32, False)


def test_what_config_json_leaves_out_is_the_default(tmp_path: Path, folder: Path) -> None:
    bare = configured(folder, tmp_path / "bare", text_config={}, vision_config={})
    spec = Clip().describe(Checkpoint.at(bare))
    from transformers import CLIPConfig

    config = CLIPConfig()
    assert spec.text is not None
    assert spec.vision is not None
    assert spec.text.hidden == config.text_config.hidden_size
    assert spec.text.vocabulary == config.text_config.vocab_size
    assert spec.vision.layers == config.vision_config.num_hidden_layers
    assert spec.vision.picture.cost(9, 9).width == config.vision_config.image_size


def test_older_settings_of_pictures_are_read(tmp_path: Path, folder: Path) -> None:
    old = configured(
        folder,
        tmp_path / "old",
        "preprocessor_config.json",
        size=32,
        crop_size=32,
        image_processor_type=None,
        feature_extractor_type="CLIPFeatureExtractor",
    )
    picture = np.random.default_rng(3).integers(0, 255, (50, 70, 3), dtype=np.uint8)
    new = Clip().processor(Checkpoint.at(folder)).pictures([picture])
    assert torch.equal(Clip().processor(Checkpoint.at(old)).pictures([picture]), new)


def test_a_decoder_is_not_pretended(ours: Any, held: Any) -> None:
    with pytest.raises(ConfigError, match="write no text"):
        ours[2].prepare(Request.of("hello"), held)
    with pytest.raises(ConfigError, match="cannot do this task"):
        ours[0].score_video(ours[1], ours[2], [], [])


def test_missing_files_are_named(tmp_path: Path, folder: Path) -> None:
    lone = configured(folder, tmp_path / "a")
    (lone / "preprocessor_config.json").unlink()
    with pytest.raises(InputError, match=r"preprocessor_config\.json"):
        Clip().processor(Checkpoint.at(lone))
    mute = configured(folder, tmp_path / "b")
    for file in mute.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(InputError, match="tokenizer"):
        Clip().processor(Checkpoint.at(mute))
    damaged = configured(folder, tmp_path / "c")
    (damaged / "tokenizer_config.json").write_text("{")
    with pytest.raises(BrokenFile, match="tokenizer"):
        Clip().processor(Checkpoint.at(damaged))
    other = configured(folder, tmp_path / "d", text_config=None)
    with pytest.raises(InputError, match="text_config"):
        Clip().describe(Checkpoint.at(other))
