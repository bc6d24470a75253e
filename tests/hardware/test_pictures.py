"""Sizes of pictures against transformers' own arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from octavo.hardware.pictures import FixedPicture, GridPicture

SIDES = st.integers(1, 6000)


@given(
    width=SIDES,
    height=SIDES,
    patch=st.sampled_from([14, 16]),
    low=st.integers(1, 100),
    high=st.integers(100, 20_000),
)
@settings(max_examples=400, deadline=None)
def test_a_grid_is_what_smart_resize_says(
    width: int, height: int, patch: int, low: int, high: int
) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    cell = 2 * patch
    rule = GridPicture(patch, 2, min_pixels=low * cell**2, max_pixels=high * cell**2)
    if max(width, height) / min(width, height) > 200:
        with pytest.raises(ValueError, match="must be smaller than"):
            smart_resize(height, width, cell, low * cell**2, high * cell**2)
        with pytest.raises(ValueError, match="too narrow"):
            rule.resized(width, height)
        return
    # Sides under half a cell: transformers rounds them to 0 and enlarges, dots.ocr to one cell.
    assume(round(width / cell) > 0 and round(height / cell) > 0)
    theirs = smart_resize(height, width, cell, low * cell**2, high * cell**2)
    assert rule.resized(width, height)[::-1] == theirs
    cost = rule.cost(width, height)
    assert (cost.height, cost.width) == theirs
    assert cost.patches == theirs[0] * theirs[1] // patch**2
    assert cost.tokens == cost.patches // 4 + 2


def test_a_grid_can_be_empty_of_separators() -> None:
    rule = GridPicture(14, 2, 28**2, 100 * 28**2, around=0)
    assert rule.cost(56, 84).tokens == 6
    with pytest.raises(ValueError, match="too narrow"):
        rule.cost(0, 10)


def test_a_side_under_half_a_cell_becomes_one_cell() -> None:
    assert GridPicture(14, 2, 28**2, 100 * 28**2).resized(10, 280) == (28, 280)


def test_a_fixed_picture_is_always_the_same() -> None:
    rule = FixedPicture(size=336, patch=14, tokens=576, extra=1)
    assert rule.cost(10, 2000) == rule.cost(336, 336)
    cost = rule.cost(640, 480)
    assert (cost.width, cost.height) == (336, 336)
    assert (cost.patches, cost.tokens, cost.sequences) == (577, 576, 1)
