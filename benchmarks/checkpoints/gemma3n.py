"""Gemma 3n checkpoints with random weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.checkpoints.common import save_random, tokenizer

SHAPES: Final[Mapping[str, str]] = {
    "tiny": "4 layers of 64, 2 of them sharing keys and values; a thin MobileNet-V5",
    "2b": "15 of E2B's 30 layers and a fifth of its words, both towers whole: 2.2 B",
    "e2b": "all of E2B: 5.4 B, of which 2 B are embeddings of each layer",
}
_SPECIALS: Final = [
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<image_soft_token>",
    "<audio_soft_token>",
    "<start_of_image>",
    "<end_of_image>",
    "<start_of_audio>",
    "<end_of_audio>",
    "<start_of_turn>",
    "<end_of_turn>",
]
TEMPLATE: Final = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first = messages[0]['content'][0]['text'] + '\n\n' -%}
    {%- set turns = messages[1:] -%}
{%- else -%}
    {%- set first = '' -%}
    {%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception('Conversation roles must alternate user/assistant/user/...') }}
    {%- endif -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') }}
    {%- for item in message['content'] -%}
        {%- if item['type'] == 'audio' -%}{{ '<audio_soft_token>' }}
        {%- elif item['type'] == 'image' -%}{{ '<image_soft_token>' }}
        {%- else -%}{{ item['text'] | trim }}
        {%- endif -%}
    {%- endfor -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}"""


def make(folder: Path, shape: str = "tiny", seed: int = 0) -> None:
    """Writes one checkpoint into ``folder``."""
    from transformers import GenerationConfig

    from octavo.models.checkpoint import Checkpoint
    from octavo.models.families.gemma3n import Gemma3n

    words = _tokenizer()
    config, dtype, side = _SHAPES[shape](words)
    config.save_pretrained(folder)
    module: Any = Gemma3n().build(Checkpoint.at(folder))
    # transformers' own type of tower, as checkpoints name it.
    module.config.vision_config = config.vision_config
    module.generation_config = GenerationConfig(
        bos_token_id=2,
        pad_token_id=0,
        eos_token_id=[1, words.convert_tokens_to_ids("<end_of_turn>")],
    )
    save_random(module, folder, dtype=dtype, seed=seed)
    words.chat_template = TEMPLATE
    words.save_pretrained(folder)
    _save_processors(folder, side)


def _tokenizer() -> Any:
    roles = {
        "image_token": "<image_soft_token>",
        "audio_token": "<audio_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
        "boa_token": "<start_of_audio>",
        "eoa_token": "<end_of_audio>",
    }
    return tokenizer(
        _SPECIALS,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens=roles,
    )


def _save_processors(folder: Path, side: int) -> None:
    from transformers import Gemma3nAudioFeatureExtractor
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    Gemma3nAudioFeatureExtractor().save_pretrained(folder)
    heard = (folder / "preprocessor_config.json").read_text()
    pictures = SiglipImageProcessorPil(
        size={"height": side, "width": side}, resample=2, do_normalize=False
    )
    pictures.save_pretrained(folder)
    _merge(folder / "preprocessor_config.json", heard)


def _merge(path: Path, heard: str) -> None:
    """Both extractors' settings in one file, as published checkpoints have them."""
    import json

    path.write_text(json.dumps({**json.loads(heard), **json.loads(path.read_text())}, indent=2))


def _tiny(words: Any) -> tuple[Any, torch.dtype, int]:
    text = {
        "hidden_size": 64,
        "hidden_size_per_layer_input": 16,
        "intermediate_size": [128] * 4,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "sliding_window": 8,
        "laurel_rank": 8,
        "altup_num_inputs": 2,
        "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
    }
    audio = {
        "hidden_size": 64,
        "conf_num_attention_heads": 4,
        "conf_num_hidden_layers": 2,
        "sscp_conv_channel_size": [16, 8],
    }
    vision = {"model_args": {"channel_multiplier": 0.0625, "msfa_output_resolution": 4}}
    config = _config(words, len(words), text, audio, vision, pictures=16, sounds=8)
    return config, torch.float32, 64


def _e2b(words: Any, layers: int, vocabulary: int) -> tuple[Any, torch.dtype, int]:
    text = {
        "hidden_size": 2048,
        "intermediate_size": [8192] * layers,
        "num_hidden_layers": layers,
        "num_kv_shared_layers": layers // 3,
        "activation_sparsity_pattern": [0.95] * (layers // 3) + [0.0] * (layers - layers // 3),
    }
    return _config(words, vocabulary, text, {}, {}, pictures=256, sounds=188), torch.bfloat16, 768


_SHAPES: Final[Mapping[str, Any]] = {
    "tiny": _tiny,
    "2b": lambda words: _e2b(words, 15, 52_000),
    "e2b": lambda words: _e2b(words, 30, 262_144),
}


def _config(
    words: Any,
    vocabulary: int,
    text: Mapping[str, Any],
    audio: Mapping[str, Any],
    vision: Mapping[str, Any],
    *,
    pictures: int,
    sounds: int,
) -> Any:
    """Ids after the words are the towers' own: 128 of pictures, then 128 of sounds."""
    from transformers import Gemma3nConfig

    return Gemma3nConfig(
        text_config={
            "vocab_size": vocabulary + 256,
            "vocab_size_per_layer_input": vocabulary,
            "pad_token_id": 0,
            "eos_token_id": 1,
            "bos_token_id": 2,
            **text,
        },
        audio_config={"vocab_size": 128, "vocab_offset": vocabulary + 128, **audio},
        vision_config={"vocab_size": 128, "vocab_offset": vocabulary, **vision},
        audio_soft_tokens_per_image=sounds,
        vision_soft_tokens_per_image=pictures,
        boi_token_id=words.boi_token_id,
        eoi_token_id=words.eoi_token_id,
        image_token_id=words.image_token_id,
        boa_token_id=words.boa_token_id,
        eoa_token_id=words.eoa_token_id,
        audio_token_id=words.audio_token_id,
    )
