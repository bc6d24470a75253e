"""Pictures as Qwen's vision towers take them: resized to whole cells, cut into patches.

Gives the values of transformers' ``Qwen2VLImageProcessorPil`` (Qwen2-VL, Qwen2.5-VL, Qwen3-VL)
from ``uint8`` pixels, with one table look-up in place of arithmetic in float64.

Shape letters: n patches, c channels, f frames in a patch, h height, w width, p pixels in a patch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from octavo.errors import InputError, UnsupportedFormat
from octavo.hardware.pictures import GridPicture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from octavo.models.checkpoint import Checkpoint

BICUBIC: Final = 3
CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Final = (0.26862954, 0.26130258, 0.27577711)
HALF: Final = (0.5, 0.5, 0.5)
_WIDEST: Final = 200.0


@dataclass(frozen=True, slots=True)
class QwenGrid(GridPicture):
    """``smart_resize`` as transformers has it: a side under half a cell counts as none, so that a
    thin picture grows to ``min_pixels`` before it is cut."""

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height in pixels, multiples of the cell, area within the bounds.

        Raises:
            ValueError: one side is over ``max_aspect`` times the other, or there is none.
        """
        cell = self.patch * self.merge
        check_aspect(width, height, self.max_aspect)
        wide, high = (round(side / cell) * cell for side in (width, height))
        return bounded((width, height), (wide, high), 1, cell, self.min_pixels, self.max_pixels)


def check_aspect(width: int, height: int, widest: float = _WIDEST) -> None:
    """Raises ValueError for a picture that is too narrow or has no pixels."""
    if width < 1 or height < 1 or max(width, height) > widest * min(width, height):
        raise ValueError(
            f"a picture of {width} x {height} pixels is too narrow: one side may be at most "
            f"{widest:.0f} times the other"
        )


def bounded(
    given: tuple[int, int],
    rounded: tuple[int, int],
    frames: int,
    cell: int,
    least: int,
    most: int,
    counted: int | None = None,
) -> tuple[int, int]:
    """Sides scaled so that all frames together have ``least`` to ``most`` pixels.

    Args:
        given: width and height before rounding to cells, ``rounded`` after.
        frames: that share the bounds; ``counted`` as rounded to whole patches.
    """
    pixels = math.prod(rounded) * (frames if counted is None else counted)
    if pixels > most:
        shrink = math.sqrt(frames * math.prod(given) / most)
        wide, high = (max(cell, math.floor(side / shrink / cell) * cell) for side in given)
    elif pixels < least:
        grow = math.sqrt(least / (frames * math.prod(given)))
        wide, high = (math.ceil(side * grow / cell) * cell for side in given)
    else:
        wide, high = rounded
    return wide, high


@dataclass(frozen=True, slots=True)
class Patching:
    """How pixels become rows of the tower's input.

    Attributes:
        patch, merge: pixels a side of a patch; patches a side of one token.
        frames: that share a patch.
        min_pixels, max_pixels: area after resizing.
        mean, std, scale: pixels are multiplied by ``scale``, then normalised by channel.
    """

    patch: int = 14
    merge: int = 2
    frames: int = 2
    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    scale: float = 1 / 255

    @property
    def cell(self) -> int:
        return self.patch * self.merge

    @property
    def row(self) -> int:
        """Numbers in a row of the tower's input."""
        return 3 * self.frames * self.patch**2

    @property
    def grid(self) -> QwenGrid:
        return QwenGrid(self.patch, self.merge, self.min_pixels, self.max_pixels)


