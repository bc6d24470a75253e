"""The pictures beside a report: every page as a JPEG, its figures, tables and formulas as PNG.

Both show the page as the boxes mean it: upright and level. A crop from a PDF is drawn anew at its
own scale, so that it holds more detail than the page picture; a crop from a picture is enlarged.
"""

from __future__ import annotations

import io
import os
import secrets
from pathlib import Path

import numpy as np
from PIL import Image

from octavo.media.page import Page, Pixels
from octavo.media.turn import turn
from octavo.pipeline.config import PipelineConfig
from octavo.pipeline.frames import Picture
from octavo.pipeline.outputs import CROPS, PAGES, safe_name, unwritable
from octavo.types import Box, Category, Element, PageResult

#: Pixels. Small letters can be read and 600 pages still fit into one HTML file.
PAGE_LONG_EDGE_PX = 1400
JPEG_QUALITY = 75

#: Pixels. A finer crop of a whole page is of no use to a reader, man or machine.
CROP_LONG_EDGE_PX = 4096

#: zlib's levels above it take three times as long to save a tenth.
PNG_LEVEL = 1

CROPPED = frozenset({Category.PICTURE, Category.TABLE, Category.FORMULA})


def draw_pictures(
    page: Page, result: PageResult, config: PipelineConfig, folder: Path
) -> tuple[Picture, ...]:
    """Writes the page's picture and crops below ``folder``, each as one step.

    Raises:
        PageError: the page cannot be drawn.
        OutputError: a file cannot be written.
    """
    if result.width <= 0 or result.height <= 0:
        return ()
    scale = page.natural_scale(config.pdf_dpi, config.max_long_edge_px)
    pictures = []
    if config.save_pages:
        pictures.append(_page_picture(page, result, scale, folder))
    if config.save_crops:
        view = _View(page, result)
        for element in result.elements:
            if element.category in CROPPED:
                region = clip(element.box.expand(config.padding / scale), result)
                if region is not None:
                    pixels = view.cut(region, scale * config.crop_upscale)
                    pictures.append(_crop(element, pixels, folder))
    return tuple(pictures)


def clip(box: Box, result: PageResult) -> Box | None:
    """The part of ``box`` that lies on the page; None where that is nothing."""
    inside = Box(
        max(box.left, 0.0),
        max(box.top, 0.0),
        min(box.right, result.width),
        min(box.bottom, result.height),
    )
    return inside if inside.width > 0 and inside.height > 0 else None


class _View:
    """Regions of one page, upright and level."""

    def __init__(self, page: Page, result: PageResult) -> None:
        self._page = page
        self._result = result
        self._whole: tuple[float, Pixels] | None = None

    def cut(self, region: Box, scale: float) -> Pixels:
        """``region`` at ``scale`` pixels a unit, or less where that were too many pixels."""
        scale = min(scale, CROP_LONG_EDGE_PX / max(region.width, region.height))
        if self._result.rotation or self._result.skew:
            pixels = self._cut_turned(region, scale)
        else:
            pixels = self._page.render(scale, region)
        size = max(1, round(region.width * scale)), max(1, round(region.height * scale))
        # A picture is not drawn larger than it is; two pixels are rounding.
        if size[0] - pixels.shape[1] > 2 or size[1] - pixels.shape[0] > 2:
            return _enlarged(pixels, size)
        return pixels

    def _cut_turned(self, region: Box, scale: float) -> Pixels:
        """From the whole page, which is drawn and turned once for all crops of about its scale."""
        page = self._result
        if self._whole is None or self._whole[0] < scale:
            wanted = min(scale, CROP_LONG_EDGE_PX / max(page.width, page.height))
            drawn = turn(self._page.render(wanted), page.rotation, page.skew)
            self._whole = scale, drawn
        pixels = self._whole[1]
        across, down = pixels.shape[1] / page.width, pixels.shape[0] / page.height
        left, top = int(region.left * across), int(region.top * down)
        right = max(left + 1, round(region.right * across))
        bottom = max(top + 1, round(region.bottom * down))
        return pixels[top:bottom, left:right]


def _page_picture(page: Page, result: PageResult, scale: float, folder: Path) -> Picture:
    scale = min(scale, PAGE_LONG_EDGE_PX / max(page.width, page.height))
    pixels = turn(page.render(scale), result.rotation, result.skew)
    file = f"{PAGES}/{result.number:04d}.jpg"
    data = _encoded(_without_colour(pixels), "JPEG", quality=JPEG_QUALITY)
    write_picture(folder / file, data)
    return Picture(file, len(data), pixels.shape[1], pixels.shape[0])


def _crop(element: Element, pixels: Pixels, folder: Path) -> Picture:
    file = f"{CROPS}/{safe_name(element.id)}.png"
    data = _encoded(_without_colour(pixels), "PNG", compress_level=PNG_LEVEL)
    write_picture(folder / file, data)
    return Picture(
        file,
        len(data),
        pixels.shape[1],
        pixels.shape[0],
        element.id,
        element.category,
        element.box,
    )


def _without_colour(pixels: Pixels) -> Pixels:
    """One channel where all three agree, which most print does: encoded in half the time."""
    first = pixels[..., 0]
    if np.array_equal(first, pixels[..., 1]) and np.array_equal(first, pixels[..., 2]):
        return first
    return pixels


def _enlarged(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def _encoded(pixels: Pixels, kind: str, **options: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def write_picture(path: Path, data: bytes) -> None:
    """Whole or not at all. Unlike ``atomic_write`` it does not wait for the disk, which would cost
    more than the drawing: the journal knows the size and a lost picture is drawn again.

    Raises:
        OutputError: the disk is full, or the folder is not writable.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise unwritable(path, error) from error
