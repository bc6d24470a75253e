"""Phi-4's pictures against transformers' processor on torchvision, from golden files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from octavo.errors import InputError
from octavo.hardware.pictures_phi4 import HighDefinition
from octavo.models.processing.phi4_pictures import Colours, crops_of
from tests.golden.phi4_pictures import drawn, samples, sums

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "phi4_pictures.json").read_text())


@pytest.mark.parametrize(
    "case", GOLDEN["cases"], ids=lambda case: f"{case['width']}x{case['height']}"
)
def test_crops_are_those_of_torchvision(case: Any) -> None:
    rule = HighDefinition(crops=case["crops"])
    made = crops_of([drawn(case["width"], case["height"])], rule, Colours())
    pixels = made["image_pixel_values"][0]
    assert pixels.dtype == torch.float32
    assert list(pixels.shape) == case["shape"]
    assert made["image_sizes"][0].tolist() == case["size"]
    mask = made["image_attention_mask"][0]
    assert mask.dtype == torch.bool
    assert mask.flatten(1).sum(1).tolist() == case["mask"]
    assert samples(pixels) == pytest.approx(case["values"], abs=1e-5)
    assert sums(pixels) == pytest.approx(case["sums"], rel=1e-6, abs=0.5)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: str(case["size"]))
def test_cost_is_what_the_processor_counts(case: Any) -> None:
    cost = HighDefinition(crops=case["crops"]).cost(case["width"], case["height"])
    assert cost.tokens == case["tokens"]
    assert [cost.height, cost.width] == case["size"]
    assert cost.sequences == case["shape"][0]
    assert cost.patches == case["shape"][0] * 32**2


def test_layouts_are_those_of_the_processor() -> None:
    assert any(one[3] == 0 for one in GOLDEN["layouts"])
    for width, height, crops, grid_width, grid_height, columns, rows in GOLDEN["layouts"]:
        rule = HighDefinition(crops=crops)
        if grid_width == 0:
            with pytest.raises(ValueError, match="too narrow"):
                rule.cost(width, height)
            continue
        found = rule.layout(width, height)
        assert (found.columns * 448, found.rows * 448) == (grid_width, grid_height)
        assert (found.mask_columns, found.mask_rows) == (columns, rows), (width, height, crops)


def test_pictures_of_several_sizes_are_filled_up() -> None:
    made = crops_of([drawn(900, 400), drawn(100, 100)], HighDefinition(), Colours())
    assert made["image_pixel_values"].shape == (2, 4, 3, 448, 448)
    assert not made["image_pixel_values"][1, 2:].any()
    assert made["image_pixel_values"][1, :2].any()
    assert made["image_attention_mask"][1, 2:].all()
    assert made["image_sizes"].tolist() == [[448, 1344], [448, 448]]


def test_too_narrow_a_picture_is_an_error_of_the_input() -> None:
    narrow = np.zeros((2000, 1, 3), dtype=np.uint8)
    with pytest.raises(InputError, match="too narrow") as caught:
        crops_of([narrow], HighDefinition(), Colours(), ["page.png"])
    assert caught.value.where == "page.png"


def test_colours_follow_the_settings() -> None:
    white = np.full((448, 448, 3), 255, dtype=np.uint8)

    def value(**settings: Any) -> float:
        made = crops_of([white], HighDefinition(), Colours.of(settings))
        return float(made["image_pixel_values"][0, 1, 0, 0, 0])

    assert value() == 1.0
    assert value(image_mean=[0.0] * 3, image_std=[0.5] * 3) == pytest.approx(2.0)
    assert value(do_normalize=False) == pytest.approx(1.0)
    assert value(do_normalize=False, do_rescale=False) == 255.0
    assert value(do_rescale=False, image_mean=[55.0] * 3, image_std=[2.0] * 3) == 100.0
