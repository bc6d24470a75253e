"""Causal language models: text in, text out, on transformers' own model code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from octavo.errors import InputError
from octavo.hardware.spec import ModelSpec, Precision, TensorSpec, TextShape
from octavo.models.checkpoint import Checkpoint
from octavo.models.family import Family, Prepared, Processor, Task, components
from octavo.requests import MediaReader, Request

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedTokenizerBase

_LAYER: Final = re.compile(r"(?:^|\.)layers\.(\d+)\.")
_STORED: Final = {"F32": Precision.FP32, "F64": Precision.FP32, "F16": Precision.FP16}
#: Buffers that old releases saved and new ones compute.
_COMPUTED: Final = ".rotary_emb.inv_freq"


class Text(Family):
    """Decoders of one stack of layers with keys and values: Llama and its relatives."""

    name: ClassVar[str] = "text"
    paged = True
    model_types: ClassVar[frozenset[str]] = frozenset(
        {
            "arcee", "cohere", "cohere2", "ernie4_5", "exaone4", "gemma", "gemma2", "gemma3_text",
            "glm", "glm4", "granite", "helium", "hunyuan_v1_dense", "llama", "ministral", "mistral",
            "nemotron", "olmo", "olmo2", "olmo3", "phi", "phi3", "qwen2", "qwen3", "seed_oss",
            "smollm3", "stablelm", "starcoder2",
        }
    )  # fmt: skip
    tasks: ClassVar[frozenset[Task]] = frozenset({Task.CHAT})

    def describe(self, checkpoint: Checkpoint) -> ModelSpec:
        config = read_config(checkpoint)
        tied = bool(config.tie_word_embeddings)
        tensors = {
            name: tensor
            for name, tensor in checkpoint.tensors.items()
            if not name.endswith(_COMPUTED) and not (tied and name == "lm_head.weight")
        }
        found = components(self, tensors, ("language",), layer_of, is_matrix)
        return ModelSpec(
            name=checkpoint.name,
            family=self.name,
            stored=stored_as(tensors.values()),
            components=found,
            text=shape_of(config, checkpoint, gated=any("gate" in name for name in tensors)),
        )

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        from transformers import AutoModelForCausalLM

        from octavo.models.skeleton import skeleton

        return skeleton(read_config(checkpoint), AutoModelForCausalLM, checkpoint.folder)

    def processor(self, checkpoint: Checkpoint) -> TextProcessor:
        from octavo.models.chat import end_tokens_of, local_tokenizer

        tokenizer = local_tokenizer(checkpoint)
        return TextProcessor(tokenizer, end_tokens_of(tokenizer, checkpoint))

    def component_of(self, name: str) -> str:
        del name
        return "language"

    def layers(self, module: nn.Module, component: str) -> Sequence[nn.Module]:
        if component != "language":
            return ()
        return tuple(module.get_submodule("model.layers").children())


class TextProcessor(Processor):
    """A tokenizer and its chat template.

    Args:
        tokenizer: of transformers.
        ends: ids that end an answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ends: frozenset[int]) -> None:
        self.tokenizer = tokenizer
        self._ends = ends

    def prepare(self, request: Request, media: MediaReader) -> Prepared:
        import torch

        from octavo.models.chat import prompt_tokens

        del media
        ids_bt = torch.tensor([prompt_tokens(self.tokenizer, request)])
        if not ids_bt.numel():
            raise InputError("an empty text", where=request.id)
        inputs = {"input_ids": ids_bt, "attention_mask": torch.ones_like(ids_bt)}
        return Prepared(inputs, prompt_tokens=ids_bt.shape[1])

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    @property
    def end_tokens(self) -> frozenset[int]:
        return self._ends


def read_config(checkpoint: Checkpoint) -> Any:
    """transformers' configuration, so that what ``config.json`` leaves out has its default.

    Raises:
        InputError: it refuses the values.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    values = {key: value for key, value in checkpoint.config.items() if key != "model_type"}
    try:
        return AutoConfig.for_model(checkpoint.model_type, **values)
    except (ValueError, TypeError, KeyError, AttributeError, StrictDataclassError) as error:
        raise InputError(
            f"config.json is not one of a {checkpoint.model_type} model: {error}",
            where=checkpoint.name,
            next_step="download the model again",
        ) from error


def shape_of(config: Any, checkpoint: Checkpoint, *, gated: bool) -> TextShape:
    """The decoder's shape from transformers' configuration.

    Raises:
        InputError: a size that it needs is missing.
    """
    try:
        heads = int(config.num_attention_heads)
        layers = int(config.num_hidden_layers)
        window, full = _attention(config, layers)
        return TextShape(
            layers=layers,
            hidden=int(config.hidden_size),
            heads=heads,
            kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
            head_dim=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
            ffn=int(config.intermediate_size),
            vocabulary=int(config.vocab_size),
            positions=getattr(config, "max_position_embeddings", None),
            tied=bool(config.tie_word_embeddings),
            gated=gated,
            window=window,
            full_layers=full,
        )
    except (AttributeError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(
            f"config.json does not give the model's sizes: {error}", where=checkpoint.name
        ) from error


def _attention(config: Any, layers: int) -> tuple[int | None, int | None]:
    """Tokens that sliding layers see, and how many layers see everything."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if not window or not getattr(config, "use_sliding_window", True):
        return None, None
    if kinds is None:
        return int(window), 0
    full = sum(kind == "full_attention" for kind in kinds)
    return (None, None) if full == layers else (int(window), full)


def layer_of(name: str) -> int | None:
    """The number of the decoder layer in a tensor's name."""
    found = _LAYER.search(name)
    return int(found.group(1)) if found else None


def is_matrix(tensor: TensorSpec) -> bool:
    """Whether it is a linear layer's weight; embeddings are looked up, not multiplied."""
    if len(tensor.shape) != 2 or not tensor.name.endswith(".weight"):
        return False
    return "embed" not in tensor.name


def stored_as(tensors: Any) -> Precision:
    """The float type of most weights."""
    sizes: dict[Precision, int] = {}
    for tensor in tensors:
        kind = _STORED.get(tensor.dtype, Precision.BF16)
        sizes[kind] = sizes.get(kind, 0) + tensor.nbytes
    return max(sizes, key=lambda kind: sizes[kind], default=Precision.BF16)
