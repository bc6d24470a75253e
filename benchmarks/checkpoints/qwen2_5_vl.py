"""Qwen2.5-VL with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.checkpoints.qwen3_vl import (
    media_ids,
    save_empty,
    write_processor,
    write_tokenizer,
)

SHAPES: Final = {
    "tiny": "3 decoder and 3 vision layers of width 64, vocabulary of 600, fp32",
    "3b": "the shape of Qwen2.5-VL-3B-Instruct: 3.75 B, bf16",
}
_TEXT: Final[Mapping[str, Mapping[str, int]]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
             "num_attention_heads": 4, "num_key_value_heads": 2},
    "3b": {"hidden_size": 2048, "intermediate_size": 11_008, "num_hidden_layers": 36,
           "num_attention_heads": 16, "num_key_value_heads": 2},
}  # fmt: skip
_VISION: Final[Mapping[str, Mapping[str, Any]]] = {
    "tiny": {"depth": 3, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4,
             "window_size": 56, "fullatt_block_indexes": [2]},
    "3b": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
           "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]},
}  # fmt: skip
_SECTIONS: Final = {"tiny": [2, 3, 3], "3b": [16, 24, 24]}
_VOCABULARY: Final = 151_936


def make(folder: Path, shape: str = "tiny", seed: int = 0) -> None:
    """Writes one of ``SHAPES`` into ``folder``."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tiny = shape == "tiny"
    ids = write_tokenizer(folder)
    write_processor(folder, "Qwen2_5_VL", tiny)
    text = {
        **_TEXT[shape],
        "vocab_size": ids["vocabulary"] if tiny else _VOCABULARY,
        "max_position_embeddings": 4096 if tiny else 128_000,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1_000_000.0,
            "mrope_section": _SECTIONS[shape],
        },
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
    }
    vision = {
        **_VISION[shape],
        "out_hidden_size": text["hidden_size"],
        "patch_size": 14,
        "tokens_per_second": 2,
    }
    settings: dict[str, Any] = {
        "text_config": text,
        "vision_config": vision,
        "tie_word_embeddings": True,
        **media_ids(ids),
    }
    config = Qwen2_5_VLConfig(**settings)
    save_empty(Qwen2_5_VLForConditionalGeneration, config, folder, ids, tiny, seed)
