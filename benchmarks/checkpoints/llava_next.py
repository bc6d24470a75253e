"""LLaVA-NeXT checkpoints: tiny, and a CLIP ViT-L/14-336 tower before a Llama of 0.8 B."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from benchmarks.checkpoints.clip import save
from benchmarks.checkpoints.llava import TEMPLATE, configs, llava_tokenizer

SHAPES: Final[Mapping[str, str]] = {
    "tiny": "for tests: three layers of 64, tiles of 56 pixels",
    "1b": "CLIP ViT-L/14-336 and a Llama of 0.8 B, up to five tiles a picture",
}
#: Height and width of a grid, in tiles.
_GRIDS: Final = ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))


def make(folder: Path, shape: str = "tiny", seed: int = 0) -> None:
    from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )

    words = llava_tokenizer()
    settings = configs(words, shape)
    side = settings["vision_config"]["image_size"]
    grids = [[high * side, wide * side] for high, wide in _GRIDS]
    config = LlavaNextConfig(**settings, image_grid_pinpoints=grids)
    save(LlavaNextForConditionalGeneration, config, folder, tiny=shape == "tiny", seed=seed)
    LlavaNextImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_grid_pinpoints=grids,
    ).save_pretrained(folder)
    words.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
