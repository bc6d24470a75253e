"""X-CLIP against transformers' own class and processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from octavo.errors import InputError
from octavo.models.checkpoint import Checkpoint
from octavo.models.families.x_clip import XClip, sampled
from tests.models.families.filling import check_description, configured, filled

TEXTS = ["cat sitting", "table total", "a red chair"]


@pytest.fixture(scope="module")
def folder(tiny: Any) -> Path:
    return tiny("x-clip")


@pytest.fixture(scope="module")
def film() -> list[Any]:
    draw = np.random.default_rng(1)
    return [draw.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(20)]


@pytest.fixture(scope="module")
def ours(folder: Path) -> tuple[XClip, Any, Any]:
    family = XClip()
    return family, filled(family, folder), family.processor(Checkpoint.at(folder))


def logits_of_transformers(folder: Path, frames: list[Any]) -> torch.Tensor:
    from transformers import AutoTokenizer, XCLIPModel, XCLIPProcessor
    from transformers.models.videomae.image_processing_pil_videomae import (
        VideoMAEImageProcessorPil,
    )

    processor = XCLIPProcessor(
        VideoMAEImageProcessorPil.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    )
    inputs = processor(
        text=TEXTS,
        videos=[Image.fromarray(frame) for frame in frames],
        return_tensors="pt",
        padding=True,
    )
    inputs.pop("token_type_ids", None)
    with torch.inference_mode():
        return XCLIPModel.from_pretrained(folder).eval()(**inputs).logits_per_video[0]


def test_scores_are_logits_per_video(ours: Any, folder: Path, film: list[Any]) -> None:
    family, module, processor = ours
    scores = family.score_video(module, processor, film[:8], TEXTS)
    assert scores.shape == (3,)
    theirs = logits_of_transformers(folder, film[:8])
    assert torch.allclose(scores, theirs, atol=1e-4)
    assert not torch.allclose(scores, logits_of_transformers(folder, film[8:16]), atol=1e-3)


def test_a_long_film_is_sampled_evenly(ours: Any, folder: Path, film: list[Any]) -> None:
    family, module, processor = ours
    scores = family.score_video(module, processor, film, TEXTS)
    chosen = [film[number] for number in (0, 3, 5, 8, 11, 14, 16, 19)]
    assert torch.allclose(scores, logits_of_transformers(folder, chosen), atol=1e-4)


def test_a_short_film_stands_still_at_its_last_frame(
    ours: Any, folder: Path, film: list[Any]
) -> None:
    family, module, processor = ours
    scores = family.score_video(module, processor, film[:3], TEXTS)
    theirs = logits_of_transformers(folder, [*film[:3], *[film[2]] * 5])
    assert torch.allclose(scores, theirs, atol=1e-4)


@pytest.mark.parametrize(("length", "count"), [(1, 8), (8, 8), (9, 8), (100, 16), (33, 32), (5, 1)])
def test_sampling_keeps_order_and_number(length: int, count: int) -> None:
    taken = [int(frame[0]) for frame in sampled(np.arange(length)[:, None], count)]  # type: ignore[arg-type]
    assert len(taken) == count
    assert taken == sorted(taken)
    assert taken[0] == 0
    assert count == 1 or taken[-1] == length - 1


def test_other_numbers_of_frames_follow_the_checkpoint(tmp_path: Path, folder: Path) -> None:
    vision = dict(Checkpoint.at(folder).config["vision_config"]) | {"num_frames": 16}
    longer = configured(folder, tmp_path / "longer", vision_config=vision)
    spec = XClip().describe(Checkpoint.at(longer))
    assert spec.vision is not None
    assert spec.vision.frames == 16
    assert XClip().build(Checkpoint.at(longer)).mit.position_embedding.shape[1] == 16  # type: ignore[union-attr,index]


def test_a_film_without_frames_is_refused(ours: Any) -> None:
    with pytest.raises(InputError, match="no frames"):
        ours[0].score_video(ours[1], ours[2], [], TEXTS)
    assert ours[0].score_video(ours[1], ours[2], [], []).shape == (0,)


def test_bfloat16_runs(ours: Any, folder: Path, film: list[Any]) -> None:
    family, module, processor = ours
    half = filled(family, folder, torch.bfloat16)
    scores = family.score_video(half, processor, film, TEXTS)
    assert scores.dtype == torch.float32
    exact = family.score_video(module, processor, film, TEXTS)
    assert float((scores - exact).abs().max()) < 0.05 * float(exact.abs().max()) + 0.2


def test_the_description_fits_the_model(folder: Path) -> None:
    check_description(XClip(), folder)
    spec = XClip().describe(Checkpoint.at(folder))
    assert [len(part.layers) for part in spec.components] == [3, 2, 1]
    assert spec.vision is not None
    assert (spec.vision.frames, spec.embedding_dim) == (8, None)
