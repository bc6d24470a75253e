"""Gemma 3n: text, pictures and sound, on transformers' model code.

The vision tower is our own MobileNet-V5 under timm's names, because timm needs torchvision
(:mod:`octavo.models.families._gemma3n_tower`). Films are frames, as pictures. Sound of more than
30 s is heard in pieces of 30 s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from octavo.errors import InputError
from octavo.hardware.pictures import FixedPicture
from octavo.hardware.spec import AudioShape, ModelSpec, TensorSpec, TextShape, VisionShape
from octavo.models.checkpoint import Checkpoint, require
from octavo.models.families._towers import stored_precision
from octavo.models.family import Family, Processor, Task, components
from octavo.models.processing.interleaved import FRAMES
from octavo.requests import InputMode

if TYPE_CHECKING:
    from torch import nn

_LAYER: Final = re.compile(
    r"(?:language_model\.layers|audio_tower\.conformer|timm_model\.blocks\.(\d+))\.(\d+)\."
)
#: Layers that take keys and values of an earlier one; checkpoints hold theirs all the same.
_OWN_KV: Final = re.compile(r"language_model\.layers\.(\d+)\.self_attn\.[kv]_(?:proj|norm)\.")
#: Looked up by row, or tied to what is.
_LOOKED_UP: Final = re.compile(r"embed_tokens|\.embedding\.weight$|^lm_head\.")
#: Small matrices that mix whole streams, clamped by the model itself.
_MIXING: Final = ".altup."
_CELL: Final = 16
#: The widest map, 768 channels on the quarter grid, has 16 cells in one cell of the attention's.
_WIDEST: Final = 768 * 16
_SECONDS: Final = 30


class Gemma3n(Family):
    """Gemma 3n E2B and E4B (https://ai.google.dev/gemma/docs/gemma-3n)."""

    name = "gemma3n"
    model_types = frozenset({"gemma3n"})
    tasks = frozenset({Task.CHAT, Task.CAPTION, Task.ANSWER})
    modes = frozenset(InputMode)

    def describe(self, checkpoint: Checkpoint) -> ModelSpec:
        text = _part(checkpoint, "text_config")
        tensors = _wanted(checkpoint.tensors, text, checkpoint.name)
        return ModelSpec(
            name=checkpoint.name,
            family=self.name,
            stored=stored_precision(tensors),
            components=components(
                self, tensors, ("vision", "audio", "projector", "language"), _layer, _is_matrix
            ),
            text=_text(text, checkpoint),
            vision=_vision(checkpoint, int(text["hidden_size"])),
            audio=_audio(checkpoint, int(text["hidden_size"])),
            facts={
                "embed_tokens_per_layer": "looked up row by row, never quantized",
                "sound": f"{_tokens(checkpoint, 'audio')} tokens for each piece of up to "
                f"{_SECONDS} s, however short",
            },
        )

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        from transformers import Gemma3nConfig, Gemma3nForConditionalGeneration

        from octavo.models.families._gemma3n_tower import own_tower
        from octavo.models.skeleton import skeleton

        config = Gemma3nConfig.from_dict(dict(checkpoint.config))
        config.vision_config = own_tower(config.vision_config)
        return skeleton(config, Gemma3nForConditionalGeneration, checkpoint.folder)

    def processor(self, checkpoint: Checkpoint) -> Processor:
        from octavo.models.processing.gemma_prompt import GemmaProcessor

        return GemmaProcessor.of(checkpoint)

    def component_of(self, name: str) -> str:
        if "vision_tower." in name:
            return "vision"
        if "audio_tower." in name:
            return "audio"
        if "embed_vision." in name or "embed_audio." in name:
            return "projector"
        return "language"

    def layers(self, module: nn.Module, component: str) -> Sequence[nn.Module]:
        model: Any = module.get_submodule("model")
        if component == "language":
            return list(model.language_model.layers)
        if component == "audio":
            return list(model.audio_tower.conformer)
        if component == "vision" and hasattr(model.vision_tower.timm_model, "blocks"):
            return [block for stage in model.vision_tower.timm_model.blocks for block in stage]
        return ()


def _part(checkpoint: Checkpoint, key: str) -> Mapping[str, Any]:
    found = require(checkpoint.config, key, checkpoint.name)
    if not isinstance(found, dict):
        raise InputError(f"{key} of config.json is no object", where=checkpoint.name)
    return found


def _tokens(checkpoint: Checkpoint, kind: str) -> int:
    """Tokens of one picture (``vision``) or one piece of sound (``audio``)."""
    usual = {"vision": 256, "audio": 188}[kind]
    return int(checkpoint.config.get(f"{kind}_soft_tokens_per_image") or usual)


def _kinds(text: Mapping[str, Any]) -> list[str]:
    """Attention of each layer: every fifth sees everything unless the configuration says."""
    number = int(text["num_hidden_layers"])
    usual = ["sliding_attention"] * 4 + ["full_attention"]
    return list(text.get("layer_types") or (usual * (number // 5 + 1))[:number])


def _own_kv(text: Mapping[str, Any]) -> int:
    """How many layers, the first ones, make keys and values."""
    return int(text["num_hidden_layers"]) - int(text.get("num_kv_shared_layers", 15))


def _wanted(
    tensors: Mapping[str, TensorSpec], text: Mapping[str, Any], where: str
) -> Mapping[str, TensorSpec]:
    """Without keys and values of layers that share an earlier layer's."""
    for key in ("num_hidden_layers", "hidden_size", "num_attention_heads"):
        require(text, key, where)
    first = _own_kv(text)

    def used(name: str) -> bool:
        found = _OWN_KV.search(name)
        return found is None or int(found[1]) < first

    return {name: tensor for name, tensor in tensors.items() if used(name)}


def _layer(name: str) -> int | None:
    found = _LAYER.search(name)
    return None if found is None else 1000 * int(found[1] or 0) + int(found[2])


def _is_matrix(tensor: TensorSpec) -> bool:
    return (
        len(tensor.shape) == 2
        and tensor.name.endswith(".weight")
        and _LOOKED_UP.search(tensor.name) is None
        and _MIXING not in tensor.name
    )


def _text(text: Mapping[str, Any], checkpoint: Checkpoint) -> TextShape:
    wide = text.get("intermediate_size", 16_384)
    own = _own_kv(text)
    return TextShape(
        layers=int(text["num_hidden_layers"]),
        hidden=int(text["hidden_size"]),
        heads=int(text["num_attention_heads"]),
        kv_heads=int(text.get("num_key_value_heads", 2)),
        head_dim=int(text.get("head_dim", 256)),
        ffn=max(wide) if isinstance(wide, list) else int(wide),
        vocabulary=int(text.get("vocab_size", 262_400)),
        positions=int(text.get("max_position_embeddings", 32_768)),
        tied=bool(checkpoint.config.get("tie_word_embeddings", True)),
        window=int(text.get("sliding_window", 512)),
        # Of the layers with keys and values of their own.
        full_layers=_kinds(text)[:own].count("full_attention"),
        kv_layers=own,
    )


def _vision(checkpoint: Checkpoint, out: int) -> VisionShape:
    """MobileNet-V5 in the words of a transformer: a patch is a cell of the grid on which its
    first attention runs, and ``ffn`` the numbers of its widest map over one such cell."""
    vision = _part(checkpoint, "vision_config")
    width = float((vision.get("model_args") or {}).get("channel_multiplier", 1))
    blocks = {_layer(name) for name in checkpoint.tensors if "timm_model.blocks." in name}
    size = _side(checkpoint)
    return VisionShape(
        layers=len(blocks - {None}),
        hidden=int(640 * width),
        heads=12,
        ffn=int(_WIDEST * width),
        patch=_CELL,
        picture=FixedPicture(size, _CELL, _tokens(checkpoint, "vision") + 2),
        out_hidden=out,
        frames=FRAMES,
    )


def _side(checkpoint: Checkpoint) -> int:
    from octavo.models.processing.clip_files import picture_settings

    try:
        return int(picture_settings(checkpoint)["size"]["height"])
    except (KeyError, TypeError) as error:
        raise InputError("the settings for pictures name no size", where=checkpoint.name) from error


def _audio(checkpoint: Checkpoint, out: int) -> AudioShape:
    audio = _part(checkpoint, "audio_config")
    hidden = int(audio.get("hidden_size", 1536))
    return AudioShape(
        layers=int(audio.get("conf_num_hidden_layers", 12)),
        hidden=hidden,
        heads=int(audio.get("conf_num_attention_heads", 8)),
        ffn=4 * hidden,
        rate=16_000,
        tokens_per_second=_tokens(checkpoint, "audio") / _SECONDS,
        out_hidden=out,
    )
