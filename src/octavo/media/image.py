"""Pictures as sources of pages, by Pillow: photos, scans, TIFF of many pages, animations."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import RLock

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from octavo.errors import (
    BrokenFile,
    LimitExceeded,
    MissingDependency,
    OctavoError,
    PageError,
)
from octavo.media.files import check_file, read_head
from octavo.media.page import Pixels, TextLayer
from octavo.media.pictures import is_heif
from octavo.types import Box

#: How a PDF begins, and what whoever takes one for a picture can do.
PDF = b"%PDF-"
OF_A_PDF = "it is a PDF: octavo parse makes a picture of each of its pages"
#: Pixels of one picture; three bytes each. Pillow's own limit is 89 million.
MAX_PIXELS = 80_000_000
#: Pictures in one file.
MAX_FRAMES = 10_000

#: What is opened. PostScript is left out: Pillow hands it to an interpreter. So are formats
#: without a signature, for which any garbage passes.
FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF",
    "WEBP",
)  # fmt: skip
#: Formats whose further pictures are pages; elsewhere they are previews and layers.
_PAGED = frozenset({"AVIF", "GIF", "HEIF", "PNG", "TIFF", "WEBP"})
#: What Pillow's decoders raise on damaged data.
FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    IndexError,
    KeyError,
    OverflowError,
    RuntimeError,
    struct.error,
    zlib.error,
)
BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)

_ORIENTATION = 0x0112
_SUBFILE_TYPE = 254
_REDUCED = 1


def open_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> ImageSource:
    """Opens a picture and decodes its first page.

    Args:
        path: of the file.
        max_pixels: largest width × height; Pillow refuses 179 million in any case.

    Raises:
        SourceNotFound: there is no such file, or it is a folder.
        LimitExceeded: a picture over ``max_pixels``, or over ``MAX_FRAMES`` of them.
        MissingDependency: HEIC without its plugin.
        BrokenFile: no picture that Pillow knows, damaged, or cut short.
    """
    return ImageSource(Path(path), max_pixels)


class ImageSource:
    """An open picture: a ``media.page.Source``. Also a context manager.

    Page units are pixels of the full picture, EXIF orientation applied. The page used last
    stays decoded.
    """

    def __init__(self, path: Path, max_pixels: int = MAX_PIXELS) -> None:
        self.name = path.name
        self._where = str(path)
        self._max_pixels = max_pixels
        self._lock = RLock()
        self._decoded: tuple[int, Pixels] | None = None
        self._closed = False
        check_file(path)
        self._image = _open(path)
        try:
            self._frames = self._find_frames()
            self.pixels(1)
        except PageError as error:
            self.close()
            raise BrokenFile(
                "the picture is damaged or cut short",
                where=self._where,
                next_step="get the file again",
            ) from error
        except OctavoError:
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._frames)

    def __enter__(self) -> ImageSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def pages(self, numbers: range | tuple[int, ...]) -> Iterator[ImagePage]:
        """The pages of these 1-based numbers; decoded when used."""
        return (ImagePage(self, number) for number in numbers)

    def close(self) -> None:
        """Closes the file. May be called again."""
        with self._lock:
            self._closed = True
            self._decoded = None
            self._image.close()

    def pixels(self, number: int) -> Pixels:
        """The whole upright picture of a page, RGB; not to be written to.

        Raises:
            PageError: no such page, damaged, or the source is closed.
            LimitExceeded: over the limit of pixels.
        """
        with self._lock:
            if self._decoded is None or self._decoded[0] != number:
                self._decoded = None
                self._decoded = (number, self._decode(number))
            return self._decoded[1]

    def size(self, number: int) -> tuple[int, int]:
        """Width and height of the upright picture, without decoding it."""
        with self._lock:
            if self._decoded is not None and self._decoded[0] == number:
                high, wide = self._decoded[1].shape[:2]
                return wide, high
            self._seek(number)
            wide, high = self._image.size
            turned = self._image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
            return (high, wide) if turned else (wide, high)

    def page_name(self, number: int) -> str:
        return f"{self.name}, page {number}"

    def _find_frames(self) -> list[int]:
        """Indices of the pictures that are pages."""
        try:
            count = int(getattr(self._image, "n_frames", 1))
            if self._image.format not in _PAGED or count <= 1:
                return [0]
            if count > MAX_FRAMES:
                raise LimitExceeded(
                    f"{count} pictures in one file are over the limit of {MAX_FRAMES}",
                    where=self._where,
                    next_step="split the file",
                )
            if self._image.format != "TIFF":
                return list(range(count))
            return [n for n in range(count) if not self._is_preview(n)] or [0]
        except BOMBS as error:
            raise _too_large(self._where) from error
        except FAULTS as error:
            raise PageError("the list of pictures is damaged", where=self._where) from error

    def _is_preview(self, frame: int) -> bool:
        self._image.seek(frame)
        tags = getattr(self._image, "tag_v2", {})
        return bool(int(tags.get(_SUBFILE_TYPE, 0)) & _REDUCED)

    def _seek(self, number: int) -> None:
        where = self.page_name(number)
        if self._closed:
            raise PageError("the file is closed", where=where, next_step="open it again")
        if not 1 <= number <= len(self._frames):
            raise PageError(
                f"there is no such page; the file has {len(self._frames)}",
                where=where,
                next_step="ask for a page of the file",
            )
        try:
            self._image.seek(self._frames[number - 1])
        except BOMBS as error:
            raise _too_large(where) from error
        except FAULTS as error:
            raise _damaged(where) from error
        wide, high = self._image.size
        if wide * high > self._max_pixels:
            raise _too_large(where, f"{wide} × {high} pixels", self._max_pixels)

    def _decode(self, number: int) -> Pixels:
        self._seek(number)
        where = self.page_name(number)
        try:
            self._image.load()
            return to_rgb(ImageOps.exif_transpose(self._image))
        except BOMBS as error:
            raise _too_large(where) from error
        except FAULTS as error:
            raise _damaged(where) from error


class ImagePage:
    """One picture: a ``media.page.Page``."""

    def __init__(self, source: ImageSource, number: int) -> None:
        self._source = source
        self._number = number

    @property
    def number(self) -> int:
        return self._number

    @property
    def width(self) -> float:
        return float(self._source.size(self._number)[0])

    @property
    def height(self) -> float:
        return float(self._source.size(self._number)[1])

    def text_layer(self) -> TextLayer:
        """Empty: a picture says nothing about itself."""
        return TextLayer()

    def render(self, scale: float, region: Box | None = None) -> Pixels:
        """The picture, or whole pixels of ``region``, shrunk to ``scale`` (at most 1).

        Raises:
            PageError: damaged, or the region does not touch the picture.
        """
        whole = self._source.pixels(self._number)
        high, wide = whole.shape[:2]
        part = region or Box(0.0, 0.0, float(wide), float(high))
        left, top = max(0, round(part.left)), max(0, round(part.top))
        right, bottom = min(wide, round(part.right)), min(high, round(part.bottom))
        if right <= left or bottom <= top or not scale > 0:
            raise PageError(
                f"nothing to draw: region {region}, scale {scale}",
                where=self._source.page_name(self._number),
                next_step="ask for a region of the page",
            )
        crop = whole[top:bottom, left:right]
        if scale >= 1:
            return crop.copy()
        size = max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale))
        picture = Image.fromarray(np.ascontiguousarray(crop))
        return np.array(picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0))

    def natural_scale(self, dpi: float, max_long_edge_px: int | None) -> float:  # noqa: ARG002
        """1, or less where the long edge would not fit. A picture has no inches: no ``dpi``."""
        if max_long_edge_px is None:
            return 1.0
        return min(1.0, max_long_edge_px / max(self.width, self.height))


def to_rgb(image: Image.Image) -> Pixels:
    """Any picture as 8-bit RGB; what shows through is white.

    16 bits a channel keep their upper half; floats and 32-bit integers, whose range no one
    knows, are stretched from the darkest to the brightest.
    """
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        return np.repeat(_stretched(np.asarray(image))[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        paper = Image.new("RGBA", picture.size, "white")
        return np.array(Image.alpha_composite(paper, picture).convert("RGB"))
    return np.array(image.convert("RGB"))


def _stretched(values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Pixels:
    numbers = np.nan_to_num(values.astype(np.float64))
    low, high = float(numbers.min()), float(numbers.max())
    if low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    span = high - low if high > low and math.isfinite(high - low) else 1.0
    return ((numbers - low) * (255.0 / span)).clip(0, 255).astype(np.uint8)


def _open(path: Path) -> Image.Image:
    where = str(path)
    head = read_head(path, 32)
    if is_heif(head):
        register_heif(where)
    Image.init()
    try:
        return Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN])
    except BOMBS as error:
        raise _too_large(where) from error
    except UnidentifiedImageError as error:
        raise BrokenFile(
            "this is not a picture that can be read",
            where=where,
            next_step=OF_A_PDF
            if head.startswith(PDF)
            else "check that it opens in a viewer; if not, get the file again",
        ) from error
    except FAULTS as error:
        raise BrokenFile(
            "the picture is damaged", where=where, next_step="get the file again"
        ) from error


def register_heif(where: str) -> None:
    if "HEIF" in Image.OPEN:
        return
    if find_spec("pillow_heif") is None:
        raise MissingDependency(
            "HEIC pictures need a plugin of Pillow",
            where=where,
            next_step="pip install pillow-heif",
        )
    import_module("pillow_heif").register_heif_opener()


def _too_large(where: str, what: str = "the picture", limit: int = MAX_PIXELS) -> LimitExceeded:
    return LimitExceeded(
        f"{what} is over the limit of {limit} pixels",
        where=where,
        next_step="shrink the picture, or raise the limit if you trust it",
    )


def _damaged(where: str) -> PageError:
    return PageError(
        "the picture is damaged or cut short", where=where, next_step="get the file again"
    )
