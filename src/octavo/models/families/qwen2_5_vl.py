"""Qwen2.5-VL, whose vision tower attends within windows, and its forerunner Qwen2-VL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from octavo.hardware.spec import VisionShape
from octavo.models.families._qwen import QwenFamily, Variant, film_shape
from octavo.models.processing.qwen_pictures import Patching, QwenGrid
from octavo.models.processing.qwen_prompt import PacedProcessor, QwenProcessor
from octavo.models.processing.qwen_video import FilmSettings


class Qwen25VL(QwenFamily):
    """``Qwen/Qwen2.5-VL-3B-Instruct``, ``Qwen/Qwen2-VL-2B-Instruct`` and their larger sisters."""

    name = "qwen2.5-vl"
    paged = True
    model_types = frozenset({"qwen2_5_vl", "qwen2_vl"})
    variants: ClassVar[Mapping[str, Variant]] = {
        "qwen2_5_vl": Variant(
            "Qwen2_5_VLConfig", "Qwen2_5_VLForConditionalGeneration", PacedProcessor
        ),
        "qwen2_vl": Variant("Qwen2VLConfig", "Qwen2VLForConditionalGeneration", QwenProcessor),
    }
    pictures = Patching(min_pixels=4 * 28**2, max_pixels=16_384 * 28**2)
    film = FilmSettings(Patching(min_pixels=128 * 28**2, max_pixels=768 * 28**2))

    def vision_shape(self, vision: Any, grid: QwenGrid) -> VisionShape:
        # Qwen2-VL calls the tower's width embed_dim, and hidden_size what it hands over.
        newer = hasattr(vision, "out_hidden_size")
        shape = VisionShape(
            layers=vision.depth,
            hidden=vision.hidden_size if newer else vision.embed_dim,
            heads=vision.num_heads,
            ffn=vision.intermediate_size if newer else vision.embed_dim * vision.mlp_ratio,
            patch=vision.patch_size,
            picture=grid,
            out_hidden=vision.out_hidden_size if newer else vision.hidden_size,
            gated=newer,
        )
        return film_shape(shape, vision)
