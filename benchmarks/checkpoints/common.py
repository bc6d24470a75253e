"""What all makers share: a tokenizer trained on the spot, and weights written without building."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

TEXT: Final = [
    "A photo of a cat sitting on a red chair.",
    "user assistant system describe the image please what is in this picture",
    "The quick brown fox jumps over the lazy dog. 0123456789 table figure total invoice",
] * 20
_STORED: Final = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
_POOL: Final = 1 << 24


def tokenizer(specials: list[str], vocabulary: int = 600, **named: Any) -> Any:
    """A byte-level BPE tokenizer with ``specials`` first; ``named`` are its special tokens by role
    (``bos_token``, ``eos_token``, ``pad_token``, ``extra_special_tokens``)."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, **named)


def save_random(
    module: nn.Module,
    folder: Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    seed: int = 0,
    shard_bytes: int = 2_000_000_000,
) -> None:
    """Random weights for ``module`` (on the meta device) in safetensors shards, tensor by tensor.

    Matrices are normal with a standard deviation of 0.02, norms are 1 and biases 0, so that
    activations stay finite. The random numbers repeat after 2**24 values. ``config.json`` is
    written when the module has one.
    """
    shards = list(_shards(_untied(module), dtype, shard_bytes))
    generator = torch.Generator().manual_seed(seed)
    pool = (torch.randn(_POOL, generator=generator) * 0.02).to(dtype)
    names = [
        "model.safetensors"
        if len(shards) == 1
        else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        for number in range(1, len(shards) + 1)
    ]
    for name, tensors in zip(names, shards, strict=True):
        _write(folder / name, tensors, dtype, pool)
    if len(shards) > 1:
        placed = {tensor: name for name, held in zip(names, shards, strict=True) for tensor in held}
        index = {"metadata": {}, "weight_map": placed}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    if hasattr(module, "config"):
        module.config.dtype = dtype
        module.config.architectures = [type(module).__name__]  # type: ignore[union-attr]
        module.config.save_pretrained(folder)  # type: ignore[union-attr,operator]
    if getattr(module, "generation_config", None) is not None:
        module.generation_config.save_pretrained(folder)  # type: ignore[union-attr,operator]


def _untied(module: nn.Module) -> Mapping[str, torch.Tensor]:
    """Parameters and buffers once each: of tied ones the first, as transformers saves them."""
    if getattr(getattr(module, "config", None), "tie_word_embeddings", False):
        module.tie_weights()  # type: ignore[operator]
    seen: dict[int, str] = {}
    return {
        name: tensor
        for name, tensor in module.state_dict(keep_vars=True).items()
        if seen.setdefault(id(tensor), name) == name
    }


def _shards(
    tensors: Mapping[str, torch.Tensor], dtype: torch.dtype, limit: int
) -> Iterator[dict[str, torch.Tensor]]:
    shard: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        nbytes = tensor.numel() * dtype.itemsize
        if shard and size + nbytes > limit:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += nbytes
    yield shard


def _write(
    path: Path, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype, pool: torch.Tensor
) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        nbytes = tensor.numel() * dtype.itemsize
        header[name] = {
            "dtype": _STORED[dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + nbytes],
        }
        offset += nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for number, (name, tensor) in enumerate(tensors.items()):
            for piece in _values(name, tensor, dtype, pool, number):
                file.write(piece.view(torch.uint8).numpy().data)


def _values(
    name: str, tensor: torch.Tensor, dtype: torch.dtype, pool: torch.Tensor, number: int
) -> Iterator[torch.Tensor]:
    left = tensor.numel()
    if tensor.ndim < 2 or "norm" in name:
        yield torch.full((left,), 0.0 if name.endswith("bias") else 1.0, dtype=dtype)
        return
    start = number * 7919 % (pool.numel() // 2)
    while left > 0:
        piece = pool[start : start + left]
        yield piece
        left -= piece.numel()
        start = 0
