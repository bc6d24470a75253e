"""OCR against drawn pages: the text, the places and the sizes are those that were drawn."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from octavo.errors import MissingDependency
from octavo.media.page import Pixels
from octavo.readers import ocr_detect, ocr_models
from octavo.readers.ocr import OcrEngine, OcrLine
from octavo.readers.ocr_detect import strips
from octavo.readers.ocr_lines import split_reading
from octavo.readers.ocr_quads import Quad, split_doubles
from octavo.readers.ocr_recognize import Reading
from octavo.types import Box

SENTENCES = (
    "The commission met again in the afternoon and heard",
    "further evidence from the northern districts, where",
    "prices had risen by 14.5% since January 1887; Mr. Gray",
    "replied that delay could not possibly be justified.",
)


@pytest.fixture(scope="module")
def engine() -> Iterator[OcrEngine]:
    made = OcrEngine(threads=2)
    yield made
    made.close()


def draw(
    texts: list[tuple[float, float, str, float]],
    size: tuple[int, int] = (900, 320),
    *,
    ink: str = "black",
    paper: str = "white",
) -> Pixels:
    """Texts as (left, top, text, size of the font)."""
    page = Image.new("RGB", size, paper)
    canvas = ImageDraw.Draw(page)
    for left, top, text, font_size in texts:
        canvas.text((left, top), text, font=ImageFont.load_default(font_size), fill=ink)
    return np.asarray(page)


def paragraph(size: float, lead: float = 1.5) -> list[tuple[float, float, str, float]]:
    return [(40, 40 + i * size * lead, text, size) for i, text in enumerate(SENTENCES)]


def texts(lines: list[OcrLine]) -> list[str]:
    return [line.text for line in lines]


@pytest.mark.parametrize("size", [30, 20, 11])
def test_reads_what_was_drawn_in_order(engine: OcrEngine, size: int) -> None:
    assert texts(engine.read(draw(paragraph(size)), 1.0)) == list(SENTENCES)


def test_reads_light_on_dark(engine: OcrEngine) -> None:
    assert texts(engine.read(draw(paragraph(24), ink="white", paper="#203040"), 1.0)) == list(
        SENTENCES
    )


def test_reads_faded_grainy_print(engine: OcrEngine) -> None:
    page = draw(paragraph(26), ink="#8a8170", paper="#d8cdb0").astype(np.float32)
    page += np.random.default_rng(1).normal(0, 8, page.shape)
    assert texts(engine.read(page.clip(0, 255).astype(np.uint8), 1.0)) == list(SENTENCES)


@pytest.mark.parametrize("scale", [1.0, 200 / 72])
def test_word_boxes_are_the_ink_in_page_units(engine: OcrEngine, scale: float) -> None:
    size = 28
    page = draw([(50, 60, SENTENCES[0], size)])
    (line,) = engine.read(page, scale)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    at = 50.0
    for word, expected in zip(line.words, SENTENCES[0].split(), strict=True):
        left, _, right, _ = font.getbbox(expected)
        assert word.text == expected
        assert word.box.left * scale == pytest.approx(at + left, abs=0.25 * size)
        assert word.box.right * scale == pytest.approx(at + right, abs=0.25 * size)
        at += font.getlength(expected + " ")
    baseline = 60 + font.getmetrics()[0]
    for word in line.words:
        assert word.baseline * scale == pytest.approx(baseline, abs=0.12 * size)
        assert word.font_size * scale == pytest.approx(size, rel=0.2)
        assert word.box.top == pytest.approx(word.baseline - 0.8 * word.font_size)
        assert word.box.bottom == pytest.approx(word.baseline + 0.2 * word.font_size)


def test_sizes_tell_headings_from_text(engine: OcrEngine) -> None:
    page = draw([(40, 30, "Report of the year", 44), (40, 120, SENTENCES[0], 22)])
    heading, text = engine.read(page, 1.0)
    assert heading.words[0].font_size / text.words[0].font_size == pytest.approx(2, rel=0.2)


def test_a_gutter_parts_lines(engine: OcrEngine) -> None:
    page = draw([(30, 60, "left column text", 24), (300, 60, "right column text", 24)])
    lines = sorted(engine.read(page, 1.0), key=lambda line: line.box.left)
    assert texts(lines) == ["left column text", "right column text"]
    assert lines[0].box.right < 270
    assert lines[1].box.left > 290


def test_text_that_runs_up_the_page_is_marked(engine: OcrEngine) -> None:
    level = draw([(20, 20, "Height in metres", 28)], size=(300, 80))
    page = np.full((400, 400, 3), 255, np.uint8)
    page[50:350, 100:180] = np.rot90(level)
    (line,) = engine.read(page, 1.0)
    assert line.text == "Height in metres"
    assert {word.angle for word in line.words} == {90.0}
    assert line.box.height > 3 * line.box.width
    # Going up the page, the first word is the lowest.
    assert line.words[0].box.top > line.words[-1].box.bottom


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 500, 3), (40, 40, 3), (600, 400, 3)])
def test_blank_pages_have_no_lines(engine: OcrEngine, shape: tuple[int, int, int]) -> None:
    assert engine.read(np.full(shape, 255, np.uint8), 1.0) == []


def test_dirt_is_not_text(engine: OcrEngine) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (400, 600, 3), dtype=np.uint8)
    assert sum(len(line.text) for line in engine.read(noise, 1.0)) <= 3


def test_threads_may_share_an_engine(engine: OcrEngine) -> None:
    page = draw(paragraph(24))
    alone = engine.read(page, 1.0)
    found: list[list[OcrLine]] = []
    workers = [
        threading.Thread(target=lambda: found.append(engine.read(page, 1.0))) for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [alone] * 3


def test_legibility_falls_when_the_page_is_upside_down(engine: OcrEngine) -> None:
    page = draw(paragraph(28))
    upright = engine.legibility(page)
    assert upright > 0.9
    assert engine.legibility(np.ascontiguousarray(page[::-1, ::-1])) < upright - 0.15
    assert engine.legibility(np.ascontiguousarray(np.rot90(page))) < 0.5
    assert engine.legibility(np.full((300, 300, 3), 255, np.uint8)) == 0


def test_a_missing_model_names_the_wheel() -> None:
    with pytest.raises(MissingDependency) as caught:
        ocr_models.Model(("rapidocr", "models/none.onnx"), threads=1)
    assert caught.value.next_step == "pip install rapidocr"
    with pytest.raises(MissingDependency, match=r"pip install no-such-wheel"):
        ocr_models.Model(("no_such_wheel", "model.onnx"), threads=1)


def test_a_broken_model_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "broken_wheel"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "model.onnx").write_bytes(b"not a model")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingDependency, match=r"--force-reinstall broken-wheel"):
        ocr_models.Model(("broken_wheel", "model.onnx"), threads=1)


def test_given_boxes_are_read_in_their_order(engine: OcrEngine) -> None:
    page = draw(paragraph(24))
    words = [word for line in engine.read(page, 2.0) for word in line.words][::-1]
    boxes = [word.box for word in words] + [Box(900, 10, 910, 20), Box(2, 2, 18, 12)]
    found = engine.read_boxes(page, 2.0, boxes)
    assert [text for text, _ in found[:-2]] == [word.text for word in words]
    assert min(confidence for _, confidence in found[:-2]) > 0.5
    assert found[-2:] == [("", 0.0)] * 2
    assert engine.read_boxes(page, 2.0, []) == []


def test_a_raised_mark_does_not_shrink_its_line(engine: OcrEngine) -> None:
    footnote = "A spoon of borax keeps the bath sweet for a week."
    page = draw([(40, 34, "2", 14), (54, 40, footnote, 20)], size=(700, 120))
    assert footnote in " ".join(texts(engine.read(page, 1.0)))


def test_tight_lines_in_one_box_are_parted(engine: OcrEngine) -> None:
    page = draw([(40, 40 + 26 * i, text, 24) for i, text in enumerate(SENTENCES)])
    quads = [
        Quad(np.array([(30, y), (800, y), (800, y + h), (30, y + h)], np.float32), 1.0)
        for y, h in ((40, 28), (40, 28), (40, 28), (66, 56))
    ]
    parts = split_doubles(page, quads)
    assert len(parts) == 5
    read = engine.read_boxes(page, 1.0, [box_of(quad) for quad in parts[3:]])
    assert [text for text, _ in read] == list(SENTENCES[1:3])
    assert split_doubles(page, quads[:3]) == quads[:3]


def box_of(quad: Quad) -> Box:
    return Box(*map(float, quad.corners[0]), *map(float, quad.corners[2]))


def test_a_high_page_is_looked_at_in_strips_that_cover_it() -> None:
    for high, wide in ((32, 32), (1600, 1120), (3008, 1312)):
        rows = strips(high, wide)
        assert [row for _, _, a, b in rows for row in range(a, b)] == list(range(high))
        assert all(top <= first < last <= bottom for top, bottom, first, last in rows)
        assert all((bottom - top) % 32 == 0 for top, bottom, _, _ in rows)
        assert all((b - a) * wide <= 900_000 for _, _, a, b in rows)


def test_lines_at_the_seam_of_strips_are_whole(
    engine: OcrEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = draw(paragraph(22), size=(900, 320))
    whole = texts(engine.read(page, 1.0))
    monkeypatch.setattr(ocr_detect, "_STRIP_PIXELS", 60_000)
    assert texts(engine.read(page, 1.0)) == whole == list(SENTENCES)


def test_a_space_that_was_passed_over_is_seen_in_the_ink() -> None:
    crop = np.full((48, 400), 255, np.uint8)
    text, places, left = "twowords", [], 10
    for i, _ in enumerate(text):
        left += 22 if i == 3 else 6
        crop[18:36, left : left + 14] = 0
        places.append(left + 7)
        left += 14
    reading = Reading(
        text=text,
        places=np.array(places, np.float32),
        chances=np.ones(len(text), np.float32),
        crop=crop,
        to_page=np.array([[1.0, 0, 0], [0, 1.0, 0]]),
        upright=False,
    )
    (words,) = split_reading(reading, 1.0)
    assert [word.text for word in words] == ["two", "words"]
    assert words[1].box.left - words[0].box.right == pytest.approx(22, abs=1)
