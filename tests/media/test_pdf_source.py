"""Opening, drawing and closing PDFs; rulings and pictures; what goes wrong."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pypdf import PdfReader, PdfWriter
from pypdf.generic import NameObject, NumberObject, RectangleObject
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from octavo.errors import (
    BrokenFile,
    InputError,
    LimitExceeded,
    PageError,
    PasswordRequired,
    SourceNotFound,
)
from octavo.media import pdf_shapes
from octavo.media.page import TextLayer
from octavo.media.pdf import MAX_PIXELS, OPEN_PAGES, open_pdf
from octavo.types import Box


def drawn(
    path: Path,
    draw: Callable[[Canvas], object],
    size: tuple[float, float] = (400, 300),
    pages: int = 1,
) -> Path:
    canvas = Canvas(str(path), pagesize=size)
    for number in range(1, pages + 1):
        draw(canvas)
        canvas.drawString(10, 10, f"number{number}")
        canvas.showPage()
    canvas.save()
    return path


def layer_of(path: Path) -> TextLayer:
    with open_pdf(path) as source:
        (page,) = source.pages((1,))
        return page.text_layer()


def near(box: Box, *sides: float) -> bool:
    return (box.left, box.top, box.right, box.bottom) == pytest.approx(sides, abs=0.6)


def nothing(_: Canvas) -> None:
    """Draws no more than ``drawn`` does."""


def test_rulings_of_every_make(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.line(50, 250, 350, 250)  # stroked, level
        canvas.line(50, 100, 50, 250)  # stroked, upright
        canvas.rect(60, 180, 200, 1, stroke=0, fill=1)  # a thin bar
        canvas.line(50, 100, 200, 220)  # oblique: no ruling

    found = layer_of(drawn(tmp_path / "lines.pdf", draw))
    level = [ruling.box for ruling in found.rulings if ruling.horizontal]
    upright = [ruling.box for ruling in found.rulings if not ruling.horizontal]
    assert len(level) == 2
    assert near(level[0], 50, 50, 350, 50)
    assert near(level[1], 60, 119, 260, 120)
    assert len(upright) == 1
    assert near(upright[0], 50, 50, 50, 200)


def test_edges_of_a_stroked_rectangle_under_a_matrix(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.translate(100, 50)
        canvas.scale(2, 2)
        canvas.rect(0, 0, 50, 40, stroke=1, fill=0)

    found = layer_of(drawn(tmp_path / "rect.pdf", draw))
    assert len(found.rulings) == 4
    lefts = sorted(round(r.box.center[0]) for r in found.rulings if not r.horizontal)
    tops = sorted(round(r.box.center[1]) for r in found.rulings if r.horizontal)
    assert lefts == [100, 200]
    assert tops == [170, 250]
    assert found.shapes == ()


def test_rulings_and_pictures_inside_a_form(tmp_path: Path) -> None:
    picture = ImageReader(Image.new("RGB", (40, 20), "red"))

    def draw(canvas: Canvas) -> None:
        canvas.beginForm("stamp")
        canvas.line(0, 0, 100, 0)
        canvas.drawImage(picture, 10, 10, 40, 20)
        canvas.endForm()
        canvas.translate(200, 100)
        canvas.rotate(90)
        canvas.doForm("stamp")

    found = layer_of(drawn(tmp_path / "form.pdf", draw))
    (ruling,) = found.rulings
    assert not ruling.horizontal
    assert near(ruling.box, 200, 100, 200, 200)
    (image,) = found.images
    assert near(image, 170, 150, 190, 190)


def test_curves_and_backgrounds_are_shapes(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.circle(200, 150, 40, stroke=1, fill=0)
        canvas.rect(20, 200, 100, 50, stroke=0, fill=1)

    found = layer_of(drawn(tmp_path / "shapes.pdf", draw))
    assert len(found.shapes) == 2
    # The circle's box holds its pen, and pdfium adds half a point.
    assert near(found.shapes[0].expand(-1), 160, 110, 240, 190)
    assert near(found.shapes[1], 20, 50, 120, 100)
    assert found.rulings == ()


def test_drawings_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(canvas: Canvas) -> None:
        for n in range(30):
            canvas.line(50, 20 + 8 * n, 300, 20 + 8 * n)

    path = drawn(tmp_path / "many.pdf", draw)
    whole = layer_of(path)
    assert (len(whole.rulings), whole.shapes_cut) == (30, False)
    monkeypatch.setattr(pdf_shapes, "MAX_PATHS", 10)
    part = layer_of(path)
    assert (len(part.rulings), part.shapes_cut) == (10, True)


def test_a_region_is_the_same_part_of_the_page(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.setFillColorRGB(1, 0, 0)
        canvas.rect(100, 100, 50, 50, stroke=0, fill=1)
        canvas.setFillColorRGB(0, 0, 1)
        canvas.rect(150, 100, 50, 50, stroke=0, fill=1)

    with open_pdf(drawn(tmp_path / "colours.pdf", draw)) as source:
        (page,) = source.pages((1,))
        whole = page.render(2.0)
        part = page.render(2.0, Box(90, 140, 220, 210))
    assert whole.shape == (600, 800, 3)
    assert whole.dtype == np.uint8
    assert whole[350, 250].tolist() == [255, 0, 0]
    assert whole[350, 350].tolist() == [0, 0, 255]
    assert np.array_equal(part, whole[280:420, 180:440])


def test_natural_scale_is_capped(tmp_path: Path) -> None:
    with open_pdf(drawn(tmp_path / "plain.pdf", nothing)) as source:
        (page,) = source.pages((1,))
        assert page.natural_scale(144, None) == pytest.approx(2)
        assert page.natural_scale(144, 600) == pytest.approx(1.5)
        assert max(page.render(page.natural_scale(144, 600)).shape) == 600


def test_a_page_of_two_hundred_inches_stays_small(tmp_path: Path) -> None:
    path = drawn(tmp_path / "sheet.pdf", nothing, size=(14400, 14400))
    with open_pdf(path) as source:
        (page,) = source.pages((1,))
        scale = page.natural_scale(200, None)
        assert 0.98 * MAX_PIXELS <= (scale * 14400) ** 2 <= 1.001 * MAX_PIXELS
        with pytest.raises(LimitExceeded, match="limit"):
            page.render(200 / 72)
        assert page.render(200 / 72, Box(0, 0, 72, 36)).shape == (100, 200, 3)


@pytest.mark.parametrize("region", [Box(500, 0, 600, 10), Box(-20, -20, -10, -10)])
def test_a_region_off_the_page_is_an_error(tmp_path: Path, region: Box) -> None:
    with open_pdf(drawn(tmp_path / "plain.pdf", nothing)) as source:
        (page,) = source.pages((1,))
        with pytest.raises(PageError, match="nothing to draw"):
            page.render(1.0, region)


def test_pages_come_by_number_and_outlive_the_next(tmp_path: Path) -> None:
    with open_pdf(drawn(tmp_path / "long.pdf", nothing, pages=8)) as source:
        assert len(source) == 8
        pages = list(source.pages((7, 2, 5, 1, 3)))
        assert [page.number for page in pages] == [7, 2, 5, 1, 3]
        read = [page.text_layer().words[0].text for page in pages + pages]
        assert read == [f"number{n}" for n in (7, 2, 5, 1, 3)] * 2
        assert len(source._open) == OPEN_PAGES


def test_no_such_page_and_a_closed_file(tmp_path: Path) -> None:
    source = open_pdf(drawn(tmp_path / "plain.pdf", nothing))
    first, second = source.pages((1, 2))
    with pytest.raises(PageError, match="no such page; the file has 1"):
        second.text_layer()
    source.close()
    source.close()
    with pytest.raises(PageError, match="closed"):
        first.render(1.0)


def test_one_bad_page_leaves_the_others(tmp_path: Path) -> None:
    writer = PdfWriter(clone_from=PdfReader(drawn(tmp_path / "a.pdf", nothing, pages=3)))
    kids = writer._pages.get_object()["/Kids"]
    kids[1] = NumberObject(7)
    writer.write(tmp_path / "bad.pdf")
    with open_pdf(tmp_path / "bad.pdf") as source:
        first, second, third = source.pages((1, 2, 3))
        assert first.text_layer().words[0].text == "number1"
        with pytest.raises(PageError, match="cannot read") as caught:
            second.text_layer()
        assert caught.value.where == "bad.pdf, page 2"
        assert third.text_layer().words[0].text == "number3"


def encrypted(tmp_path: Path) -> Path:
    writer = PdfWriter(clone_from=PdfReader(drawn(tmp_path / "open.pdf", nothing)))
    writer.encrypt("käse", "owner", algorithm="AES-256")
    writer.write(tmp_path / "locked.pdf")
    return tmp_path / "locked.pdf"


@pytest.mark.parametrize(
    ("password", "says"), [(None, "needs a password"), ("", "needs"), ("bread", "is wrong")]
)
def test_password_missing_or_wrong(tmp_path: Path, password: str | None, says: str) -> None:
    with pytest.raises(PasswordRequired, match=says):
        open_pdf(encrypted(tmp_path), password)


@pytest.mark.parametrize("password", ["käse", "owner"])
def test_either_password_opens(tmp_path: Path, password: str) -> None:
    with open_pdf(encrypted(tmp_path), password) as source:
        (page,) = source.pages((1,))
        assert page.text_layer().words[0].text == "number1"


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    whole = drawn(tmp_path / "whole.pdf", nothing).read_bytes()
    (tmp_path / "empty.pdf").write_bytes(b"")
    (tmp_path / "short.pdf").write_bytes(whole[:60])
    (tmp_path / "text.pdf").write_bytes(b"this is no PDF at all")
    with pytest.raises(SourceNotFound, match="no such file"):
        open_pdf(tmp_path / "missing.pdf")
    with pytest.raises(SourceNotFound, match="folder"):
        open_pdf(tmp_path)
    with pytest.raises(BrokenFile, match="empty"):
        open_pdf(tmp_path / "empty.pdf")
    for name in ("short.pdf", "text.pdf"):
        with pytest.raises(BrokenFile):
            open_pdf(tmp_path / name)
    with pytest.raises(InputError):
        open_pdf("null\0character.pdf")


def test_a_pdf_without_pages(tmp_path: Path) -> None:
    writer = PdfWriter()
    buffer = io.BytesIO()
    writer.write(buffer)
    (tmp_path / "none.pdf").write_bytes(buffer.getvalue())
    with pytest.raises(BrokenFile, match="no page"):
        open_pdf(tmp_path / "none.pdf")


def test_an_askew_rotation_is_none(tmp_path: Path) -> None:
    writer = PdfWriter(clone_from=PdfReader(drawn(tmp_path / "a.pdf", nothing)))
    writer.pages[0][NameObject("/Rotate")] = NumberObject(45)
    writer.write(tmp_path / "askew.pdf")
    with open_pdf(tmp_path / "askew.pdf") as source:
        (page,) = source.pages((1,))
        # 45 is no /Rotate: a viewer takes the page as it is, and so does this.
        assert (page.width, page.height) in ((400, 300), (300, 400))
        assert page.render(1.0).shape == (page.height, page.width, 3)


@pytest.mark.parametrize("edge", [2_000_000, 2**31])
def test_a_damaged_size_is_a_page_error(tmp_path: Path, edge: int) -> None:
    writer = PdfWriter(clone_from=PdfReader(drawn(tmp_path / "a.pdf", nothing)))
    writer.pages[0][NameObject("/MediaBox")] = RectangleObject((0, 0, 300, edge))
    writer.write(tmp_path / "endless.pdf")
    with open_pdf(tmp_path / "endless.pdf") as source:
        (page,) = source.pages((1,))
        with pytest.raises(PageError, match="300 × 2"):
            page.text_layer()


def test_threads_share_a_source(tmp_path: Path) -> None:
    """pdfium would crash or mix up pages without the lock."""
    path = drawn(tmp_path / "long.pdf", nothing, pages=12)
    wrong: list[str] = []
    with open_pdf(path) as source:

        def work() -> None:
            for page in source.pages(range(1, 13)):
                seen = page.text_layer().words[0].text
                if seen != f"number{page.number}" or page.render(1.0).shape != (300, 400, 3):
                    wrong.append(seen)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
