"""One picture, from wherever it is, as RGB pixels."""

from __future__ import annotations

from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from octavo.errors import BrokenFile, InputError, LimitExceeded
from octavo.media.image import (
    BOMBS,
    FAULTS,
    FORMATS,
    MAX_PIXELS,
    OF_A_PDF,
    PDF,
    open_image,
    register_heif,
    to_rgb,
)
from octavo.media.page import Pixels
from octavo.media.pictures import is_heif

_SHAPES: Final = "give uint8 height × width × 3, RGB"


def read_picture(value: Any, where: str, max_pixels: int = MAX_PIXELS) -> Pixels:
    """``uint8`` height × width × 3, upright, RGB; what shows through is white.

    Args:
        value: a path, the bytes of a file, a Pillow image, or an array: ``uint8``, height × width
            (grey), × 3 (RGB) or × 4 (with alpha).
        where: how messages name it.
        max_pixels: largest width × height.

    Raises:
        InputError: it is none of these, cannot be opened, is damaged or too large.
        MissingDependency: HEIC without its plugin.
    """
    if isinstance(value, str | PathLike):
        with open_image(Path(value), max_pixels) as source:
            return source.pixels(1)
    if isinstance(value, bytes | bytearray | memoryview):
        return _of_bytes(bytes(value), where, max_pixels)
    if isinstance(value, Image.Image):
        return _of_image(value, where, max_pixels)
    if isinstance(value, np.ndarray):
        return _of_array(value, where, max_pixels)
    raise InputError(
        f"a picture cannot be of type {type(value).__name__}",
        where=where,
        next_step="give a path, the bytes of a file, a Pillow image or an array",
    )


def is_picture_value(value: Any) -> bool:
    """Whether ``read_picture`` takes a value of this type."""
    return isinstance(
        value, str | PathLike | bytes | bytearray | memoryview | Image.Image | np.ndarray
    )


def _of_bytes(data: bytes, where: str, max_pixels: int) -> Pixels:
    if not data:
        raise BrokenFile("the picture is empty", where=where, next_step="get the file again")
    if is_heif(data[:32]):
        register_heif(where)
    Image.init()
    try:
        image = Image.open(BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN])
    except BOMBS as error:
        raise _too_large("the picture", where, max_pixels) from error
    except UnidentifiedImageError as error:
        raise BrokenFile(
            "these bytes are not a picture that can be read",
            where=where,
            next_step=OF_A_PDF
            if data.startswith(PDF)
            else "give the bytes of a file such as PNG or JPEG",
        ) from error
    except FAULTS as error:
        raise _damaged(where) from error
    with image:
        return _of_image(image, where, max_pixels)


def _of_image(image: Image.Image, where: str, max_pixels: int) -> Pixels:
    _check_size(*image.size, where, max_pixels)
    try:
        image.load()
        return to_rgb(ImageOps.exif_transpose(image))
    except BOMBS as error:
        raise _too_large("the picture", where, max_pixels) from error
    except FAULTS as error:
        raise _damaged(where) from error


def _of_array(pixels: Any, where: str, max_pixels: int) -> Pixels:
    if pixels.dtype != np.uint8:
        raise InputError(
            f"pixels of type {pixels.dtype}; uint8 is wanted", where=where, next_step=_SHAPES
        )
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
        raise InputError(
            f"pixels of shape {pixels.shape}; (height, width, 3) is wanted",
            where=where,
            next_step=_SHAPES,
        )
    _check_size(pixels.shape[1], pixels.shape[0], where, max_pixels)
    if pixels.ndim == 3 and pixels.shape[2] == 3:
        return np.ascontiguousarray(pixels)
    return to_rgb(Image.fromarray(np.ascontiguousarray(pixels)))


def _check_size(width: int, height: int, where: str, max_pixels: int) -> None:
    if not width * height:
        raise InputError("a picture without pixels", where=where, next_step=_SHAPES)
    if width * height > max_pixels:
        raise _too_large(f"{width} × {height} pixels", where, max_pixels)


def _too_large(what: str, where: str, limit: int) -> LimitExceeded:
    return LimitExceeded(
        f"{what} is over the limit of {limit} pixels",
        where=where,
        next_step="shrink the picture, or raise the limit if you trust it",
    )


def _damaged(where: str) -> BrokenFile:
    return BrokenFile(
        "the picture is damaged or cut short", where=where, next_step="get the file again"
    )
