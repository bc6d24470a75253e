"""Tiles and tokens against transformers' own arithmetic."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.hardware.pictures_tiled import TiledPicture

GRIDS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
RULE = TiledPicture(tile=336, patch=14, grids=GRIDS)
SIDES = st.integers(1, 3000)


@functools.cache
def theirs() -> Any:
    """transformers' processor with nothing behind it but the settings."""
    from transformers import LlavaNextProcessor

    class Settings:
        image_grid_pinpoints = [list(grid) for grid in GRIDS]  # noqa: RUF012

    processor = object.__new__(LlavaNextProcessor)
    processor.image_processor = Settings()
    processor.patch_size = 14
    processor.num_additional_image_tokens = 1
    return processor


@given(width=SIDES, height=SIDES)
@settings(max_examples=200, deadline=None)
def test_tokens_are_those_of_transformers(width: int, height: int) -> None:
    from transformers.image_processing_utils import select_best_resolution
    from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

    cost = RULE.cost(width, height)
    assert (cost.height, cost.width) == select_best_resolution((height, width), list(GRIDS))
    assert cost.tokens == theirs()._get_number_of_features(height, width, 336, 336) - 1
    pinpoints = [list(grid) for grid in GRIDS]
    assert cost.sequences == image_size_to_num_patches([height, width], pinpoints, 336)
    assert cost.patches == cost.sequences * 577


@given(width=SIDES, height=SIDES)
@settings(max_examples=100, deadline=None)
def test_tokens_are_the_features_that_the_model_keeps(width: int, height: int) -> None:
    import torch
    from transformers.models.llava_next.modeling_llava_next import (
        get_anyres_image_grid_shape,
        unpad_image,
    )

    cost = RULE.cost(width, height)
    pinpoints = [list(grid) for grid in GRIDS]
    rows, columns = get_anyres_image_grid_shape([height, width], pinpoints, 336)
    left = unpad_image(torch.empty(1, rows * 24, columns * 24, device="meta"), [height, width])
    assert cost.tokens == 576 + left.shape[1] * (left.shape[2] + 1)


@given(width=SIDES, height=SIDES, order=st.permutations(GRIDS))
@settings(max_examples=100, deadline=None)
def test_the_grid_is_the_one_of_transformers_in_any_order(
    width: int, height: int, order: list[tuple[int, int]]
) -> None:
    from transformers.image_processing_utils import select_best_resolution

    found = TiledPicture(336, 14, tuple(order)).grid(width, height)
    assert found == select_best_resolution((height, width), order)


def test_a_small_picture_takes_the_grid_that_wastes_least() -> None:
    assert TiledPicture(336, 14, ((672, 672), (336, 672))).grid(100, 100) == (336, 672)


def test_a_known_picture() -> None:
    cost = RULE.cost(672, 672)
    assert (cost.width, cost.height, cost.sequences) == (672, 672, 5)
    assert cost.tokens == 576 + 48 * 49
    assert TiledPicture(336, 14, GRIDS, kept=1).cost(672, 672).tokens == cost.tokens + 1


@pytest.mark.parametrize(("width", "height"), [(1, 100_000), (100_000, 1)])
def test_the_narrowest(width: int, height: int) -> None:
    tokens = RULE.cost(width, height).tokens
    assert tokens == theirs()._get_number_of_features(height, width, 336, 336) - 1


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0)])
def test_nothing_to_see(width: int, height: int) -> None:
    with pytest.raises(ValueError, match="is empty"):
        RULE.cost(width, height)
