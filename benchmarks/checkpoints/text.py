"""Language models of the Llama kind: ``tiny``, and shapes of models that people run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.checkpoints.common import save_random, tokenizer

SHAPES: Final[Mapping[str, str]] = {
    "tiny": "2 layers, hidden 128; for tests",
    "0.2b": "the shape of a 135 M SmolLM2 with more layers: 36 layers, hidden 576, tied",
    "0.5b": "24 layers, hidden 896, vocabulary 151936, tied (Qwen2.5-0.5B)",
    "1b": "16 layers, hidden 2048, vocabulary 128256, tied (Llama-3.2-1B)",
    "3b": "28 layers, hidden 3072, vocabulary 128256, tied (Llama-3.2-3B)",
}
#: layers, hidden, ffn, heads, key-value heads, head_dim, vocabulary
_SIZES: Final = {
    "tiny": (2, 128, 192, 4, 2, 32, 600),
    "0.2b": (36, 576, 1536, 9, 3, 64, 49152),
    "0.5b": (24, 896, 4864, 14, 2, 64, 151936),
    "1b": (16, 2048, 8192, 32, 8, 64, 128256),
    "3b": (28, 3072, 8192, 24, 8, 128, 128256),
}
_SPECIALS: Final = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML: Final = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content']"
    " + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make(folder: Path, shape: str = "tiny", seed: int = 0) -> None:
    make_of_type(folder, "llama", shape, seed)


def make_of_type(folder: Path, model_type: str, shape: str = "tiny", seed: int = 0) -> None:
    """The same sizes for any type of transformers' causal language models."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    layers, hidden, ffn, heads, kv_heads, head_dim, vocabulary = _SIZES[shape]
    words = tokenizer(_SPECIALS, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    words.chat_template = CHATML
    sizes: dict[str, Any] = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "vocab_size": vocabulary,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
        "bos_token_id": words.pad_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }
    config = AutoConfig.for_model(model_type, **sizes)
    with torch.device("meta"):
        module = AutoModelForCausalLM.from_config(config)
    save_random(module, folder, seed=seed)
    words.save_pretrained(folder)
