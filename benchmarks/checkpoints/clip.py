"""CLIP checkpoints: tiny, ViT-B/32 and ViT-L/14."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.checkpoints.common import save_random, tokenizer

SHAPES: Final[Mapping[str, str]] = {
    "tiny": "for tests: two layers of 64",
    "base": "openai/clip-vit-base-patch32, 0.15 B",
    "large": "openai/clip-vit-large-patch14, 0.43 B",
}
_TINY_TEXT: Final = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 32,
}  # fmt: skip
TINY_VISION: Final = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
_LARGE_TEXT: Final = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12,
}  # fmt: skip
LARGE_VISION: Final = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
    "num_attention_heads": 16, "image_size": 224, "patch_size": 14,
}  # fmt: skip


def make(folder: Path, shape: str = "tiny", seed: int = 0) -> None:
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    words = clip_tokenizer()
    shapes: dict[str, dict[str, Any]] = {
        "tiny": {"text_config": _TINY_TEXT, "vision_config": TINY_VISION, "projection_dim": 32},
        "base": {"text_config": {}, "vision_config": {}},
        "large": {
            "text_config": _LARGE_TEXT,
            "vision_config": LARGE_VISION,
            "projection_dim": 768,
        },
    }
    settings = shapes[shape]
    text = {**settings["text_config"], **text_ids(words, shape)}
    config: Any = CLIPConfig(**{**settings, "text_config": text})
    save(CLIPModel, config, folder, tiny=shape == "tiny", seed=seed)
    side = config.vision_config.image_size
    CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    ).save_pretrained(folder)
    words.save_pretrained(folder)


def clip_tokenizer() -> Any:
    """As CLIP's: the start token before, the end token after, which also pads and has the
    highest id."""
    from tokenizers.processors import TemplateProcessing

    words = tokenizer(["<|startoftext|>"], bos_token="<|startoftext|>")
    end = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    words.add_special_tokens(end)
    pair = [
        (name, words.convert_tokens_to_ids(name)) for name in (words.bos_token, words.eos_token)
    ]
    words.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{words.bos_token} $A {words.eos_token}", special_tokens=pair
    )
    return words


def text_ids(words: Any, shape: str) -> dict[str, int]:
    """Token ids and, for the tiny shape, the size of the vocabulary."""
    ids = {
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }
    return {**ids, "vocab_size": len(words)} if shape == "tiny" else ids


def save(model_class: Any, config: Any, folder: Path, *, tiny: bool, seed: int) -> None:
    """Weights of ``model_class``: tiny ones large enough that every input changes the answer,
    in float32; others of the usual size, in bfloat16, without ever being in memory."""
    if not tiny:
        with torch.device("meta"):
            module = model_class(config)
        save_random(module, folder, seed=seed)
        return
    module = model_class(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weights in sorted(module.named_parameters()):
            noise = torch.randn(weights.shape, generator=generator)
            weights.copy_(1 + 0.1 * noise if _near_one(name, weights) else 0.2 * noise)
    module.save_pretrained(folder)


def _near_one(name: str, weights: torch.Tensor) -> bool:
    return weights.ndim == 0 or ("norm" in name.lower() and name.endswith("weight"))
