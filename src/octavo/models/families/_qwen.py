"""What Qwen2-VL, Qwen2.5-VL and Qwen3-VL share: a vision tower that keeps a picture's shape, a
merger of 2 x 2 patches to a token, and a decoder with positions in time, height and width.

Wang et al. 2024 (Qwen2-VL), Bai et al. 2025 (Qwen2.5-VL, Qwen3-VL).
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

from octavo.errors import InputError, UnsupportedFormat
from octavo.hardware.spec import ModelSpec, Precision, TensorSpec, TextShape, VisionShape
from octavo.models.checkpoint import Checkpoint, require
from octavo.models.family import Family, Prepared, Processor, Task, components
from octavo.models.processing.qwen_pictures import Patching, QwenGrid, picture_patching
from octavo.models.processing.qwen_prompt import Marks, QwenProcessor, chat_template
from octavo.models.processing.qwen_video import USUAL_FRAMES, FilmSettings, film_settings
from octavo.requests import InputMode

if TYPE_CHECKING:
    import torch
    from torch import nn

_LAYER: Final = re.compile(r"(?:^|\.)(?:layers|blocks|deepstack_merger_list)\.(\d+)\.")
#: The merger after the last layer comes after all those of taps.
_MERGER: Final = re.compile(r"^(?:model\.)?visual\.merger\.")
_LAST: Final = 1 << 20
_PROJECTOR: Final = re.compile(r"^(?:model\.)?visual\.(?:merger|deepstack_merger_list)\.")
_VISION: Final = re.compile(r"^(?:model\.)?visual\.")
_TABLES: Final = ("embed_tokens.weight", "pos_embed.weight")
_HEAD: Final = "lm_head.weight"
_STORED: Final = {
    "F32": Precision.FP32, "BF16": Precision.BF16, "F16": Precision.FP16,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Variant:
    """Names of transformers' classes for one ``model_type``, and its processor."""

    config: str
    model: str
    processor: type[QwenProcessor]


