"""What the families around a CLIP-like tower share: shapes from configurations, and building.

A ``config.json`` names only what differs from a default of its ``model_type``, so the defaults
are here too; they are those of transformers' configuration classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from octavo.errors import UnsupportedFormat
from octavo.hardware.spec import Precision, TensorSpec, TextShape
from octavo.models.checkpoint import Checkpoint, require

if TYPE_CHECKING:
    from torch import nn

_DECODER: Final = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 2048,
}
_CLIP_TEXT: Final = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
}
_CLIP_VISION: Final = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
}
DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "llama": _DECODER,
    "mistral": {
        **_DECODER,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 4096 * 32,
        "sliding_window": 4096,
    },
    "qwen2": {
        **_DECODER,
        "vocab_size": 151936,
        "intermediate_size": 22016,
        "num_key_value_heads": 32,
        "max_position_embeddings": 32768,
    },
    "clip_text_model": _CLIP_TEXT,
    "xclip_text_model": _CLIP_TEXT,
    "clip_vision_model": _CLIP_VISION,
    "xclip_vision_model": {
        **_CLIP_VISION,
        "num_frames": 8,
        "mit_hidden_size": 512,
        "mit_intermediate_size": 2048,
        "mit_num_hidden_layers": 1,
        "mit_num_attention_heads": 8,
    },
    "siglip_vision_model": {**_CLIP_VISION, "patch_size": 16},
    "blip_vision_model": {**_CLIP_VISION, "image_size": 384, "patch_size": 16},
    "blip_text_model": {
        "vocab_size": 30524,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 8,
        "max_position_embeddings": 512,
        "encoder_hidden_size": 768,
        "bos_token_id": 30522,
        "pad_token_id": 0,
        "sep_token_id": 102,
        "tie_word_embeddings": True,
    },
    "blip_2_vision_model": {
        "hidden_size": 1408,
        "intermediate_size": 6144,
        "num_hidden_layers": 39,
        "num_attention_heads": 16,
        "image_size": 224,
        "patch_size": 14,
    },
    "opt": {
        "vocab_size": 50272,
        "hidden_size": 768,
        "ffn_dim": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    },
    "t5": {
        "vocab_size": 32128,
        "d_model": 512,
        "d_kv": 64,
        "d_ff": 2048,
        "num_layers": 6,
        "num_heads": 8,
        "feed_forward_proj": "relu",
        "tie_word_embeddings": True,
    },
}
#: Added to the numbers of a second list of layers in one component, so that it comes after.
AFTER: Final = 1000
_LAYER: Final = re.compile(r"\.(?:layers?|block)\.(\d+)\.")
_LOOKED_UP: Final = re.compile(r"embed|relative_attention_bias|(^|\.)shared\.")
_COMPUTED: Final = re.compile(r"position_ids$|rotary_emb\.inv_freq$")
_FLOATS: Final = {"F32": Precision.FP32, "BF16": Precision.BF16, "F16": Precision.FP16}


def part_config(
    checkpoint: Checkpoint, key: str, default_type: str, kinds: Sequence[str]
) -> Mapping[str, Any]:
    """A nested configuration with its defaults filled in.

    Raises:
        InputError: there is none.
        UnsupportedFormat: its ``model_type`` is not among ``kinds``.
    """
    given = dict(require(checkpoint.config, key, checkpoint.name) or {})
    kind = str(given.get("model_type") or default_type)
    if kind not in kinds:
        raise UnsupportedFormat(
            f"{key} is of the type {kind!r}",
            where=checkpoint.name,
            next_step=f"types that can be read: {', '.join(kinds)}",
        )
    return {**DEFAULTS[kind], **given, "model_type": kind}


def side(value: Any) -> int:
    """Pixels of one side, given as a number or as a pair of equal ones."""
    return int(value[0] if isinstance(value, list | tuple) else value)


def decoder_shape(config: Mapping[str, Any], tied: bool) -> TextShape:
    """Of a Llama, Mistral or Qwen2."""
    heads = int(config["num_attention_heads"])
    slides = config.get("use_sliding_window", config["model_type"] == "mistral")
    window = config.get("sliding_window") if slides else None
    return TextShape(
        layers=int(config["num_hidden_layers"]),
        hidden=int(config["hidden_size"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
        ffn=int(config["intermediate_size"]),
        vocabulary=int(config["vocab_size"]),
        positions=int(config["max_position_embeddings"]),
        tied=tied,
        window=window,
        full_layers=0 if window else None,
    )


def tower_shape(config: Mapping[str, Any], tied: bool = False) -> TextShape:
    """Of a text tower or decoder with plain attention and a plain MLP (CLIP, BLIP, OPT)."""
    heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
    return TextShape(
        layers=int(config["num_hidden_layers"]),
        hidden=hidden,
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        ffn=int(config.get("intermediate_size") or config["ffn_dim"]),
        vocabulary=int(config["vocab_size"]),
        positions=int(config["max_position_embeddings"]),
        tied=tied,
        gated=False,
    )


def layer_of(name: str) -> int | None:
    """The number of the layer in a tensor's name."""
    found = _LAYER.search(name)
    return int(found.group(1)) if found else None


