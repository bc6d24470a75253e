"""Sentence encoders of the BERT kind: ``tiny``, and shapes of models that people run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from benchmarks.checkpoints.common import save_random, tokenizer

SHAPES: Final[Mapping[str, str]] = {
    "tiny": "2 layers, hidden 64; for tests",
    "minilm": "6 layers, hidden 384, vocabulary 30522 (all-MiniLM-L6)",
    "base": "12 layers, hidden 768, vocabulary 30522 (BERT base)",
}
#: layers, hidden, ffn, heads, vocabulary
_SIZES: Final = {
    "tiny": (2, 64, 128, 4, 600),
    "minilm": (6, 384, 1536, 12, 30522),
    "base": (12, 768, 3072, 12, 30522),
}
_SPECIALS: Final = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make(folder: Path, shape: str = "tiny", seed: int = 0) -> None:
    import torch
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertModel

    layers, hidden, ffn, heads, vocabulary = _SIZES[shape]
    words = tokenizer(
        _SPECIALS,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    words.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=ffn,
        max_position_embeddings=512,
        pad_token_id=words.pad_token_id,
    )
    with torch.device("meta"):
        module = BertModel(config)
    save_random(module, folder, seed=seed)
    words.save_pretrained(folder)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 128}))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": hidden, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
