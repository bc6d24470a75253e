"""Qwen3-VL: features of several vision layers go into the first decoder layers (DeepStack), and
times of film frames stand as words in the prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from octavo.hardware.spec import VisionShape
from octavo.models.families._qwen import QwenFamily, Variant, film_shape
from octavo.models.processing.qwen_pictures import HALF, Patching, QwenGrid
from octavo.models.processing.qwen_prompt import TimedProcessor
from octavo.models.processing.qwen_video import FilmSettings


class Qwen3VL(QwenFamily):
    """``Qwen/Qwen3-VL-2B-Instruct`` and its larger sisters without experts."""

    name = "qwen3-vl"
    paged = True
    model_types = frozenset({"qwen3_vl"})
    variants: ClassVar[Mapping[str, Variant]] = {
        "qwen3_vl": Variant("Qwen3VLConfig", "Qwen3VLForConditionalGeneration", TimedProcessor)
    }
    pictures = Patching(
        patch=16, min_pixels=256 * 16**2, max_pixels=65_536 * 16**2, mean=HALF, std=HALF
    )
    film = FilmSettings(
        Patching(patch=16, min_pixels=128 * 32**2, max_pixels=768 * 32**2, mean=HALF, std=HALF),
        shared=True,
        max_tokens=768,
    )

    def vision_shape(self, vision: Any, grid: QwenGrid) -> VisionShape:
        shape = VisionShape(
            layers=vision.depth,
            hidden=vision.hidden_size,
            heads=vision.num_heads,
            ffn=vision.intermediate_size,
            patch=vision.patch_size,
            picture=grid,
            out_hidden=vision.out_hidden_size,
            deepstack=len(vision.deepstack_visual_indexes),
        )
        return film_shape(shape, vision)
