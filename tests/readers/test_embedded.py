from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reportlab.pdfgen.canvas import Canvas

from octavo.errors import PageError
from octavo.media import open_source
from octavo.media.page import Pixels, TextLayer
from octavo.readers.embedded import EmbeddedReader, ReaderSettings
from octavo.readers.scan import ScanReader
from octavo.types import Category, PageResult, TextSource

from .drawing import prose

TEXT = prose(14, words=9)


def draw(path: Path, *, invisible: str | None = None, scan: bool = False, angle: int = 0) -> Path:
    """One page: a heading and a paragraph, as text or as a picture of it."""
    page = io.BytesIO()
    canvas = Canvas(page, pagesize=(595, 842))
    canvas.setFont("Helvetica-Bold", 18)
    canvas.drawString(70, 740, "Of sewing on cords")
    canvas.setFont("Helvetica", 11)
    for i, line in enumerate(TEXT):
        canvas.drawString(70, 700 - 15 * i, line)
    canvas.save()
    if not scan:
        path.write_bytes(page.getvalue())
        return path
    source_path = path.with_suffix(".source.pdf")
    source_path.write_bytes(page.getvalue())
    source = open_source(source_path)
    pixels = next(iter(source.pages((1,)))).render(150 / 72)
    source.close()
    picture = Image.fromarray(pixels).rotate(angle, expand=True, fillcolor="white")
    picture_path = path.with_suffix(".png")
    picture.save(picture_path)
    size = (picture.width * 72 / 150, picture.height * 72 / 150)
    canvas = Canvas(str(path), pagesize=size)
    canvas.drawImage(str(picture_path), 0, 0, *size)
    if invisible is not None:
        text = canvas.beginText(70, 740)
        text.setTextRenderMode(3)
        text.setFont("Helvetica", 11)
        for line in invisible.split("\n"):
            text.textLine(line)
        canvas.drawText(text)
    canvas.save()
    return path


@pytest.fixture(scope="module")
def reader() -> EmbeddedReader:
    return EmbeddedReader()


def read(reader: EmbeddedReader, path: Path) -> PageResult:
    source = open_source(path)
    try:
        return next(reader.read(source.pages((1,))))
    finally:
        source.close()


def text_of(result: PageResult) -> str:
    return " ".join(element.text for element in result.elements)


def likeness(result: PageResult) -> float:
    from rapidfuzz.fuzz import ratio

    return float(ratio(text_of(result), " ".join(["Of sewing on cords", *TEXT]))) / 100


def test_a_sound_text_layer_is_kept_word_for_word(reader: EmbeddedReader, tmp_path: Path) -> None:
    result = read(reader, draw(tmp_path / "a.pdf"))
    assert result.source is TextSource.TEXT_LAYER
    assert text_of(result) == " ".join(["Of sewing on cords", *TEXT])
    assert result.elements[0].category in (Category.TITLE, Category.SECTION_HEADER)
    assert set(result.timings) >= {"text", "render", "judge", "layout", "compose"}


@pytest.mark.parametrize("angle", [0, 90, 180, 270, 3])
def test_a_scan_is_read_upright_and_level(
    reader: EmbeddedReader, tmp_path: Path, angle: int
) -> None:
    result = read(reader, draw(tmp_path / "a.pdf", scan=True, angle=angle))
    assert result.source is TextSource.OCR
    assert likeness(result) > 0.97
    assert result.rotation == (angle if angle % 90 == 0 else 0)
    assert result.skew == pytest.approx(-3 if angle == 3 else 0, abs=0.3)


def test_a_wrong_invisible_layer_is_not_believed(reader: EmbeddedReader, tmp_path: Path) -> None:
    wrong = "\n".join(f"nonsense number {i} written underneath" for i in range(15))
    result = read(reader, draw(tmp_path / "a.pdf", scan=True, invisible=wrong))
    assert result.source is TextSource.OCR
    assert "nonsense" not in text_of(result)
    assert [a.kept for a in result.attempts] == [False, True]
    assert likeness(result) > 0.97


def test_ocr_can_be_ruled_out(tmp_path: Path) -> None:
    reader = EmbeddedReader(ReaderSettings(ocr="never"))
    result = read(reader, draw(tmp_path / "a.pdf", scan=True))
    assert (result.source, result.elements[:0]) == (TextSource.TEXT_LAYER, ())
    assert text_of(result) == ""


class BadPage:
    """A page that fails while it is drawn."""

    width, height = 100.0, 100.0

    def __init__(self, number: int, error: Exception | None) -> None:
        self.number = number
        self.error = error

    def text_layer(self) -> TextLayer:
        if self.error:
            raise self.error
        return TextLayer()

    def render(self, scale: float, region: object = None) -> Pixels:
        return np.full((int(100 * scale), int(100 * scale), 3), 255, dtype=np.uint8)

    def natural_scale(self, dpi: float, max_long_edge_px: int | None) -> float:
        return dpi / 72


@pytest.mark.parametrize("error", [PageError("page 2 is broken"), ValueError("deep inside")])
def test_a_bad_page_leaves_the_others_whole(reader: EmbeddedReader, error: Exception) -> None:
    pages = [BadPage(1, None), BadPage(2, error), BadPage(3, None)]
    results = list(reader.read(pages))
    assert [r.number for r in results] == [1, 2, 3]
    assert [r.failure is None for r in results] == [True, False, True]
    assert results[1].failure is not None
    assert results[1].failure.error == type(error).__name__
    assert results[0].source is TextSource.NONE


def test_pages_are_drawn_only_a_little_ahead(reader: EmbeddedReader) -> None:
    taken = []

    def pages() -> object:
        for number in range(1, 50):
            taken.append(number)
            yield BadPage(number, None)

    results = reader.read(pages())  # type: ignore[arg-type]
    next(results)
    assert len(taken) <= 4
    results.close()  # type: ignore[attr-defined]


def test_broken_words_are_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pdf"
    canvas = Canvas(str(path), pagesize=(595, 842))
    canvas.drawString(70, 700, 'the bene"ts of waxed linen thread')
    canvas.save()
    monkeypatch.setattr(ScanReader, "read_boxes", lambda *_: [("benefits", 0.99)])
    assert text_of(read(EmbeddedReader(), path)) == "the benefits of waxed linen thread"
    plain = EmbeddedReader(ReaderSettings(mode="fast"))
    assert text_of(read(plain, path)) == 'the bene"ts of waxed linen thread'
