"""dots.ocr with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.checkpoints.common import save_random, tokenizer

SHAPES: Final = {
    "tiny": "2 + 3 layers of width 64, for tests",
    "1b": "12 tower layers of width 1536 and 8 decoder layers: 0.9 B parameters",
    "3b": "the published shape: 42 tower layers, 28 decoder layers, 3.0 B parameters",
}
_SPECIALS: Final = [
    "<|endoftext|>", "<|user|>", "<|endofuser|>", "<|assistant|>", "<|endofassistant|>",
    "<|system|>", "<|endofsystem|>", "<|img|>", "<|imgpad|>", "<|endofimg|>",
]  # fmt: skip


def make(folder: Path, shape: str = "tiny", seed: int = 0) -> None:
    """See ``benchmarks.checkpoints.Maker``."""
    from transformers import Qwen2Config

    from octavo.models.native.dots_ocr import DotsOCRModel

    words = tokenizer(_SPECIALS, eos_token="<|endofassistant|>", pad_token="<|endoftext|>")
    ids = {name: int(words.convert_tokens_to_ids(name)) for name in _SPECIALS}
    text, vision = _sizes(shape, len(words))
    config: Any = Qwen2Config(
        **text,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        eos_token_id=[ids["<|endoftext|>"], ids["<|endofassistant|>"]],
        pad_token_id=ids["<|endoftext|>"],
    )
    config.vision_config = vision
    config.image_token_id = ids["<|imgpad|>"]
    torch.manual_seed(seed)
    if shape == "tiny":
        model: Any = DotsOCRModel(config)
        model.eval()
        model.save_pretrained(folder)
    else:
        with torch.device("meta"):
            model = DotsOCRModel(config)
        save_random(model, folder, seed=seed)
    _write_config(folder)
    words.save_pretrained(folder)
    processor = {
        "min_pixels": 3136, "max_pixels": 11_289_600, "patch_size": 14, "temporal_patch_size": 1,
        "merge_size": 2, "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711], "image_processor_type":
        "Qwen2VLImageProcessor",
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def _sizes(shape: str, words: int) -> tuple[dict[str, Any], dict[str, Any]]:
    if shape == "tiny":
        text = {
            "vocab_size": words, "hidden_size": 64, "intermediate_size": 128,
            "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
            "max_position_embeddings": 4096, "tie_word_embeddings": False,
        }  # fmt: skip
        vision = {
            "embed_dim": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
            "num_attention_heads": 4,
        }  # fmt: skip
        return text, vision
    layers, blocks = {"1b": (8, 12), "3b": (28, 42)}[shape]
    text = {
        "vocab_size": 151_936, "hidden_size": 1536, "intermediate_size": 8960,
        "num_hidden_layers": layers, "num_attention_heads": 12, "num_key_value_heads": 2,
        "max_position_embeddings": 131_072, "tie_word_embeddings": False,
    }  # fmt: skip
    vision = {
        "embed_dim": 1536, "hidden_size": 1536, "intermediate_size": 4224,
        "num_hidden_layers": blocks, "num_attention_heads": 12,
    }  # fmt: skip
    return text, vision


def _write_config(folder: Path) -> None:
    """As the hub has it: its own model type, the old spelling of the rotary base."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["model_type"] = "dots_ocr"
    config["architectures"] = ["DotsOCRForCausalLM"]
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config["vision_config"] |= {
        "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 1,
        "rms_norm_eps": 1e-5, "use_bias": False, "post_norm": True, "num_channels": 3,
    }  # fmt: skip
    path.write_text(json.dumps(config, indent=1))
