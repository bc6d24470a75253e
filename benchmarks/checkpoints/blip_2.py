"""BLIP-2 checkpoints: tiny with an OPT or a T5, and one of 0.9 B with an OPT."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save_file

from benchmarks.checkpoints.blip import TINY_VISION
from benchmarks.checkpoints.clip import LARGE_VISION, save
from benchmarks.checkpoints.common import tokenizer

SHAPES: Final[Mapping[str, str]] = {
    "tiny": "for tests: an OPT with two layers of 64, 8 queries",
    "tiny-t5": "for tests: a T5 with two layers of 64 on each side, 8 queries",
    "1b": "a tower of 0.3 B, 32 queries in 12 layers, an OPT of 0.5 B: 0.9 B in all",
}
_QUERIES: Final = {
    "vocab_size": 50, "hidden_size": 64, "encoder_hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip
_OPT: Final = {
    "model_type": "opt", "hidden_size": 64, "word_embed_proj_dim": 64, "ffn_dim": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 256,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_T5: Final = {
    "model_type": "t5", "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4,
    "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "pad_token_id": 0,
    "eos_token_id": 2, "decoder_start_token_id": 0,
}  # fmt: skip
_OPT_LARGE: Final = {
    **_OPT, "vocab_size": 50304, "hidden_size": 1280, "word_embed_proj_dim": 1280,
    "ffn_dim": 5120, "num_hidden_layers": 24, "num_attention_heads": 20,
    "max_position_embeddings": 2048,
}  # fmt: skip


def make(folder: Path, shape: str = "tiny", seed: int = 0) -> None:
    from transformers import Blip2Config, Blip2ForConditionalGeneration
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    t5 = shape.endswith("t5")
    words = _tokenizer("$A </s>" if t5 else "<s> $A")
    if shape == "1b":
        parts: dict[str, Any] = {
            "vision_config": LARGE_VISION,
            "qformer_config": {"encoder_hidden_size": LARGE_VISION["hidden_size"]},
            "text_config": _OPT_LARGE,
        }
    else:
        parts = {
            "vision_config": TINY_VISION,
            "qformer_config": _QUERIES,
            "text_config": {**(_T5 if t5 else _OPT), "vocab_size": len(words)},
            "num_query_tokens": 8,
        }
    image = words.convert_tokens_to_ids("<image>")
    config: Any = Blip2Config(**parts, image_token_index=image)
    save(Blip2ForConditionalGeneration, config, folder, tiny=shape != "1b", seed=seed)
    side = config.vision_config.image_size
    BlipImageProcessorPil(size={"height": side, "width": side}).save_pretrained(folder)
    words.save_pretrained(folder)
    if t5:
        _untie(folder, seed)


def _untie(folder: Path, seed: int) -> None:
    """A head of its own, as Flan-T5's; transformers would save the embeddings for both."""
    weights = load_file(folder / "model.safetensors")
    shape = weights["language_model.shared.weight"].shape
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed + 1))
    weights["language_model.lm_head.weight"] = 0.2 * drawn
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["tie_word_embeddings"] = False
    (folder / "config.json").write_text(json.dumps(config, indent=2))


def _tokenizer(form: str) -> Any:
    """OPT's puts a start token before, T5's an end token after."""
    from tokenizers.processors import TemplateProcessing

    words = tokenizer(
        ["<pad>", "<s>", "</s>", "<image>"], bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    words.backend_tokenizer.post_processor = TemplateProcessing(
        single=form, special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return words
