"""X-CLIP (Ni et al. 2022): which of some texts fits a film.

Shape letters: b texts, f frames, d features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Final

from octavo.errors import InputError
from octavo.hardware.spec import ModelSpec
from octavo.models.checkpoint import Checkpoint
from octavo.models.families import _towers
from octavo.models.families.clip import ClipProcessor, vision_shape
from octavo.models.family import Family, Processor, Task, components
from octavo.requests import InputMode

if TYPE_CHECKING:
    import torch
    from torch import nn

    from octavo.models.family import Pixels

_ORDER: Final = ("vision", "language", "projector")


class XClip(Family):
    """Scores texts for a film of 8, 16 or 32 frames, as the checkpoint has it."""

    name: ClassVar[str] = "x-clip"
    model_types: ClassVar[frozenset[str]] = frozenset({"xclip"})
    tasks: ClassVar[frozenset[Task]] = frozenset({Task.SCORE_VIDEO})
    modes: ClassVar[frozenset[InputMode]] = frozenset({InputMode.VISION})

    def describe(self, checkpoint: Checkpoint) -> ModelSpec:
        text = _towers.part_config(
            checkpoint, "text_config", "xclip_text_model", ("xclip_text_model",)
        )
        vision = _towers.part_config(
            checkpoint, "vision_config", "xclip_vision_model", ("xclip_vision_model",)
        )
        tensors = _towers.wanted(checkpoint.tensors)
        dim = int(checkpoint.config.get("projection_dim") or 512)
        return ModelSpec(
            name=checkpoint.name,
            family=self.name,
            stored=_towers.stored_precision(tensors),
            components=components(self, tensors, _ORDER, _layer_of, _towers.is_matrix),
            text=_towers.tower_shape(text),
            vision=replace(vision_shape(vision, dim), frames=int(vision["num_frames"])),
        )

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        return _towers.build(checkpoint, "XCLIPConfig", "XCLIPModel")

    def processor(self, checkpoint: Checkpoint) -> ClipProcessor:
        from transformers.models.videomae.image_processing_pil_videomae import (
            VideoMAEImageProcessorPil,
        )

        from octavo.models.processing.clip_files import picture_processor, tokenizer_of

        text = _towers.part_config(
            checkpoint, "text_config", "xclip_text_model", ("xclip_text_model",)
        )
        return ClipProcessor(
            tokenizer_of(checkpoint),
            picture_processor(checkpoint, VideoMAEImageProcessorPil),
            int(text["max_position_embeddings"]),
            self.name,
        )

    def component_of(self, name: str) -> str:
        if name.startswith(("vision_model.", "mit.")):
            return "vision"
        return "language" if name.startswith("text_model.") else "projector"

    def layers(self, module: nn.Module, component: str) -> Sequence[nn.Module]:
        paths = {
            "vision": ("vision_model.encoder.layers", "mit.encoder.layers"),
            "language": ("text_model.encoder.layers",),
            "projector": ("prompts_generator.decoder",),
        }
        return _towers.submodules(module, *paths.get(component, ()))

    def score_video(
        self,
        module: nn.Module,
        processor: Processor,
        frames: Sequence[Pixels],
        texts: Sequence[str],
    ) -> torch.Tensor:
        import torch

        assert isinstance(processor, ClipProcessor)
        if not texts:
            return torch.zeros(0)
        taken = sampled(frames, int(module.config.vision_config.num_frames))  # type: ignore[union-attr,arg-type]
        first = module.get_parameter("vision_model.embeddings.patch_embedding.weight")
        inputs = {key: ids.to(first.device) for key, ids in processor.texts(texts).items()}
        inputs["pixel_values"] = processor.film(taken).to(first.device, first.dtype)
        with torch.inference_mode():
            logits_b: torch.Tensor = module(**inputs).logits_per_video[0]
        return logits_b.float()


def sampled(frames: Sequence[Pixels], count: int) -> list[Pixels]:
    """``count`` frames, evenly spread from the first to the last; a film with fewer stands still
    at its last.

    Raises:
        InputError: there are no frames.
    """
    if not len(frames):
        raise InputError(
            "the film has no frames",
            where="film",
            next_step="check that the file holds a video stream",
        )
    if len(frames) < count:
        return [*frames, *[frames[-1]] * (count - len(frames))]
    last = len(frames) - 1
    return [frames[round(number * last / max(count - 1, 1))] for number in range(count)]


def _layer_of(name: str) -> int | None:
    """Layers of the frames' transformer follow those of the picture tower; the blocks that
    change the texts' vectors are named without ``layers``."""
    if name.startswith("prompts_generator.decoder."):
        return int(name.split(".")[2])
    found = _towers.layer_of(name)
    return found if found is None or not name.startswith("mit.") else _towers.AFTER + found
