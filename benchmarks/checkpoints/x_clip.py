"""X-CLIP checkpoints: tiny, and base with patches of 32."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.checkpoints.clip import TINY_VISION, clip_tokenizer, save, text_ids

SHAPES: Final[Mapping[str, str]] = {
    "tiny": "for tests: two layers of 64, 8 frames",
    "base": "microsoft/xclip-base-patch32, 0.2 B, 8 frames",
    "base-16": "microsoft/xclip-base-patch16-16-frames, 0.2 B",
}
_TINY: Final[Mapping[str, Any]] = {
    "text_config": {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 32,
    },
    "vision_config": {
        **TINY_VISION, "num_frames": 8, "mit_hidden_size": 48, "mit_intermediate_size": 96,
        "mit_num_hidden_layers": 1, "mit_num_attention_heads": 4,
    },
    "projection_dim": 48,
    "prompt_layers": 1,
    "prompt_num_attention_heads": 4,
}  # fmt: skip


def make(folder: Path, shape: str = "tiny", seed: int = 0) -> None:
    from transformers import XCLIPConfig, XCLIPModel
    from transformers.models.videomae.image_processing_pil_videomae import (
        VideoMAEImageProcessorPil,
    )

    words = clip_tokenizer()
    settings: Mapping[str, Any] = {
        "tiny": _TINY,
        "base": {"text_config": {}, "vision_config": {}},
        "base-16": {"text_config": {}, "vision_config": {"patch_size": 16, "num_frames": 16}},
    }[shape]
    text = {**settings["text_config"], **text_ids(words, shape)}
    config: Any = XCLIPConfig(**{**settings, "text_config": text})
    save(XCLIPModel, config, folder, tiny=shape == "tiny", seed=seed)
    side = config.vision_config.image_size
    VideoMAEImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    ).save_pretrained(folder)
    words.save_pretrained(folder)
