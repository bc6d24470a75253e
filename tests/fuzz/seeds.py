"""Whole files, small and drawn the same every time, from which the mutants are made."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

EXAMPLES = Path(__file__).parents[2] / "examples"

_LINE = "The quick brown fox jumps over the lazy dog and reads on."


def pdf_seeds() -> dict[str, bytes]:
    """By name. The drawn ones are of two kinds, so that flips reach both structure and text."""
    return {
        "plain.pdf": drawn_pdf(compressed=False),
        "packed.pdf": drawn_pdf(compressed=True),
        "paper.pdf": (EXAMPLES / "paper.pdf").read_bytes(),
        "scan.pdf": (EXAMPLES / "scan.pdf").read_bytes(),
    }


def picture_seeds() -> dict[str, bytes]:
    """By name, one of each format, two of TIFF."""
    one, two = drawn_picture("Recto"), drawn_picture("Verso")
    return {
        "page.png": _saved(one, "PNG"),
        "page.jpg": _saved(one, "JPEG"),
        "page.gif": _saved(one.convert("P"), "GIF"),
        "page.webp": _saved(one, "WEBP"),
        "page.bmp": _saved(one, "BMP"),
        "pages.tiff": _saved(one, "TIFF", save_all=True, append_images=[two]),
        "packed.tiff": _saved(one, "TIFF", compression="tiff_lzw"),
    }


def drawn_pdf(*, compressed: bool) -> bytes:
    """Two pages: a heading, text, a ruled table, a form, a picture."""
    file = io.BytesIO()
    canvas = Canvas(file, pagesize=(420, 420), pageCompression=int(compressed), invariant=True)
    canvas.beginForm("stamp")
    canvas.rect(0, 0, 40, 20)
    canvas.endForm()
    for number in (1, 2):
        canvas.setFont("Helvetica-Bold", 18)
        canvas.drawString(40, 370, f"Chapter {number}")
        canvas.setFont("Times-Roman", 11)
        for at in range(6):
            canvas.drawString(40, 340 - 14 * at, _LINE)
        canvas.grid([40, 120, 200], [200, 220, 240])
        for at, word in enumerate(("name", "size", "Ada", "17")):
            canvas.drawString(46 + 80 * (at % 2), 226 - 20 * (at // 2), word)
        canvas.saveState()
        canvas.translate(300, 200)
        canvas.doForm("stamp")
        canvas.restoreState()
        canvas.drawImage(ImageReader(drawn_picture("Plate")), 40, 60, 150, 90)
        canvas.showPage()
    canvas.save()
    return file.getvalue()


def drawn_picture(word: str) -> Image.Image:
    """240 × 144 pixels with a word and a box."""
    image = Image.new("RGB", (240, 144), "white")
    drawing = ImageDraw.Draw(image)
    drawing.text((20, 20), word, fill="black", font_size=30)
    drawing.rectangle((30, 80, 120, 130), fill=(180, 40, 40))
    return image


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
