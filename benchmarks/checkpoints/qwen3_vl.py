"""Qwen3-VL with random weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.checkpoints.common import save_random, tokenizer

SHAPES: Final = {
    "tiny": "4 decoder and 3 vision layers of width 64, vocabulary of 600, fp32",
    "0.5b": "24 decoder layers of width 896, 12 vision layers of width 768: 0.63 B, bf16",
    "1b": "24 decoder layers of width 1536, 24 vision layers of width 768: 1.12 B, bf16",
    "2b": "the shape of Qwen3-VL-2B-Instruct: 2.13 B, bf16",
    "2.4b": "the same with 33 decoder layers: 2.38 B, bf16",
}
MEDIA: Final = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
SPECIALS: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *MEDIA)
#: ChatML with a place for each picture and film, as Qwen's own templates write them.
TEMPLATE: Final = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message.role + '\n' -}}"
    "{%- if message.content is string -%}{{- message.content -}}{%- else -%}"
    "{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "{%- elif part.type == 'video' -%}{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}"
    "{%- else -%}{{- part.text -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)

_TEXT: Final[Mapping[str, Mapping[str, int]]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
             "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16},
    "0.5b": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
             "num_attention_heads": 14, "num_key_value_heads": 2, "head_dim": 64},
    "1b": {"hidden_size": 1536, "intermediate_size": 4608, "num_hidden_layers": 24,
           "num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 128},
    "2b": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28,
           "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128},
    "2.4b": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 33,
             "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128},
}  # fmt: skip
_VISION: Final[Mapping[str, Mapping[str, Any]]] = {
    "tiny": {"depth": 3, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4,
             "num_position_embeddings": 256, "deepstack_visual_indexes": [0, 1]},
    "0.5b": {"depth": 12, "hidden_size": 768, "intermediate_size": 3072, "num_heads": 12,
             "num_position_embeddings": 2304, "deepstack_visual_indexes": [3, 6, 9]},
    "1b": {"depth": 24, "hidden_size": 768, "intermediate_size": 3072, "num_heads": 12,
           "num_position_embeddings": 2304, "deepstack_visual_indexes": [5, 11, 17]},
    "2b": {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16,
           "num_position_embeddings": 2304, "deepstack_visual_indexes": [5, 11, 17]},
    "2.4b": {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16,
             "num_position_embeddings": 2304, "deepstack_visual_indexes": [5, 11, 17]},
}  # fmt: skip
#: Turns in time, height and width; they share half of a head.
_SECTIONS: Final = {"tiny": [4, 2, 2], "0.5b": [12, 10, 10], "1b": [24, 20, 20], "2b": [24, 20, 20],
                    "2.4b": [24, 20, 20]}  # fmt: skip
_VOCABULARY: Final = 151_936


def make(folder: Path, shape: str = "tiny", seed: int = 0) -> None:
    """Writes one of ``SHAPES`` into ``folder``."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    tiny = shape == "tiny"
    ids = write_tokenizer(folder)
    write_processor(folder, "Qwen3VL", tiny)
    rope = {
        "rope_type": "default",
        "rope_theta": 5_000_000.0,
        "mrope_section": _SECTIONS[shape],
        "mrope_interleaved": True,
    }
    text = {
        **_TEXT[shape],
        "vocab_size": ids["vocabulary"] if tiny else _VOCABULARY,
        "max_position_embeddings": 4096 if tiny else 262_144,
        "rope_parameters": rope,
        "eos_token_id": ids["<|im_end|>"],
    }
    vision = {**_VISION[shape], "out_hidden_size": text["hidden_size"], "patch_size": 16}
    settings: dict[str, Any] = {
        "text_config": text,
        "vision_config": vision,
        "tie_word_embeddings": True,
        **media_ids(ids),
    }
    config = Qwen3VLConfig(**settings)
    save_empty(Qwen3VLForConditionalGeneration, config, folder, ids, tiny, seed)


def write_tokenizer(folder: Path) -> dict[str, int]:
    """A small tokenizer with Qwen's special tokens and chat template; their ids come back, and
    ``vocabulary``."""
    made = tokenizer(list(SPECIALS), eos_token="<|im_end|>", pad_token="<|endoftext|>")
    made.chat_template = TEMPLATE
    made.save_pretrained(folder)
    return {token: made.convert_tokens_to_ids(token) for token in SPECIALS} | {
        "vocabulary": len(made)
    }


def media_ids(ids: Mapping[str, int]) -> dict[str, int]:
    """The ids as ``config.json`` names them."""
    return {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }


def write_processor(folder: Path, generation: str, tiny: bool) -> None:
    """The files that say how pictures and films are prepared, as on the hub.

    Args:
        generation: ``Qwen3VL`` or ``Qwen2_5_VL``.
    """
    new = generation == "Qwen3VL"
    cell = 32 if new else 28
    mean = [0.5] * 3 if new else [0.48145466, 0.4578275, 0.40821073]
    std = [0.5] * 3 if new else [0.26862954, 0.26130258, 0.27577711]
    common = {
        "patch_size": cell // 2,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": mean,
        "image_std": std,
        "processor_class": f"{generation}Processor",
    }
    bounds = (
        (4 * cell**2, 64 * cell**2) if tiny else ((64 if new else 4) * cell**2, 16_384 * cell**2)
    )
    picture = {
        **common,
        "size": {"shortest_edge": bounds[0], "longest_edge": bounds[1]},
        "image_processor_type": "Qwen2VLImageProcessor",
    }
    films = (4 * cell**2, (128 if new else 16) * cell**2)
    if not tiny:
        films = (4096, 24_576 * cell**2) if new else (128 * cell**2, 768 * cell**2)
    film = {
        **common,
        "size": {"shortest_edge": films[0], "longest_edge": films[1]},
        "video_processor_type": "Qwen3VLVideoProcessor" if new else "Qwen2VLVideoProcessor",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(picture, indent=2))
    (folder / "video_preprocessor_config.json").write_text(json.dumps(film, indent=2))


def save_empty(
    model_class: Any, config: Any, folder: Path, ids: Mapping[str, int], tiny: bool, seed: int
) -> None:
    """Random weights for ``config``, written without holding the model; tiny ones in fp32, and
    large enough for answers to differ."""
    from transformers import GenerationConfig

    with torch.device("meta"):
        module = model_class(config)
    module.generation_config = GenerationConfig(
        eos_token_id=[ids["<|im_end|>"], ids["<|endoftext|>"]], pad_token_id=ids["<|endoftext|>"]
    )
    save_random(module, folder, dtype=torch.float32 if tiny else torch.bfloat16, seed=seed)
