"""Pictures against transformers' own Pillow processor of Qwen2-VL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.errors import InputError, UnsupportedFormat
from octavo.models.checkpoint import Checkpoint
from octavo.models.processing.qwen_pictures import (
    HALF,
    Patching,
    patching,
    picture_patching,
    picture_rows,
)

TINY = Patching(patch=16, min_pixels=4096, max_pixels=65_536, mean=HALF, std=HALF)
CLIP = Patching(min_pixels=3136, max_pixels=50_176)


def _stock(settings: Patching) -> Any:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(
        patch_size=settings.patch,
        merge_size=settings.merge,
        temporal_patch_size=settings.frames,
        size={"shortest_edge": settings.min_pixels, "longest_edge": settings.max_pixels},
        image_mean=list(settings.mean),
        image_std=list(settings.std),
    )


def _noise(high: int, wide: int) -> Any:
    return np.random.default_rng(high).integers(0, 256, (high, wide, 3), dtype=np.uint8)


@pytest.mark.parametrize("settings", [TINY, CLIP], ids=["patches of 16", "patches of 14"])
@pytest.mark.parametrize(
    ("high", "wide"),
    [(1, 1), (100, 140), (64, 96), (12, 2400), (5, 1000), (900, 700), (47, 33), (700, 4)],
)
def test_every_value_is_that_of_transformers(settings: Patching, high: int, wide: int) -> None:
    picture = _noise(high, wide)
    rows, grid = picture_rows(picture, settings, "a.png")
    wanted = _stock(settings)(picture, input_data_format="channels_last", return_tensors="np")
    assert list(grid) == wanted["image_grid_thw"][0].tolist()
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, wanted["pixel_values"])
    cost = settings.grid.cost(wide, high)
    assert cost.patches == len(rows)
    assert cost.tokens == len(rows) // settings.merge**2 + 2


@pytest.mark.parametrize(("high", "wide"), [(3, 900), (900, 3)])
def test_a_picture_that_is_too_narrow(high: int, wide: int) -> None:
    with pytest.raises(InputError, match=r"thin.png: .*at most 200 times"):
        picture_rows(_noise(high, wide), TINY, "thin.png")


def test_a_picture_without_pixels() -> None:
    with pytest.raises(InputError, match="0 x 7"):
        picture_rows(np.zeros((7, 0, 3), np.uint8), TINY, "none.png")


def test_a_picture_that_is_upside_down_in_memory() -> None:
    picture = _noise(100, 140)
    rows, _ = picture_rows(picture[::-1], TINY, "a.png")
    np.testing.assert_array_equal(rows, picture_rows(picture[::-1].copy(), TINY, "a.png")[0])


def _folder(folder: Path, **files: Any) -> Checkpoint:
    (folder / "config.json").write_text("{}")
    for name, values in files.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    return Checkpoint.at(folder)


def test_settings_of_old_files(tmp_path: Path) -> None:
    old = {"min_pixels": 3136, "max_pixels": 99_999, "size": {"shortest_edge": 1}, "patch_size": 14}
    found = picture_patching(_folder(tmp_path, preprocessor_config=old), TINY)
    assert (found.min_pixels, found.max_pixels) == (3136, 99_999)
    assert found.patch == 14
    assert found.mean == Patching().mean


def test_nested_settings_come_first(tmp_path: Path) -> None:
    new = {"size": {"shortest_edge": 5000, "longest_edge": 60_000}, "patch_size": 16}
    files = {"processor_config": {"image_processor": new}, "preprocessor_config": {"patch_size": 7}}
    found = picture_patching(_folder(tmp_path, **files), Patching())
    assert (found.patch, found.min_pixels, found.max_pixels) == (16, 5000, 60_000)


def test_without_files_the_family_decides(tmp_path: Path) -> None:
    assert picture_patching(_folder(tmp_path, processor_config={"x": 1}), TINY) == TINY


@pytest.mark.parametrize("values", [{"do_resize": False}, {"do_normalize": False}, {"resample": 2}])
def test_what_is_not_done_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedFormat, match=r"off|not cubic"):
        patching(values, Patching(), "model")


@pytest.mark.parametrize("values", [{"patch_size": "x"}, {"image_mean": [1, 2]}, {"image_std": 3}])
def test_damaged_settings(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="damaged"):
        patching(values, Patching(), "model")
