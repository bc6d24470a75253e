"""Sentence encoders: BERT and its relatives with pooling, as sentence-transformers define them.

Reimers and Gurevych, "Sentence-BERT" (2019): the mean of the last layer over the tokens that the
attention mask keeps, scaled to length 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from octavo.errors import UnsupportedFormat
from octavo.hardware.spec import ModelSpec, TensorSpec
from octavo.models.checkpoint import Checkpoint
from octavo.models.families.text import read_config, shape_of, stored_as
from octavo.models.family import Family, Prepared, Processor, Task, components
from octavo.requests import MediaReader, Request

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedTokenizerBase

_LAYER: Final = re.compile(r"(?:^|\.)layer\.(\d+)\.")
_LIMITS: Final = "sentence_bert_config.json"
_POOLING: Final = "1_Pooling/config.json"
#: Tokens of one batch, padding included.
_BATCH_TOKENS: Final = 8192
#: Longest text where neither the checkpoint nor its tokenizer says.
_TOKENS: Final = 512


class Sentence(Family):
    """Encoders that turn a text into one vector."""

    name: ClassVar[str] = "sentence"
    model_types: ClassVar[frozenset[str]] = frozenset(
        {"bert", "distilbert", "mpnet", "roberta", "xlm-roberta"}
    )
    tasks: ClassVar[frozenset[Task]] = frozenset({Task.EMBED_TEXT})

    def describe(self, checkpoint: Checkpoint) -> ModelSpec:
        from dataclasses import replace

        config = read_config(checkpoint)
        # Heads of the training task and the pooler are not used.
        tensors = {
            name: tensor
            for name, tensor in checkpoint.tensors.items()
            if _LAYER.search(name) or (".position_ids" not in name and "embeddings." in name)
        }
        _check_pooling(checkpoint)
        shape = shape_of(config, checkpoint, gated=False)
        return ModelSpec(
            name=checkpoint.name,
            family=self.name,
            stored=stored_as(tensors.values()),
            components=components(self, tensors, ("language",), _layer_of, _is_matrix),
            # Nothing is generated, so no keys and values are kept.
            text=replace(shape, kv_layers=0),
            embedding_dim=shape.hidden,
        )

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        from transformers import AutoModel

        from octavo.models.skeleton import skeleton

        module: Any = skeleton(read_config(checkpoint), AutoModel, checkpoint.folder)
        if hasattr(module, "pooler"):
            module.pooler = None
        built: nn.Module = module
        return built

    def processor(self, checkpoint: Checkpoint) -> SentenceProcessor:
        from octavo.models.chat import local_tokenizer

        _check_pooling(checkpoint)
        tokenizer = local_tokenizer(checkpoint)
        limits = checkpoint.json(_LIMITS) if checkpoint.has(_LIMITS) else {}
        positions = int(read_config(checkpoint).max_position_embeddings)
        told = limits.get("max_seq_length") or min(tokenizer.model_max_length, _TOKENS)
        return SentenceProcessor(tokenizer, min(int(told), positions))

    def component_of(self, name: str) -> str:
        del name
        return "language"

    def layers(self, module: nn.Module, component: str) -> Sequence[nn.Module]:
        stack: Any = getattr(module, "encoder", None) or getattr(module, "transformer", None)
        return tuple(stack.layer) if component == "language" and stack is not None else ()

    def embed_texts(
        self, module: nn.Module, processor: Processor, texts: Sequence[str]
    ) -> torch.Tensor:
        import torch

        assert isinstance(processor, SentenceProcessor)
        hidden: Any = module.config.hidden_size  # type: ignore[union-attr]
        vectors_bd = torch.zeros(len(texts), int(hidden))
        device = next(module.parameters()).device
        with torch.inference_mode():
            for places, inputs in processor.batches(texts):
                on_device = {name: value.to(device) for name, value in inputs.items()}
                last_btd = module(**on_device).last_hidden_state.float()
                mask_bt1 = on_device["attention_mask"][..., None].float()
                mean_bd = (last_btd * mask_bt1).sum(1) / mask_bt1.sum(1).clamp(min=1e-9)
                unit_bd = torch.nn.functional.normalize(mean_bd, dim=1)
                vectors_bd[torch.tensor(places)] = unit_bd.cpu()
        return vectors_bd


class SentenceProcessor(Processor):
    """A tokenizer that cuts texts at ``longest`` tokens, special ones included."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, longest: int) -> None:
        self.tokenizer = tokenizer
        self.longest = longest

    def batches(self, texts: Sequence[str]) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
        """Texts of like length together, so that little is padding: where they stood, and
        ``input_ids`` (b, t) with what belongs to them."""
        if not texts:
            return
        ids = self.tokenizer(list(texts), truncation=True, max_length=self.longest)["input_ids"]
        order = sorted(range(len(texts)), key=lambda place: -len(ids[place]))
        while order:
            count = max(_BATCH_TOKENS // max(len(ids[order[0]]), 1), 1)
            places, order = order[:count], order[count:]
            yield places, self._padded([texts[place] for place in places])

    def prepare(self, request: Request, media: MediaReader) -> Prepared:
        from octavo.models.chat import text_of

        del media
        text = "\n".join(text_of(message) for message in request.messages)
        inputs = self._padded([text])
        return Prepared(inputs, prompt_tokens=inputs["input_ids"].shape[1])

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    @property
    def end_tokens(self) -> frozenset[int]:
        return frozenset()

    def _padded(self, texts: list[str]) -> dict[str, torch.Tensor]:
        made = self.tokenizer(
            texts, padding=True, truncation=True, max_length=self.longest, return_tensors="pt"
        )
        return dict(made)


def _check_pooling(checkpoint: Checkpoint) -> None:
    """Raises UnsupportedFormat for another pooling than the mean of tokens."""
    if checkpoint.folder is None or not (checkpoint.folder / _POOLING).is_file():
        return
    told = checkpoint.json(_POOLING)
    others = [
        name
        for name, used in told.items()
        if name.startswith("pooling_mode_") and name != "pooling_mode_mean_tokens" and used is True
    ]
    if others or told.get("pooling_mode", "mean") != "mean":
        raise UnsupportedFormat(
            f"pooling {others[0] if others else told['pooling_mode']} is not the mean of tokens",
            where=checkpoint.name,
        )


def _layer_of(name: str) -> int | None:
    found = _LAYER.search(name)
    return int(found.group(1)) if found else None


def _is_matrix(tensor: TensorSpec) -> bool:
    in_layer = _LAYER.search(tensor.name) is not None
    return in_layer and len(tensor.shape) == 2 and tensor.name.endswith(".weight")
