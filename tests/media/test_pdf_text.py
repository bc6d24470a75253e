"""Words of drawn PDFs, whose truth reportlab's own metrics and the drawing calls tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pypdf import PdfReader, PdfWriter
from pypdf.generic import RectangleObject
from reportlab.pdfbase.pdfmetrics import stringWidth
from reportlab.pdfgen.canvas import Canvas

from octavo.media.page import TextLayer, Word
from octavo.media.pdf import open_pdf
from octavo.types import Box

WIDE, HIGH = 400.0, 300.0
Draw = Callable[[Canvas], object]


def drawn(path: Path, draw: Draw) -> Path:
    canvas = Canvas(str(path), pagesize=(WIDE, HIGH))
    draw(canvas)
    canvas.save()
    return path


def layer_of(path: Path, number: int = 1) -> TextLayer:
    with open_pdf(path) as source:
        (page,) = source.pages((number,))
        return page.text_layer()


def words_of(tmp_path: Path, draw: Draw) -> tuple[Word, ...]:
    return layer_of(drawn(tmp_path / "drawn.pdf", draw)).words


def texts(words: tuple[Word, ...]) -> list[str]:
    return [word.text for word in words]


def test_box_baseline_and_size_of_level_words(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.setFont("Helvetica", 12)
        canvas.drawString(50, 200, "Hand mill")

    first, second = words_of(tmp_path, draw)
    assert (first.text, second.text) == ("Hand", "mill")
    assert first.baseline == pytest.approx(HIGH - 200, abs=0.01)
    assert first.font_size == pytest.approx(12, abs=0.01)
    assert first.box.top == pytest.approx(100 - 9.6, abs=0.02)
    assert first.box.bottom == pytest.approx(100 + 2.4, abs=0.02)
    # The ink lies within the advance, at most a side bearing (0.1 em) away from its ends.
    assert 50 <= first.box.left <= 51.2
    end = 50 + stringWidth("Hand", "Helvetica", 12)
    assert end - 1.2 <= first.box.right <= end
    start = 50 + stringWidth("Hand ", "Helvetica", 12)
    assert start <= second.box.left <= start + 1.2
    assert (first.angle, first.confidence, first.broken, first.invisible) == (0, 1, 0, False)


def test_size_is_as_drawn_under_a_scaling_matrix(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.scale(2, 3)
        canvas.setFont("Helvetica", 10)
        canvas.drawString(20, 30, "Scaled")

    (word,) = words_of(tmp_path, draw)
    assert word.font_size == pytest.approx(30, abs=0.01)
    assert word.baseline == pytest.approx(HIGH - 90, abs=0.01)
    assert word.box.width == pytest.approx(2 * stringWidth("Scaled", "Helvetica", 10), abs=4)


@pytest.mark.parametrize(
    ("font", "bold", "italic", "mono"),
    [
        ("Times-Roman", False, False, False),
        ("Times-Bold", True, False, False),
        ("Helvetica-BoldOblique", True, True, False),
        ("Courier", False, False, True),
        ("Courier-BoldOblique", True, True, True),
    ],
)
def test_faces(tmp_path: Path, font: str, bold: bool, italic: bool, mono: bool) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.setFont(font, 11)
        canvas.drawString(50, 100, "Specimen")

    (word,) = words_of(tmp_path, draw)
    assert (word.bold, word.italic, word.mono) == (bold, italic, mono)
    assert word.font == font


def test_sheared_and_outlined_letters_are_italic_and_bold(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.saveState()
        canvas.transform(1, 0, 0.3, 1, 0, 0)
        canvas.drawString(20, 100, "slanted")
        canvas.restoreState()
        text = canvas.beginText(50, 50)
        text.setTextRenderMode(2)
        text.textLine("outlined")
        canvas.drawText(text)

    slanted, outlined = words_of(tmp_path, draw)
    assert (slanted.italic, slanted.bold) == (True, False)
    assert (outlined.italic, outlined.bold) == (False, True)
    assert slanted.font_size == pytest.approx(12, abs=0.01)


def test_text_without_ink_is_invisible_and_kept(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.drawString(50, 100, "shown")
        canvas.saveState()
        canvas.setFillAlpha(0)
        canvas.drawString(50, 150, "clear")
        canvas.restoreState()
        text = canvas.beginText(50, 200)
        text.setTextRenderMode(3)
        text.textLine("hidden")
        canvas.drawText(text)

    words = words_of(tmp_path, draw)
    assert {word.text: word.invisible for word in words} == {
        "hidden": True,
        "clear": True,
        "shown": False,
    }


@pytest.mark.parametrize("degrees", [30, 45, 90, 180, 270])
def test_turned_text_has_its_angle_and_stays_whole(tmp_path: Path, degrees: int) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.setFont("Helvetica", 14)
        canvas.translate(200, 150)
        canvas.rotate(degrees)
        canvas.drawString(0, 0, "Turned words")

    words = words_of(tmp_path, draw)
    assert texts(words) == ["Turned", "words"]
    for word in words:
        assert (word.angle - degrees) % 360 == pytest.approx(0, abs=0.1) or (
            word.angle - degrees
        ) % 360 == pytest.approx(360, abs=0.1)
        assert -180 < word.angle <= 180
        assert word.font_size == pytest.approx(14, abs=0.01)


def test_box_of_upright_text_is_the_ink(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.setFont("Helvetica", 20)
        canvas.translate(100, 50)
        canvas.rotate(90)
        canvas.drawString(0, 0, "HIH")

    path = drawn(tmp_path / "upright.pdf", draw)
    with open_pdf(path) as source:
        (page,) = source.pages((1,))
        (word,) = page.text_layer().words
        dark = page.render(4.0).min(axis=2) < 128
    ys, xs = np.nonzero(dark)
    ink = Box(xs.min() / 4, ys.min() / 4, (xs.max() + 1) / 4, (ys.max() + 1) / 4)
    for side in ("left", "top", "right", "bottom"):
        assert getattr(word.box, side) == pytest.approx(getattr(ink, side), abs=0.5), side


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("origin", [(0, 0), (-120, -40), (37, 500)])
def test_page_rotation_and_odd_boxes_agree_with_the_pixels(
    tmp_path: Path, rotation: int, origin: tuple[float, float]
) -> None:
    """Where the words are said to be, there is the ink; the margins are crop, not media."""
    x0, y0 = origin

    def draw(canvas: Canvas) -> None:
        canvas.translate(x0, y0)
        canvas.setFont("Helvetica-Bold", 24)
        canvas.drawString(60, 80, "Corner")

    writer = PdfWriter(clone_from=PdfReader(drawn(tmp_path / "plain.pdf", draw)))
    page = writer.pages[0]
    page.mediabox = RectangleObject((x0, y0, x0 + WIDE, y0 + HIGH))
    page.cropbox = RectangleObject((x0 + 20, y0 + 30, x0 + 320, y0 + 230))
    page.rotate(rotation)
    writer.write(tmp_path / "turned.pdf")
    with open_pdf(tmp_path / "turned.pdf") as source:
        (turned,) = source.pages((1,))
        (word,) = turned.text_layer().words
        pixels = turned.render(3.0)
        assert (turned.width, turned.height) == ((300, 200) if rotation in (0, 180) else (200, 300))
    assert pixels.shape == (turned.height * 3, turned.width * 3, 3)
    assert (word.angle + rotation) % 360 == pytest.approx(0, abs=0.1)
    ys, xs = np.nonzero(pixels.min(axis=2) < 128)
    if rotation == 0:
        assert word.box.left == pytest.approx(xs.min() / 3, abs=0.7)
        assert word.box.right == pytest.approx((xs.max() + 1) / 3, abs=0.7)
        assert word.baseline == pytest.approx(200 - 50, abs=0.01)
    else:
        for side, seen in zip(
            ("left", "top", "right", "bottom"),
            (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1),
            strict=True,
        ):
            assert getattr(word.box, side) == pytest.approx(seen / 3, abs=0.7), side


def test_swapped_corners_of_a_page_box(tmp_path: Path) -> None:
    path = drawn(tmp_path / "plain.pdf", lambda canvas: canvas.drawString(50, 60, "here"))
    writer = PdfWriter(clone_from=PdfReader(path))
    writer.pages[0].mediabox = RectangleObject((WIDE, HIGH, 0, 0))
    writer.write(tmp_path / "swapped.pdf")
    (word,) = layer_of(tmp_path / "swapped.pdf").words
    assert word.baseline == pytest.approx(HIGH - 60, abs=0.01)


def test_text_outside_the_page_is_dropped(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.drawString(50, 100, "inside")
        canvas.drawString(50, HIGH + 40, "above")
        canvas.drawString(-90, 100, "beside")

    assert texts(words_of(tmp_path, draw)) == ["inside"]


def test_tracked_letters_are_words(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        text = canvas.beginText(20, 200)
        text.setFont("Helvetica", 12)
        text.setCharSpace(4)
        text.textLine("CHAPTER THREE BEGINS")
        canvas.drawText(text)

    assert texts(words_of(tmp_path, draw)) == ["CHAPTER", "THREE", "BEGINS"]


def test_gaps_without_spaces_part_words(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        x = 30.0
        for word in ("tight", "lines", "have", "no", "spaces"):
            canvas.drawString(x, 100, word)
            x += stringWidth(word, "Helvetica", 12) + 0.22 * 12

    assert texts(words_of(tmp_path, draw)) == ["tight", "lines", "have", "no", "spaces"]


def test_letters_placed_one_by_one_are_one_word(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        x = 30.0
        for letter in "kerning":
            canvas.drawString(x, 100, letter)
            x += stringWidth(letter, "Helvetica", 12) + 0.3

    assert texts(words_of(tmp_path, draw)) == ["kerning"]


def test_superscripts_part_and_small_capitals_do_not(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.setFont("Times-Roman", 12)
        canvas.drawString(50, 200, "note")
        canvas.setFont("Times-Roman", 7)
        canvas.drawString(50 + stringWidth("note", "Times-Roman", 12), 204, "17")
        canvas.setFont("Times-Roman", 12)
        canvas.drawString(50, 100, "A")
        canvas.setFont("Times-Roman", 9)
        canvas.drawString(50 + stringWidth("A", "Times-Roman", 12), 100, "BSTRACT")

    words = words_of(tmp_path, draw)
    assert texts(words) == ["note", "17", "ABSTRACT"]
    assert [round(word.font_size) for word in words] == [12, 7, 12]


def test_a_word_struck_twice_is_kept_once(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        for offset in (0.0, 0.3):
            canvas.drawString(50 + offset, 100, "struck")
        canvas.drawString(50, 80, "struck")

    words = words_of(tmp_path, draw)
    assert [(word.text, round(word.baseline)) for word in words] == [
        ("struck", 200),
        ("struck", 220),
    ]


def test_an_accent_of_its_own_joins_its_letter(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.setFont("Helvetica", 12)
        canvas.drawString(50, 100, "Muller")
        u = 50 + stringWidth("M", "Helvetica", 12)
        nudge = (stringWidth("u", "Helvetica", 12) - stringWidth("¨", "Helvetica", 12)) / 2
        canvas.drawString(u + nudge, 100, "¨")

    assert texts(words_of(tmp_path, draw)) == ["Müller"]


def test_a_hyphen_at_the_end_of_a_line_is_a_hyphen(tmp_path: Path) -> None:
    def draw(canvas: Canvas) -> None:
        canvas.drawString(50, 200, "every re-")
        canvas.drawString(50, 186, "port counts")

    assert texts(words_of(tmp_path, draw)) == ["every", "re-", "port", "counts"]


def test_characters_beyond_the_first_plane_and_private_ones(tmp_path: Path) -> None:
    """A drawn file whose map to Unicode is then rewritten to say other characters."""
    path = drawn(tmp_path / "plain.pdf", lambda canvas: canvas.drawString(50, 100, "ABCD"))
    writer = PdfWriter(clone_from=PdfReader(path))
    fonts = writer.pages[0]["/Resources"]["/Font"]
    cmap = (
        b"/CIDInit /ProcSet findresource begin 12 dict begin begincmap\n"
        b"1 begincodespacerange <00> <FF> endcodespacerange\n"
        b"4 beginbfchar <41> <D835DC00> <42> <E123> <43> <F0B7> <44> <0044> endbfchar\n"
        b"endcmap end end\n"
    )
    from pypdf.generic import NameObject, StreamObject

    stream = StreamObject()
    stream.set_data(cmap)
    for font in fonts.values():
        font.get_object()[NameObject("/ToUnicode")] = writer._add_object(stream)
    writer.write(tmp_path / "mapped.pdf")
    (word,) = layer_of(tmp_path / "mapped.pdf").words
    assert word.text == "\U0001d400\ue123•D"
    assert 0.15 <= word.broken <= 0.3
