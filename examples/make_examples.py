"""Draws the example documents: ``python examples/make_examples.py``.

``paper.pdf`` is born digital, ``scan.pdf`` the same kind of page from a crooked scanner without a
text layer, ``photo.jpg`` a page photographed from the side in uneven light. The outputs are the
same bytes each time and are committed. Needs reportlab.
"""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import article
import numpy as np
import pypdfium2 as pdfium
from PIL import Image, ImageFilter
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

HERE = Path(__file__).resolve().parent


def main() -> None:
    article.draw(HERE / "paper.pdf", article.SEWING)
    with tempfile.TemporaryDirectory() as folder:
        clean = Path(folder) / "clean.pdf"
        article.draw(clean, article.MARBLING)
        _scan(clean, HERE / "scan.pdf")
        article.draw(clean, article.GILDING)
        _photo(clean, HERE / "photo.jpg")
    for name in ("paper.pdf", "scan.pdf", "photo.jpg"):
        print(f"{name}: {(HERE / name).stat().st_size / 1000:.0f} kB")


def _render(path: Path, dpi: int) -> Image.Image:
    document = pdfium.PdfDocument(path)
    try:
        picture: Image.Image = document[0].render(scale=dpi / 72).to_pil().convert("L")
    finally:
        document.close()
    return picture


def _scan(source: Path, target: Path, dpi: int = 170) -> None:
    """Two degrees askew, slightly out of focus, with the grain of a cheap sensor."""
    picture = _render(source, dpi)
    picture = picture.rotate(2.0, Image.Resampling.BICUBIC, fillcolor=255)
    picture = picture.filter(ImageFilter.GaussianBlur(0.5))
    light = np.asarray(picture, dtype=np.float32) * 0.93 + 8
    light += np.random.default_rng(7).normal(0, 5, light.shape)
    packed = io.BytesIO()
    Image.fromarray(light.clip(0, 255).astype(np.uint8)).save(packed, "JPEG", quality=62)
    packed.seek(0)
    width, height = (edge * 72 / dpi for edge in picture.size)
    canvas = Canvas(str(target), pagesize=(width, height), invariant=1)
    canvas.drawImage(ImageReader(packed), 0, 0, width, height)
    canvas.save()


def _photo(source: Path, target: Path) -> None:
    """The page on a dark table, a little from the side, a window on the left."""
    page = _render(source, 170).convert("RGB")
    wide, high = page.size
    table = Image.new("RGB", (wide + 160, high + 160), (70, 56, 46))
    corners: list[tuple[float, float]] = [
        (96, 70),
        (wide + 84, 96),
        (wide + 110, high + 92),
        (58, high + 112),
    ]
    lens = _perspective(corners, [(0, 0), (wide, 0), (wide, high), (0, high)])
    turned = page.transform(table.size, Image.Transform.PERSPECTIVE, lens, Image.Resampling.BICUBIC)
    white = Image.new("L", page.size, 255)
    cover = white.transform(table.size, Image.Transform.PERSPECTIVE, lens, Image.Resampling.BICUBIC)
    table.paste(turned, (0, 0), cover)
    table = table.filter(ImageFilter.GaussianBlur(0.6))
    light = np.asarray(table, dtype=np.float32)
    across = np.linspace(1.0, 0.72, light.shape[1], dtype=np.float32)[None, :, None]
    down = np.linspace(0.95, 1.0, light.shape[0], dtype=np.float32)[:, None, None]
    tint = np.asarray([1.0, 0.97, 0.9], dtype=np.float32)
    light = light * across * down * tint
    light += np.random.default_rng(11).normal(0, 3, light.shape)
    Image.fromarray(light.clip(0, 255).astype(np.uint8)).save(target, "JPEG", quality=72)


def _perspective(seen: list[tuple[float, float]], page: list[tuple[float, float]]) -> list[float]:
    """The eight numbers by which Pillow maps a place in the photo to one on the page."""
    rows: list[list[float]] = []
    for (x, y), (u, v) in zip(seen, page, strict=True):
        rows.append([x, y, 1, 0, 0, 0, -u * x, -u * y])
        rows.append([0, 0, 0, x, y, 1, -v * x, -v * y])
    wanted = np.asarray(page, dtype=np.float64).reshape(8)
    return [float(value) for value in np.linalg.solve(np.asarray(rows, dtype=np.float64), wanted)]


if __name__ == "__main__":
    main()