def patching(
    values: Mapping[str, Any], default: Patching, where: str, *, old_bounds: bool = True
) -> Patching:
    """A processor's file over ``default``.

    Args:
        values: of ``preprocessor_config.json`` and its like.
        old_bounds: whether ``min_pixels`` and ``max_pixels`` count, over ``size``.

    Raises:
        InputError: a value that is none.
        UnsupportedFormat: another way to resize, or a step left out.
    """
    left_out = [
        key for key in ("do_resize", "do_rescale", "do_normalize") if values.get(key) is False
    ]
    if left_out or int(values.get("resample") or BICUBIC) != BICUBIC:
        raise UnsupportedFormat(
            f"a processor with {left_out[0]} off" if left_out else "a resampling that is not cubic",
            where=where,
        )
    size = values.get("size") or {}
    least = size.get("shortest_edge") or default.min_pixels
    most = size.get("longest_edge") or default.max_pixels
    if old_bounds:
        least, most = values.get("min_pixels") or least, values.get("max_pixels") or most
    try:
        return Patching(
            patch=int(values.get("patch_size") or default.patch),
            merge=int(values.get("merge_size") or default.merge),
            frames=int(values.get("temporal_patch_size") or default.frames),
            min_pixels=int(least),
            max_pixels=int(most),
            mean=_three(values.get("image_mean") or default.mean),
            std=_three(values.get("image_std") or default.std),
            scale=float(values.get("rescale_factor") or default.scale),
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"the processor's settings are damaged: {error}", where=where) from error


def _three(numbers: Any) -> tuple[float, float, float]:
    red, green, blue = (float(number) for number in numbers)
    return red, green, blue


def settings_in(checkpoint: Checkpoint, nested: str, *files: str) -> Mapping[str, Any] | None:
    """Settings under ``nested`` of ``processor_config.json``, else the first of ``files`` that is
    there, as transformers reads them; None where there are none."""
    if checkpoint.has("processor_config.json"):
        found = checkpoint.json("processor_config.json").get(nested)
        if isinstance(found, dict):
            return found
    for name in files:
        if checkpoint.has(name):
            return checkpoint.json(name)
    return None


def picture_patching(checkpoint: Checkpoint, default: Patching) -> Patching:
    """How the checkpoint wants pictures; ``default`` where it does not say at all."""
    values = settings_in(checkpoint, "image_processor", "preprocessor_config.json")
    return default if values is None else patching(values, Patching(), checkpoint.name)


def picture_rows(
    pixels_hwc: NDArray[np.uint8], settings: Patching, where: str
) -> tuple[NDArray[np.float32], tuple[int, int, int]]:
    """Rows of one picture, shape (n, c*f*p), and its grid (1, patches high, patches wide).

    Raises:
        InputError: it is too narrow.
    """
    import numpy as np
    from PIL import Image

    high, wide = pixels_hwc.shape[:2]
    try:
        size = settings.grid.resized(wide, high)
    except ValueError as error:
        raise InputError(str(error), where=where, next_step="cut it into pieces") from error
    picture = Image.fromarray(np.ascontiguousarray(pixels_hwc)).resize(
        size, Image.Resampling.BICUBIC
    )
    bytes_ncfp = cut(np.asarray(picture).transpose(2, 0, 1)[None], settings)
    rows = np.empty((len(bytes_ncfp), settings.row), np.float32)
    scaled = (np.arange(256, dtype=np.float64) * settings.scale).astype(np.float32)
    mean, std = (np.asarray(pair).astype(np.float32) for pair in (settings.mean, settings.std))
    table = ((scaled[:, None] - mean) / std).astype(np.float32)
    look_up(table, bytes_ncfp, rows, settings)
    return rows, (1, size[1] // settings.patch, size[0] // settings.patch)


def cut(pixels_fchw: NDArray[np.uint8], settings: Patching) -> NDArray[np.uint8]:
    """Patches in the order of the tower, merged ones side by side: shape (n, c, f, p)."""
    frames, channels, high, wide = pixels_fchw.shape
    patch, merge = settings.patch, settings.merge
    cells = pixels_fchw.reshape(
        frames, channels, high // settings.cell, merge, patch, wide // settings.cell, merge, patch
    )
    return cells.transpose(2, 5, 3, 6, 1, 0, 4, 7).reshape(-1, channels, frames, patch**2)


def look_up(
    table: NDArray[np.float32],
    bytes_ncfp: NDArray[np.uint8],
    rows: NDArray[np.float32],
    settings: Patching,
) -> None:
    """Fills ``rows`` (n, c*f*p) with each byte's value by channel, ``table`` (256, c); a single
    frame fills the whole patch."""
    rows_ncfp = rows.reshape(len(rows), 3, settings.frames, settings.patch**2)
    for channel in range(3):
        rows_ncfp[:, channel] = table[:, channel][bytes_ncfp[:, channel]]
