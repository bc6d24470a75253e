"""Page pictures and crops against drawings whose pixels are known."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from doubles import draw_pdf, draw_picture
from PIL import Image

from octavo.errors import OutputError
from octavo.media.open import open_source
from octavo.media.page import Page
from octavo.pipeline.config import PipelineConfig
from octavo.pipeline.crops import CROP_LONG_EDGE_PX, clip, draw_pictures, write_picture
from octavo.pipeline.frames import Picture
from octavo.types import Box, Category, Element, PageResult

CONFIG = PipelineConfig(pdf_dpi=144, padding=10, crop_upscale=2.0)
SQUARE = Box(100, 200, 200, 300)


def result(*elements: Element, rotation: int = 0, skew: float = 0.0) -> PageResult:
    width, height = (792, 612) if rotation in (90, 270) else (612, 792)
    return PageResult(1, width, height, elements, rotation=rotation, skew=skew)


def picture(box: Box = SQUARE, element_id: str = "p1-e1") -> Element:
    return Element(element_id, Category.PICTURE, box)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pages").mkdir()
    (tmp_path / "crops").mkdir()
    return tmp_path


@pytest.fixture(params=["pdf", "png"])
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Page]:
    path = tmp_path / f"drawn.{request.param}"
    if request.param == "pdf":
        draw_pdf(path, 1)
    else:
        draw_picture(path)
    with closing(open_source(path)) as source:
        yield next(source.pages((1,)))


def load(folder: Path, picture: Picture) -> np.ndarray:
    with Image.open(folder / picture.file) as image:
        assert image.size == (picture.width, picture.height)
        assert (folder / picture.file).stat().st_size == picture.size
        return np.asarray(image.convert("RGB")).astype(int)


def near(pixel: np.ndarray, *color: int) -> bool:
    return bool(np.abs(pixel - np.array(color)).max() < 40)


def assert_square(pixels: np.ndarray, margin: float, side: float) -> None:
    """White ``margin``, then red with a black quarter at the upper left, ``side`` pixels long."""

    def at(x: float, y: float) -> np.ndarray:
        return pixels[round(margin + y * side), round(margin + x * side)]

    assert near(pixels[int(margin / 2), int(margin / 2)], 255, 255, 255)
    assert near(at(0.25, 0.25), 0, 0, 0)
    for x, y in ((0.75, 0.25), (0.25, 0.75), (0.75, 0.75), (0.97, 0.97)):
        assert near(at(x, y), 255, 0, 0), (x, y)
    assert near(at(1.03, 0.5), 255, 255, 255)


def test_a_page_picture_and_a_crop(page: Page, folder: Path) -> None:
    sheet, crop = draw_pictures(page, result(picture()), CONFIG, folder)
    assert (sheet.file, crop.file) == ("pages/0001.jpg", "crops/p1-e1.png")
    assert (crop.element_id, crop.category, crop.box) == ("p1-e1", Category.PICTURE, SQUARE)
    pixels = load(folder, sheet)
    scale = pixels.shape[0] / 792
    assert near(pixels[round(225 * scale), round(125 * scale)], 0, 0, 0)
    assert near(pixels[round(275 * scale), round(175 * scale)], 255, 0, 0)
    # 144 dpi is 2 pixels a point, a picture's own scale is 1; both are then doubled.
    natural = page.natural_scale(144, None)
    assert natural == (2.0 if page.render(2.0).shape[0] > 792 else 1.0)
    pixels = load(folder, crop)
    assert abs(pixels.shape[0] - (100 * natural + 20) * 2) <= 2
    assert_square(pixels, 20, 200 * natural)


def test_a_crop_of_a_pdf_is_drawn_anew(folder: Path, tmp_path: Path) -> None:
    """The edge between two colours is as sharp in the crop as drawing at its scale makes it."""
    with closing(open_source(draw_pdf(tmp_path / "drawn.pdf", 1))) as source:
        page = next(source.pages((1,)))
        config = PipelineConfig(pdf_dpi=72, crop_upscale=8, padding=0)
        *_, crop = draw_pictures(page, result(picture()), config, folder)
    row = load(folder, crop)[200, :, 0]
    assert sum(20 < value < 235 for value in row[300:500]) <= 2


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_page_that_lies_is_shown_upright(rotation: int, folder: Path, tmp_path: Path) -> None:
    upright = draw_picture(tmp_path / "upright.png")
    with Image.open(upright) as image:
        image.rotate(rotation, expand=True).save(tmp_path / "lying.png")
    with closing(open_source(tmp_path / "lying.png")) as source:
        page = next(source.pages((1,)))
        turned = PageResult(1, 612, 792, (picture(),), rotation=rotation)
        sheet, crop = draw_pictures(page, turned, CONFIG, folder)
    assert load(folder, sheet).shape[:2] == (792, 612)
    assert_square(load(folder, crop), 20, 200)


def test_a_page_that_leans_is_levelled(folder: Path, tmp_path: Path) -> None:
    upright = draw_picture(tmp_path / "upright.png")
    with Image.open(upright) as image:
        # Pillow turns counter-clockwise, so levelling needs the opposite.
        image.rotate(-3, fillcolor="white", resample=Image.Resampling.BICUBIC).save(
            tmp_path / "leaning.png"
        )
    with closing(open_source(tmp_path / "leaning.png")) as source:
        page = next(source.pages((1,)))
        _, crop = draw_pictures(page, result(picture(), skew=3.0), CONFIG, folder)
    assert_square(load(folder, crop), 20, 200)


def test_only_pictures_tables_and_formulas_are_cut(page: Page, folder: Path) -> None:
    elements = [
        Element(f"p1-e{n}", category, SQUARE) for n, category in enumerate(Category, start=1)
    ]
    drawn = draw_pictures(page, result(*elements), CONFIG, folder)
    assert {p.category for p in drawn} == {
        None,
        Category.PICTURE,
        Category.TABLE,
        Category.FORMULA,
    }


@pytest.mark.parametrize(
    ("save_pages", "save_crops", "count"), [(False, True, 1), (True, False, 1), (False, False, 0)]
)
def test_what_is_not_wanted_is_not_drawn(
    page: Page, folder: Path, save_pages: bool, save_crops: bool, count: int
) -> None:
    config = PipelineConfig(save_pages=save_pages, save_crops=save_crops)
    assert len(draw_pictures(page, result(picture()), config, folder)) == count
    assert len([path for path in folder.rglob("*") if path.is_file()]) - 1 == count


@pytest.mark.parametrize(
    "box",
    [Box(-50, -50, 20, 20), Box(600, 780, 900, 900), Box(0, 0, 612, 792), Box(5, 5, 5.01, 5.01)],
)
def test_a_box_over_the_edge_is_cut_at_it(page: Page, folder: Path, box: Box) -> None:
    _, crop = draw_pictures(page, result(picture(box)), CONFIG, folder)
    assert min(crop.width, crop.height) >= 1
    assert max(crop.width, crop.height) <= CROP_LONG_EDGE_PX


def test_a_box_off_the_page_is_no_crop(page: Page, folder: Path) -> None:
    drawn = draw_pictures(page, result(picture(Box(700, 900, 800, 1000))), CONFIG, folder)
    assert [p.file for p in drawn] == ["pages/0001.jpg"]
    assert clip(Box(700, 900, 800, 1000), result()) is None


def test_an_id_does_not_lead_out_of_the_folder(page: Page, folder: Path) -> None:
    _, crop = draw_pictures(page, result(picture(element_id="../../x")), CONFIG, folder)
    assert (folder / crop.file).resolve().parent == (folder / "crops").resolve()


def test_a_link_in_the_place_of_a_picture_is_replaced(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "0001.jpg").symlink_to(precious)
    write_picture(tmp_path / "0001.jpg", b"new")
    assert precious.read_text() == "precious"
    assert (tmp_path / "0001.jpg").read_bytes() == b"new"
    assert not (tmp_path / "0001.jpg").is_symlink()


def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        write_picture(tmp_path / "none" / "0001.jpg", b"new")


def test_a_page_picture_is_quick(folder: Path, tmp_path: Path) -> None:
    with closing(open_source(draw_pdf(tmp_path / "drawn.pdf", 1))) as source:
        page = next(source.pages((1,)))
        config = PipelineConfig(save_crops=False)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            draw_pictures(page, result(), config, folder)
            times.append(time.perf_counter() - start)
    assert min(times) < 0.06