def is_matrix(tensor: TensorSpec) -> bool:
    """The weight of a linear layer: what is looked up row by row is none."""
    return (
        len(tensor.shape) == 2
        and tensor.name.endswith(".weight")
        and _LOOKED_UP.search(tensor.name) is None
    )


def wanted(
    tensors: Mapping[str, TensorSpec], copies: Mapping[str, str] | None = None
) -> Mapping[str, TensorSpec]:
    """Without what the model computes itself, and without second copies of tied weights.

    Args:
        copies: how the name of a copy ends → how that of the original does.
    """
    drop = tuple(
        copy
        for copy, original in (copies or {}).items()
        if any(name.endswith(original) for name in tensors)
    )
    return {
        name: tensor
        for name, tensor in tensors.items()
        if not _COMPUTED.search(name) and not name.endswith(drop)
    }


def sources(checkpoint: Checkpoint, module: nn.Module) -> Mapping[str, str]:
    """As :func:`match_names`, with tied weights once where the checkpoint holds copies."""
    from octavo.models.names import match_names

    found = match_names(checkpoint, module)
    first: dict[int, str] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if name in found:
            first.setdefault(id(tensor), name)
    return {name: found[name] for name in first.values()}


def stored_precision(tensors: Mapping[str, TensorSpec]) -> Precision:
    """The float type of most weights."""
    sizes: dict[Precision, int] = {}
    for tensor in tensors.values():
        kind = _FLOATS.get(tensor.dtype)
        if kind is not None:
            sizes[kind] = sizes.get(kind, 0) + tensor.numel
    return max(sizes, key=lambda kind: sizes[kind], default=Precision.FP32)


def build(checkpoint: Checkpoint, config_class: str, model_class: str) -> nn.Module:
    """The transformers model of these names, without weights."""
    import transformers

    from octavo.models.skeleton import skeleton

    config = getattr(transformers, config_class).from_dict(dict(checkpoint.config))
    return skeleton(config, getattr(transformers, model_class), checkpoint.folder)


def submodules(module: nn.Module, *paths: str) -> Sequence[nn.Module]:
    """The layers in the lists at ``paths``, one list after the other."""
    return [layer for path in paths for layer in module.get_submodule(path)]  # type: ignore[attr-defined]


def take_any_float(module: nn.Module, *paths: str) -> nn.Module:
    """Has the modules at ``paths`` cast what they are given to the type of their own weights, so
    that components may be of different float types. Returns ``module``."""
    for path in paths:
        module.get_submodule(path).register_forward_pre_hook(_cast, with_kwargs=True)
    return module


def _cast(
    module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    import torch

    types = (weights.dtype for weights in module.parameters() if weights.is_floating_point())
    wanted_type = next(types, None)

    def cast(value: Any) -> Any:
        floating = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.to(wanted_type) if floating and wanted_type is not None else value

    return tuple(map(cast, args)), {name: cast(value) for name, value in named.items()}