class QwenFamily(Family):
    """The common part; subclasses name classes of transformers and shapes.

    Class attributes:
        variants: by ``model_type``.
        pictures, film: where a checkpoint does not say how media are prepared.
    """

    tasks = frozenset({Task.CHAT, Task.CAPTION, Task.ANSWER})
    modes = frozenset({InputMode.LANGUAGE, InputMode.VISION})
    variants: ClassVar[Mapping[str, Variant]]
    pictures: ClassVar[Patching]
    film: ClassVar[FilmSettings]

    def describe(self, checkpoint: Checkpoint) -> ModelSpec:
        config = self.config(checkpoint)
        tied = bool(config.tie_word_embeddings)
        tensors = {
            name: tensor
            for name, tensor in checkpoint.tensors.items()
            if not (tied and name == _HEAD)
        }
        return ModelSpec(
            name=checkpoint.name,
            family=self.name,
            stored=_stored(checkpoint, tensors),
            components=components(
                self, tensors, ("vision", "projector", "language"), layer_number, is_matrix
            ),
            text=text_shape(config),
            vision=self.vision_shape(config.vision_config, self._grid(checkpoint, config)),
        )

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        import transformers

        from octavo.models.skeleton import skeleton

        chosen = getattr(transformers, self.variants[checkpoint.model_type].model)
        module: Any = skeleton(self.config(checkpoint), chosen, checkpoint.folder)
        visual = module.model.visual
        for merger in (visual.merger, *getattr(visual, "deepstack_merger_list", ())):
            merger.register_forward_pre_hook(_in_its_own_type)
        built: nn.Module = module
        return built

    def processor(self, checkpoint: Checkpoint) -> Processor:
        from octavo.models.chat import end_tokens_of, local_tokenizer

        config = self.config(checkpoint)
        tokenizer = local_tokenizer(checkpoint)
        marks = Marks(
            picture=config.image_token_id,
            film=config.video_token_id,
            start=config.vision_start_token_id,
            end=config.vision_end_token_id,
        )
        return self.variants[checkpoint.model_type].processor(
            tokenizer,
            chat_template(checkpoint, tokenizer),
            marks,
            end_tokens_of(tokenizer, checkpoint),
            self._patching(checkpoint, config),
            film_settings(checkpoint, self.film),
        )

    def component_of(self, name: str) -> str:
        if _PROJECTOR.match(name):
            return "projector"
        return "vision" if _VISION.match(name) else "language"

    def layers(self, module: nn.Module, component: str) -> Sequence[nn.Module]:
        model: Any = module
        if component == "language":
            return list(model.model.language_model.layers)
        visual = model.model.visual
        if component == "projector":
            return [*getattr(visual, "deepstack_merger_list", ()), visual.merger]
        return list(visual.blocks) if component == "vision" else ()

    @abstractmethod
    def vision_shape(self, vision: Any, grid: QwenGrid) -> VisionShape:
        """The tower's shape from its configuration."""

    def config(self, checkpoint: Checkpoint) -> Any:
        """The configuration with transformers' defaults filled in; flat ones of old are read too.

        Raises:
            InputError: it is not one of this family.
        """
        import transformers
        from huggingface_hub.errors import StrictDataclassError

        values = checkpoint.config
        require(values, "vision_config", checkpoint.name)
        if "text_config" not in values:
            require(values, "hidden_size", checkpoint.name)
        if "quantization_config" in values:
            raise UnsupportedFormat(
                "weights that are already quantized are not read",
                where=checkpoint.name,
                next_step="take the original checkpoint and give a precision by component",
            )
        chosen = getattr(transformers, self.variants[checkpoint.model_type].config)
        try:
            return chosen.from_dict(dict(values))
        except (TypeError, ValueError, KeyError, AttributeError, StrictDataclassError) as error:
            raise InputError(
                f"config.json cannot be used: {error}",
                where=checkpoint.name,
                next_step="download the model again",
            ) from error

    def media_features(self, module: nn.Module, prepared: Prepared) -> Mapping[str, Any]:
        """What vision tower and mergers make of a request's media, by ``image`` and ``video``.

        ``forward`` and ``generate`` take it as ``mm_encoder_outputs`` in place of
        ``pixel_values`` and ``pixel_values_videos``; the grids are still needed for positions.
        Each has ``pooler_output``, a tensor (tokens, d) a medium; Qwen3-VL's also
        ``deepstack_features``, such a list for every tapped layer.
        """
        import torch

        model: Any = module
        inputs = prepared.inputs
        found: dict[str, Any] = {}
        with torch.inference_mode():
            for kind, pixels in (("image", "pixel_values"), ("video", "pixel_values_videos")):
                if pixels in inputs:
                    get = getattr(model.model, f"get_{kind}_features")
                    grid = inputs[f"{kind}_grid_thw"]
                    found[kind] = get(inputs[pixels], grid, return_dict=True)
        return found

    def _patching(self, checkpoint: Checkpoint, config: Any) -> Patching:
        found = picture_patching(checkpoint, self.pictures)
        vision = config.vision_config
        wanted = (vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
        if (found.patch, found.merge, found.frames) != wanted:
            raise InputError(
                f"the processor cuts patches of {found.patch} pixels, {found.frames} frames, "
                f"merged by {found.merge}; the tower wants {wanted[0]}, {wanted[2]}, {wanted[1]}",
                where=checkpoint.name,
                next_step="config.json and preprocessor_config.json are of different models",
            )
        return found

    def _grid(self, checkpoint: Checkpoint, config: Any) -> QwenGrid:
        return self._patching(checkpoint, config).grid


def _in_its_own_type(merger: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[Any, ...]:
    """A merger's input in the merger's float type: tower and projector may be held in two."""
    # Each merger starts with a norm, which is never quantized.
    dtype = next(merger.parameters()).dtype
    return (inputs[0].to(dtype), *inputs[1:])


def layer_number(name: str) -> int | None:
    """The layer that a tensor of tower or decoder belongs to."""
    if _MERGER.match(name):
        return _LAST
    found = _LAYER.search(name)
    return int(found[1]) if found else None


def is_matrix(tensor: TensorSpec) -> bool:
    """Weights of linear layers: two sides, and no table of embeddings."""
    return (
        len(tensor.shape) == 2
        and tensor.name.endswith(".weight")
        and not tensor.name.endswith(_TABLES)
    )


def text_shape(config: Any) -> TextShape:
    """The decoder's shape from a whole model's configuration."""
    text = config.text_config
    kinds = list(getattr(text, "layer_types", None) or [])
    window = getattr(text, "sliding_window", None)
    return TextShape(
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
        ffn=text.intermediate_size,
        vocabulary=text.vocab_size,
        positions=text.max_position_embeddings,
        tied=bool(config.tie_word_embeddings),
        window=window,
        full_layers=None if window is None else kinds.count("full_attention"),
    )


def film_shape(shape: VisionShape, vision: Any) -> VisionShape:
    """``shape`` with what is common to towers that take films."""
    return replace(shape, frames=USUAL_FRAMES, frame_patches=vision.temporal_patch_size)


def _stored(checkpoint: Checkpoint, tensors: Mapping[str, TensorSpec]) -> Precision:
    sizes: Counter[str] = Counter()
    for tensor in tensors.values():
        sizes[tensor.dtype] += tensor.nbytes
    most = sizes.most_common(1)[0][0]
    if most not in _STORED:
        raise UnsupportedFormat(f"weights of the type {most}", where=checkpoint.name)
    return _STORED[most]
