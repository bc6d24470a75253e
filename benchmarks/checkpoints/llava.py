"""LLaVA checkpoints: tiny, and a CLIP ViT-L/14-336 tower before a Llama of 0.8 B."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.checkpoints.clip import LARGE_VISION, save
from benchmarks.checkpoints.common import tokenizer

SHAPES: Final[Mapping[str, str]] = {
    "tiny": "for tests: three layers of 64, pictures of 56 pixels",
    "1b": "CLIP ViT-L/14-336 and a Llama of 0.8 B, 1.1 B in all",
}
TEMPLATE: Final = (
    "{% for message in messages %}"
    "{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{{ ' ' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
TINY_TOWER: Final = {
    "model_type": "clip_vision_model", "hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 3, "num_attention_heads": 4, "image_size": 56, "patch_size": 14,
    "projection_dim": 32,
}  # fmt: skip
TINY_DECODER: Final = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 4096,
}  # fmt: skip
TOWER: Final = {**LARGE_VISION, "model_type": "clip_vision_model", "image_size": 336}
DECODER: Final = {
    "model_type": "llama", "vocab_size": 32064, "hidden_size": 1536, "intermediate_size": 4096,
    "num_hidden_layers": 24, "num_attention_heads": 16, "num_key_value_heads": 16,
    "max_position_embeddings": 4096,
}  # fmt: skip


def make(folder: Path, shape: str = "tiny", seed: int = 0) -> None:
    from transformers import LlavaConfig, LlavaForConditionalGeneration
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    words = llava_tokenizer()
    config: Any = LlavaConfig(**configs(words, shape))
    save(LlavaForConditionalGeneration, config, folder, tiny=shape == "tiny", seed=seed)
    side = config.vision_config.image_size
    CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    ).save_pretrained(folder)
    words.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)


def configs(words: Any, shape: str) -> dict[str, Any]:
    """Keyword arguments of the configuration."""
    tiny = shape == "tiny"
    decoder = {**TINY_DECODER, "vocab_size": len(words)} if tiny else DECODER
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return {
        "vision_config": TINY_TOWER if tiny else TOWER,
        "text_config": {**decoder, **ids},
        "image_token_index": words.convert_tokens_to_ids("<image>"),
    }


def llava_tokenizer() -> Any:
    """As Vicuna's: a start token before each prompt."""
    from tokenizers.processors import TemplateProcessing

    words = tokenizer(
        ["<pad>", "<s>", "</s>", "<image>"], bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    words.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return words
