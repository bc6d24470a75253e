"""Phi-4-multimodal checkpoints with random weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.checkpoints.common import save_random, tokenizer

SHAPES: Final[Mapping[str, str]] = {
    "tiny": "3 layers of 64; towers of 3 layers, crops of 448 pixels as published",
    "1b": "4 of 32 layers and a sixth of the words, both towers whole: 1.4 B",
    "5b": "all of it: 4.7 B",
}
_SPECIALS: Final = [
    "<|endoftext|>",
    "<|end|>",
    "<|image|>",
    "<|audio|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
]
TEMPLATE: Final = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for item in message['content'] %}"
    "{% if item['type'] == 'text' %}{{ item['text'] }}"
    "{% else %}{{ '<|' + item['type'] + '|>' }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def make(folder: Path, shape: str = "tiny", seed: int = 0) -> None:
    """Writes one checkpoint into ``folder``."""
    from transformers import GenerationConfig

    from octavo.models.checkpoint import Checkpoint
    from octavo.models.families.phi4_multimodal import Phi4Multimodal

    words = tokenizer(
        _SPECIALS,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={"image_token": "<|image|>", "audio_token": "<|audio|>"},
    )
    config, dtype, crops = _SHAPES[shape](words)
    config.save_pretrained(folder)
    _save_processors(folder, crops)
    module: Any = Phi4Multimodal().build(Checkpoint.at(folder))
    module.generation_config = GenerationConfig(bos_token_id=0, pad_token_id=0, eos_token_id=[0, 1])
    save_random(module, folder, dtype=dtype, seed=seed)
    words.chat_template = TEMPLATE
    words.save_pretrained(folder)


def _save_processors(folder: Path, crops: int) -> None:
    """Both extractors' settings in one file; transformers' class for pictures is not asked,
    because it needs torchvision."""
    from transformers import Phi4MultimodalFeatureExtractor

    pictures = {
        "image_processor_type": "Phi4MultimodalImageProcessor",
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "dynamic_hd": crops,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "patch_size": 14,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": 448, "width": 448},
    }
    Phi4MultimodalFeatureExtractor().save_pretrained(folder)
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **pictures}, indent=2))


def _tiny(words: Any) -> tuple[Any, torch.dtype, int]:
    text = {
        "vocab_size": len(words),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    }
    vision = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
    }
    audio = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_blocks": 3,
        "num_attention_heads": 4,
        "ext_pw_out_channel": 64,
        "depthwise_separable_out_channel": 64,
        "nemo_conv_channels": 64,
    }
    return _config(words, text, vision, audio), torch.float32, 4


def _published(words: Any, layers: int, vocabulary: int) -> tuple[Any, torch.dtype, int]:
    text = {
        "vocab_size": vocabulary,
        "num_hidden_layers": layers,
        "tie_word_embeddings": True,
        "max_position_embeddings": 4096,
    }
    return _config(words, text, {}, {}), torch.bfloat16, 36


_SHAPES: Final[Mapping[str, Any]] = {
    "tiny": _tiny,
    "1b": lambda words: _published(words, 4, 32_768),
    "5b": lambda words: _published(words, 32, 200_064),
}


def _config(
    words: Any, text: Mapping[str, Any], vision: Mapping[str, Any], audio: Mapping[str, Any]
) -> Any:
    from transformers import Phi4MultimodalConfig

    return Phi4MultimodalConfig(
        bos_token_id=0,
        eos_token_id=[0, 1],
        pad_token_id=0,
        original_max_position_embeddings=4096,
        vision_config={"image_token_id": words.image_token_id, **vision},
        audio_config={"audio_token_id": words.audio_token_id, **audio},
        **text,
    )
