"""Makes ``phi4_pictures.json``: what transformers' Phi-4-multimodal processor, on torchvision,
makes of drawn pictures.

``python tests/golden/phi4_pictures.py`` in an environment with torch, transformers and a matching
torchvision. A CUDA build of torchvision beside a CPU build of torch lacks one library of kernels;
``--define-ops`` declares the two that its import looks for.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

#: Width, height, most crops.
SIZES = [
    (448, 448, 36),
    (140, 100, 36),
    (37, 500, 36),
    (1000, 700, 4),
    (900, 1300, 6),
    (1200, 449, 2),
    (450, 440, 12),
    (2000, 300, 3),
]
SAMPLES = 40
LAYOUTS = 150


def drawn(width: int, height: int) -> Any:
    """A smooth picture with noise, the same everywhere: only whole numbers are used."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    noise = (x * 7919 + y * 104729 + (x * y) % 1009) % 61
    planes = [(x * 3 + y + noise) % 256, (x + y * 2 + noise) % 256, (x * y // 97 + noise) % 256]
    return np.stack(planes, axis=-1).astype(np.uint8)


def samples(values: torch.Tensor) -> list[float]:
    """Values spread evenly over a tensor."""
    flat = values.flatten()
    places = torch.linspace(0, flat.numel() - 1, SAMPLES).round().long()
    return [float(value) for value in flat[places]]


def sums(values: torch.Tensor) -> list[float]:
    """Sum and sum of squares of each crop, in double."""
    crops = values.double().flatten(1)
    return [*crops.sum(1).tolist(), *crops.square().sum(1).tolist()]


def layouts(processor: Any) -> list[list[int]]:
    """Width, height, most crops; the grid's width and height and the patches that hold picture."""
    draw = np.random.default_rng(5)
    found = []
    while len(found) < LAYOUTS:
        width, height = (int(side) for side in np.exp(draw.uniform(3, 7.6, 2)))
        crops = int(draw.choice([1, 2, 4, 9, 12, 36]))
        blank = torch.zeros((3, 1, 1), dtype=torch.uint8).expand(3, height, width)
        try:
            grid, mask = processor.dynamic_preprocess(blank, 448, 14, 32, max_num=crops)
        except ValueError:
            found.append([width, height, crops, 0, 0, 0, 0])
            continue
        patches = [int(mask[0].sum()), int(mask[:, 0].sum())]
        found.append([width, height, crops, grid.shape[-1], grid.shape[-2], *patches])
    return found


def main() -> None:
    if "--define-ops" in sys.argv:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision
    import transformers
    from transformers import Phi4MultimodalImageProcessor

    cases = []
    for width, height, crops in SIZES:
        made = Phi4MultimodalImageProcessor(dynamic_hd=crops)(
            [drawn(width, height)], return_tensors="pt"
        )
        pixels, mask = made["image_pixel_values"][0], made["image_attention_mask"][0]
        cases.append(
            {
                "width": width,
                "height": height,
                "crops": crops,
                "shape": list(pixels.shape),
                "size": made["image_sizes"][0].tolist(),
                "tokens": int(made["num_img_tokens"][0]),
                "mask": mask.flatten(1).sum(1).int().tolist(),
                "values": samples(pixels),
                "sums": sums(pixels),
            }
        )
    found = {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "transformers": transformers.__version__,
        "cases": cases,
        "layouts": layouts(Phi4MultimodalImageProcessor()),
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
