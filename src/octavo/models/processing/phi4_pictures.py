"""Pictures as Phi-4-multimodal takes them, without torchvision.

Equal to transformers' ``Phi4MultimodalImageProcessor``, which runs on torchvision only: the
picture is resized as bytes (bilinear, antialiased) onto a grid of crops, padded with white, and
the padded whole is resized once more as floats (bicubic, not antialiased). Both are torch's own
``interpolate``, which torchvision calls for tensors.

Shape letters: n pictures, s crops with the whole first, c colours, h height, w width, g patches
of one side of a crop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from octavo.errors import InputError
from octavo.hardware.pictures_phi4 import HighDefinition, Layout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Colours:
    """Bytes become ``(byte - mean) / std``, with mean and std in bytes."""

    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    std: tuple[float, float, float] = (127.5, 127.5, 127.5)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Colours:
        """From a processor's settings."""
        factor = float(settings.get("rescale_factor", 1 / 255))
        if not settings.get("do_rescale", True):
            factor = 1.0
        if not settings.get("do_normalize", True):
            return cls((0.0, 0.0, 0.0), (1 / factor,) * 3)
        halves = (0.5, 0.5, 0.5)
        mean = torch.tensor(settings.get("image_mean", halves)) * (1 / factor)
        std = torch.tensor(settings.get("image_std", halves)) * (1 / factor)
        return cls(tuple(mean.tolist()), tuple(std.tolist()))


def crops_of(
    pictures: Sequence[NDArray[np.uint8]],
    rule: HighDefinition,
    colours: Colours,
    names: Sequence[str] = (),
) -> Mapping[str, torch.Tensor]:
    """What the model's ``forward`` takes of pictures.

    Args:
        pictures: height × width × 3 each.
        names: of the pictures, for messages.

    Returns:
        ``image_pixel_values`` float32 (n, s, 3, h, w), zero beyond a picture's own crops;
        ``image_sizes`` (n, 2), height and width of the grid; ``image_attention_mask`` bool
        (n, s, g, g). The mask is boolean, so that a model in bfloat16 counts it exactly.

    Raises:
        InputError: a picture is too narrow.
    """
    crops, masks, sizes = [], [], []
    for number, picture in enumerate(pictures):
        where = names[number] if number < len(names) else None
        height, width = picture.shape[:2]
        try:
            layout = rule.layout(width, height)
        except ValueError as error:
            raise InputError(str(error), where=where) from error
        grid_chw = _on_grid(picture, layout, rule, colours)
        crops.append(_cut(grid_chw, rule.crop))
        masks.append(_mask(layout, rule))
        sizes.append(tuple(grid_chw.shape[-2:]))
    most = max(len(crop_schw) for crop_schw in crops)
    return {
        "image_pixel_values": torch.stack([_filled(one, most, 0) for one in crops]),
        "image_sizes": torch.tensor(sizes, dtype=torch.long),
        "image_attention_mask": torch.stack([_filled(one, most, True) for one in masks]),
    }


def _on_grid(
    picture: NDArray[np.uint8], layout: Layout, rule: HighDefinition, colours: Colours
) -> torch.Tensor:
    """The resized, padded and scaled picture, float32 (c, h, w)."""
    bytes_chw = torch.tensor(picture).permute(2, 0, 1).contiguous()
    size = (layout.height, layout.width)
    if tuple(bytes_chw.shape[-2:]) != size:
        bytes_chw = F.interpolate(
            bytes_chw[None], size=size, mode="bilinear", align_corners=False, antialias=True
        )[0]
    right = layout.columns * rule.crop - layout.width
    below = layout.rows * rule.crop - layout.height
    padded_chw = F.pad(bytes_chw, (0, right, 0, below), value=255).to(torch.float32)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (colours.mean, colours.std))
    return padded_chw.sub_(mean).div_(std)


def _cut(grid_chw: torch.Tensor, crop: int) -> torch.Tensor:
    """The whole at the size of a crop, then the crops by rows: (s, c, h, w)."""
    channels, high, wide = grid_chw.shape
    whole_1chw = grid_chw[None]
    if (high, wide) != (crop, crop):
        whole_1chw = F.interpolate(
            whole_1chw, size=(crop, crop), mode="bicubic", align_corners=False, antialias=False
        )
    rows, columns = high // crop, wide // crop
    crops_schw = grid_chw.reshape(channels, rows, crop, columns, crop).permute(1, 3, 0, 2, 4)
    return torch.cat([whole_1chw, crops_schw.reshape(-1, channels, crop, crop)])


def _mask(layout: Layout, rule: HighDefinition) -> torch.Tensor:
    """Which patches hold picture; all of the whole: bool (s, g, g)."""
    side = rule.crop // rule.patch
    grid = torch.zeros((layout.rows * side, layout.columns * side), dtype=torch.bool)
    grid[: layout.mask_rows, : layout.mask_columns] = True
    cut = grid.reshape(layout.rows, side, layout.columns, side).transpose(1, 2)
    whole = torch.ones((1, side, side), dtype=torch.bool)
    return torch.cat([whole, cut.reshape(-1, side, side)])


def _filled(crops: torch.Tensor, most: int, value: float) -> torch.Tensor:
    """With crops of ``value`` after the picture's own."""
    if len(crops) == most:
        return crops
    rest = crops.new_full((most - len(crops), *crops.shape[1:]), value)
    return torch.cat([crops, rest])
