"""Makes ``gemma3n_tower.json``: what timm's MobileNet-V5 makes of a picture.

``python tests/golden/gemma3n_tower.py`` in an environment with timm and a matching torchvision;
``--define-ops`` as in ``phi4_pictures.py``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

WIDTH = 0.0625
#: Pixels a side → cells a side of what comes out.
SIZES = {64: 2, 72: 4, 96: 6}
SAMPLES = 40


def fill(module: Any) -> None:
    """Weights that only depend on their place: whole numbers over a prime."""
    for number, parameter in enumerate(module.parameters()):
        places = torch.arange(parameter.numel(), dtype=torch.int64)
        values = ((places * 7919 + number * 104729) % 2003 - 1001).double() / 1001
        values = values * 0.5 if parameter.ndim > 1 else 1 + 0.3 * values
        parameter.data = values.float().view(parameter.shape)


def pixels(side: int) -> torch.Tensor:
    places = torch.arange(3 * side * side, dtype=torch.int64)
    return ((places * 31 + places * places % 7919) % 511 / 255 - 1).float().view(1, 3, side, side)


def samples(values: torch.Tensor) -> list[float]:
    flat = values.flatten()
    places = torch.linspace(0, flat.numel() - 1, SAMPLES).round().long()
    return [float(value) for value in flat[places]]


def main() -> None:
    if "--define-ops" in sys.argv:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import timm

    shapes: dict[str, list[int]] = {}
    found: dict[str, Any] = {"timm": timm.__version__, "torch": torch.__version__, "values": {}}
    for side, resolution in SIZES.items():
        tower = timm.create_model(
            "mobilenetv5_300m_enc",
            num_classes=0,
            channel_multiplier=WIDTH,
            msfa_output_resolution=resolution,
        ).eval()
        fill(tower)
        # In float32 these weights make so much of a rounding that threads change the values.
        tower.double()
        with torch.inference_mode():
            found["values"][str(side)] = samples(tower.forward_features(pixels(side).double()))
    with torch.device("meta"):
        whole = timm.create_model("mobilenetv5_300m_enc", num_classes=0)
    shapes = {name: list(value.shape) for name, value in whole.state_dict().items()}
    found["tensors"] = len(shapes)
    found["parameters"] = sum(torch.Size(shape).numel() for shape in shapes.values())
    found["names"] = sorted(shapes)[::25]
    Path(__file__).with_suffix(".json").write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
