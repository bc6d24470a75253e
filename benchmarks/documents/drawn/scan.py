"""A drawn page made into what a scanner or a camera would have made of it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pypdfium2 as pdfium
from PIL import Image, ImageFilter
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas


@dataclass(frozen=True, slots=True)
class Scanner:
    """How the picture is spoilt.

    Attributes:
        dpi: of the scan.
        skew: degrees counter-clockwise; the paper was laid down crooked.
        turn: 0, 90, 180 or 270 degrees; the paper was laid down the wrong way.
        blur: radius in pixels.
        noise: standard deviation, of 255.
        paper: colour of the paper, 0 to 1 for each channel; ink keeps its darkness.
        stains: soft dark spots.
        fade: how much of the contrast of the ink is lost, 0 to 1.
        quality: of the JPEG.
    """

    dpi: int = 200
    skew: float = 0.0
    turn: int = 0
    blur: float = 0.0
    noise: float = 0.0
    paper: tuple[float, float, float] = (1.0, 1.0, 1.0)
    stains: int = 0
    fade: float = 0.0
    quality: int = 80


def scan(source: Path, target: Path, how: Scanner) -> None:
    """The first page of ``source`` as one picture in a PDF without a text layer."""
    picture = spoil(render(source, how.dpi), how)
    width, height = (edge * 72 / how.dpi for edge in picture.size)
    packed = io.BytesIO()
    picture.save(packed, "JPEG", quality=how.quality)
    packed.seek(0)
    canvas = Canvas(str(target), pagesize=(width, height), invariant=1)
    canvas.drawImage(ImageReader(packed), 0, 0, width, height)
    canvas.save()


def render(source: Path, dpi: int) -> Image.Image:
    document = pdfium.PdfDocument(source)
    try:
        picture: Image.Image = document[0].render(scale=dpi / 72).to_pil().convert("RGB")
    finally:
        document.close()
    return picture


def spoil(picture: Image.Image, how: Scanner) -> Image.Image:
    """The picture after the scanner; the same every time."""
    random = np.random.default_rng(20260101)
    if how.skew:
        picture = picture.rotate(
            how.skew, Image.Resampling.BICUBIC, expand=False, fillcolor=(255, 255, 255)
        )
    if how.blur:
        picture = picture.filter(ImageFilter.GaussianBlur(how.blur))
    light = np.asarray(picture, dtype=np.float32) / 255
    light = 1 - (1 - light) * (1 - how.fade)
    light *= np.asarray(how.paper, dtype=np.float32)
    light *= _stains(light.shape[0], light.shape[1], how.stains, random)[:, :, None]
    light += random.normal(0, how.noise / 255, light.shape[:2])[:, :, None].astype(np.float32)
    spoilt = Image.fromarray((light.clip(0, 1) * 255).astype(np.uint8))
    return spoilt.rotate(how.turn, expand=True) if how.turn else spoilt


def _stains(height: int, width: int, count: int, random: np.random.Generator) -> np.ndarray:
    light = np.ones((height, width), dtype=np.float32)
    rows, cols = np.mgrid[0:height, 0:width].astype(np.float32)
    for _ in range(count):
        y, x = random.uniform(0, height), random.uniform(0, width)
        radius = random.uniform(0.04, 0.12) * width
        distance = ((rows - y) ** 2 + (cols - x) ** 2) / radius**2
        light *= 1 - 0.18 * np.exp(-distance)
    return light
