"""BLIP checkpoints, for captions and for answers: tiny and base."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.checkpoints.clip import save
from benchmarks.checkpoints.common import tokenizer

SHAPES: Final[Mapping[str, str]] = {
    "tiny": "for tests, captions: two layers of 64",
    "tiny-vqa": "for tests, answers: two layers of 64",
    "base": "Salesforce/blip-image-captioning-base, 0.22 B",
    "base-vqa": "Salesforce/blip-vqa-base, 0.36 B",
}
TINY_VISION: Final = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "image_size": 48, "patch_size": 16,
}  # fmt: skip
_TINY_TEXT: Final = {
    "hidden_size": 64, "encoder_hidden_size": 64, "intermediate_size": 128,
    "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128,
}  # fmt: skip


def make(folder: Path, shape: str = "tiny", seed: int = 0) -> None:
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipForQuestionAnswering
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    tiny = shape.startswith("tiny")
    words = _tokenizer()
    text: dict[str, Any] = {
        "bos_token_id": words.convert_tokens_to_ids("[DEC]"),
        "eos_token_id": words.sep_token_id,
        "sep_token_id": words.sep_token_id,
        "pad_token_id": words.pad_token_id,
    }
    if tiny:
        text |= {**_TINY_TEXT, "vocab_size": len(words)}
    else:
        text |= {"num_attention_heads": 12}
    config: Any = BlipConfig(text_config=text, vision_config=TINY_VISION if tiny else {})
    kind = BlipForQuestionAnswering if shape.endswith("vqa") else BlipForConditionalGeneration
    save(kind, config, folder, tiny=tiny, seed=seed)
    side = config.vision_config.image_size
    BlipImageProcessorPil(size={"height": side, "width": side}).save_pretrained(folder)
    words.save_pretrained(folder)


def _tokenizer() -> Any:
    """As BERT's: [CLS] before, [SEP] after, and a start token for the decoder."""
    from tokenizers.processors import TemplateProcessing

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[DEC]"]
    words = tokenizer(
        names,
        bos_token="[DEC]",
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )
    words.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return words
