"""Phi-4-multimodal: text, pictures and sound, on transformers' model code.

Weights are those of transformers' own layout (``model_type`` ``phi4_multimodal``). The first
release (``phi4mm``) has low-rank adapters inside its weights and needs its own code, so it is
refused. Adapters that lie beside the weights (``speech-lora``, ``vision-lora``) are left alone, as
transformers leaves them until they are asked for by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from octavo.errors import InputError, UnsupportedFormat
from octavo.hardware.spec import AudioShape, ModelSpec, TensorSpec, TextShape, VisionShape
from octavo.models.checkpoint import Checkpoint, require
from octavo.models.families._towers import stored_precision
from octavo.models.family import Family, Processor, Task, components
from octavo.models.processing.interleaved import FRAMES
from octavo.models.processing.phi4_settings import high_definition
from octavo.requests import InputMode

if TYPE_CHECKING:
    from torch import nn

_LAYER: Final = re.compile(
    r"(?:^|\.)(?:model\.layers|img_processor\.encoder\.layers|encoder\.encoders)\.(\d+)\."
)
#: Looked up by row, or read by torch's own attention as plain tensors.
_PLAIN: Final = re.compile(r"embed_tokens\.|position_embedding\.|bias_values\.|\.head\.attention\.")
_FIRST: Final = "phi4mm"
_REDUCED: Final = 8
_FRAMES_A_SECOND: Final = 100


class Phi4Multimodal(Family):
    """Phi-4-multimodal (Abouelenin et al. 2025, https://arxiv.org/abs/2503.01743)."""

    name = "phi4-multimodal"
    model_types = frozenset({"phi4_multimodal", _FIRST})
    tasks = frozenset({Task.CHAT, Task.CAPTION, Task.ANSWER})
    modes = frozenset(InputMode)

    def describe(self, checkpoint: Checkpoint) -> ModelSpec:
        config = _config(checkpoint)
        tensors = checkpoint.tensors
        return ModelSpec(
            name=checkpoint.name,
            family=self.name,
            stored=stored_precision(tensors),
            components=components(
                self, tensors, ("vision", "audio", "projector", "language"), _layer, _is_matrix
            ),
            text=_text(config),
            vision=_vision(checkpoint, config),
            audio=_audio(config),
            facts={"adapters": "speech-lora and vision-lora are not applied"},
        )

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        from transformers import Phi4MultimodalConfig, Phi4MultimodalForCausalLM

        from octavo.models.skeleton import skeleton

        config = Phi4MultimodalConfig.from_dict(dict(_config(checkpoint)))
        return skeleton(config, Phi4MultimodalForCausalLM, checkpoint.folder)

    def processor(self, checkpoint: Checkpoint) -> Processor:
        from octavo.models.processing.phi4_prompt import Phi4Processor

        _config(checkpoint)
        return Phi4Processor.of(checkpoint)

    def component_of(self, name: str) -> str:
        if ".img_processor." in name:
            return "vision"
        if ".audio_embed.encoder." in name:
            return "audio"
        return "projector" if ".embed_tokens_extend." in name else "language"

    def layers(self, module: nn.Module, component: str) -> Sequence[nn.Module]:
        path = {
            "language": "model.layers",
            "vision": "model.embed_tokens_extend.image_embed.img_processor.encoder.layers",
            "audio": "model.embed_tokens_extend.audio_embed.encoder.encoders",
        }.get(component)
        return () if path is None else list(module.get_submodule(path).children())


def _config(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Raises InputError where it is none of this family, UnsupportedFormat for the first one."""
    if checkpoint.model_type == _FIRST:
        raise UnsupportedFormat(
            "weights in the layout of Phi-4-multimodal's first release, with adapters inside",
            where=checkpoint.name,
            next_step="take a revision in transformers' layout (model_type phi4_multimodal)",
        )
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vision_config"):
        require(checkpoint.config, key, checkpoint.name)
    for key in ("vision_config", "audio_config"):
        if not isinstance(checkpoint.config.get(key) or {}, dict):
            raise InputError(f"{key} of config.json is no object", where=checkpoint.name)
    return checkpoint.config


def _layer(name: str) -> int | None:
    found = _LAYER.search(name)
    return None if found is None else int(found[1])


def _is_matrix(tensor: TensorSpec) -> bool:
    return (
        len(tensor.shape) == 2
        and tensor.name.endswith(".weight")
        and _PLAIN.search(tensor.name) is None
    )


def _text(config: Mapping[str, Any]) -> TextShape:
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    window = config.get("sliding_window")
    return TextShape(
        layers=int(config["num_hidden_layers"]),
        hidden=hidden,
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or hidden // heads),
        ffn=int(config.get("intermediate_size", 8192)),
        vocabulary=int(config.get("vocab_size", 200_064)),
        positions=int(config.get("max_position_embeddings", 131_072)),
        tied=bool(config.get("tie_word_embeddings", False)),
        window=None if window is None else int(window),
        full_layers=None if window is None else 0,
    )


def _vision(checkpoint: Checkpoint, config: Mapping[str, Any]) -> VisionShape:
    vision = config["vision_config"] or {}
    return VisionShape(
        layers=int(vision.get("num_hidden_layers", 27)),
        hidden=int(vision.get("hidden_size", 1152)),
        heads=int(vision.get("num_attention_heads", 16)),
        ffn=int(vision.get("intermediate_size", 4304)),
        patch=int(vision.get("patch_size", 14)),
        picture=high_definition(checkpoint),
        out_hidden=int(config["hidden_size"]),
        frames=FRAMES,
    )


def _audio(config: Mapping[str, Any]) -> AudioShape:
    audio = config.get("audio_config") or {}
    reduced = int(audio.get("time_reduction", _REDUCED)) * int(audio.get("downsample_rate", 1))
    return AudioShape(
        layers=int(audio.get("num_blocks", 24)),
        hidden=int(audio.get("hidden_size", 1024)),
        heads=int(audio.get("num_attention_heads", 16)),
        ffn=int(audio.get("intermediate_size", 1536)),
        rate=16_000,
        tokens_per_second=_FRAMES_A_SECOND / reduced,
        out_hidden=int(config["hidden_size"]),
    )
