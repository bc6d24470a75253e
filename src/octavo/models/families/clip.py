"""CLIP (Radford et al. 2021): texts and pictures as vectors of one space.

Shape letters: b texts, n pictures, t tokens, d features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from octavo.errors import ConfigError
from octavo.hardware.pictures import FixedPicture
from octavo.hardware.spec import ModelSpec, VisionShape
from octavo.models.checkpoint import Checkpoint
from octavo.models.families import _towers
from octavo.models.family import Family, Prepared, Processor, Task, components
from octavo.requests import InputMode, MediaReader, Request

if TYPE_CHECKING:
    import torch
    from torch import nn

    from octavo.models.family import Pixels

#: Pictures or texts of one pass: more do not go faster, and hold more.
BATCH: Final = 32
_ORDER: Final = ("vision", "language", "projector")


class ClipProcessor(Processor):
    """Texts to ids and pictures to pixel values.

    Args:
        tokenizer: transformers'; it adds the end token that the text tower reads.
        pictures: one of transformers' Pillow classes.
        positions: tokens that the text tower has room for; longer texts are cut.
    """

    def __init__(self, tokenizer: Any, pictures: Any, positions: int, family: str) -> None:
        self.tokenizer = tokenizer
        self._pictures = pictures
        self._positions = positions
        self._family = family

    def texts(self, texts: Sequence[str]) -> Mapping[str, torch.Tensor]:
        """``input_ids`` and ``attention_mask``, shape (b, t), padded at the end."""
        made = self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self._positions,
            return_tensors="pt",
        )
        return {name: made[name] for name in ("input_ids", "attention_mask")}

    def pictures(self, pictures: Sequence[Pixels]) -> torch.Tensor:
        """``pixel_values``, shape (n, 3, height, width)."""
        from octavo.models.processing.clip_files import pixels_of

        return pixels_of(self._pictures, pictures)["pixel_values"]

    def film(self, frames: Sequence[Pixels]) -> torch.Tensor:
        """``pixel_values`` of one film, shape (1, frames, 3, height, width)."""
        made = self.pictures(frames)
        return made if made.ndim == 5 else made[None]

    def prepare(self, request: Request, media: MediaReader) -> Prepared:
        """These models have no decoder.

        Raises:
            ConfigError: always.
        """
        del media
        raise ConfigError(
            f"{self._family} models write no text",
            where=request.id,
            next_step="use octavo classify or octavo embed",
        )

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    @property
    def end_tokens(self) -> frozenset[int]:
        return frozenset({int(self.tokenizer.eos_token_id)})


def batches(values: Sequence[Any], size: int = BATCH) -> Iterator[Sequence[Any]]:
    """``values`` in runs of at most ``size``."""
    for start in range(0, len(values), size):
        yield values[start : start + size]


class Clip(Family):
    """Search vectors of texts and pictures, and labels for pictures without training."""

    name: ClassVar[str] = "clip"
    model_types: ClassVar[frozenset[str]] = frozenset({"clip"})
    tasks: ClassVar[frozenset[Task]] = frozenset({Task.EMBED_TEXT, Task.EMBED_IMAGE, Task.CLASSIFY})
    modes: ClassVar[frozenset[InputMode]] = frozenset({InputMode.LANGUAGE, InputMode.VISION})

    def describe(self, checkpoint: Checkpoint) -> ModelSpec:
        text = _towers.part_config(
            checkpoint, "text_config", "clip_text_model", ("clip_text_model",)
        )
        vision = _towers.part_config(
            checkpoint, "vision_config", "clip_vision_model", ("clip_vision_model",)
        )
        tensors = _towers.wanted(checkpoint.tensors)
        dim = int(checkpoint.config.get("projection_dim") or 512)
        return ModelSpec(
            name=checkpoint.name,
            family=self.name,
            stored=_towers.stored_precision(tensors),
            components=components(self, tensors, _ORDER, _towers.layer_of, _towers.is_matrix),
            text=_towers.tower_shape(text),
            vision=vision_shape(vision, dim),
            embedding_dim=dim,
        )

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        module = _towers.build(checkpoint, "CLIPConfig", "CLIPModel")
        return _towers.take_any_float(module, "visual_projection", "text_projection")

    def processor(self, checkpoint: Checkpoint) -> ClipProcessor:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        from octavo.models.processing.clip_files import picture_processor, tokenizer_of

        text = _towers.part_config(
            checkpoint, "text_config", "clip_text_model", ("clip_text_model",)
        )
        return ClipProcessor(
            tokenizer_of(checkpoint),
            picture_processor(checkpoint, CLIPImageProcessorPil),
            int(text["max_position_embeddings"]),
            self.name,
        )

    def component_of(self, name: str) -> str:
        if name.startswith("vision_model."):
            return "vision"
        return "language" if name.startswith("text_model.") else "projector"

    def layers(self, module: nn.Module, component: str) -> Sequence[nn.Module]:
        path = {"vision": "vision_model", "language": "text_model"}.get(component)
        return () if path is None else _towers.submodules(module, f"{path}.encoder.layers")

    def embed_texts(
        self, module: nn.Module, processor: Processor, texts: Sequence[str]
    ) -> torch.Tensor:
        import torch

        assert isinstance(processor, ClipProcessor)
        device = module.get_parameter("text_model.embeddings.token_embedding.weight").device
        found = []
        with torch.inference_mode():
            for some in batches(texts):
                inputs = {key: ids.to(device) for key, ids in processor.texts(some).items()}
                made = module.get_text_features(**inputs)  # type: ignore[operator]
                found.append(_unit(made.pooler_output))
        return torch.cat(found) if found else torch.zeros((0, _dim(module)))

    def embed_pictures(
        self, module: nn.Module, processor: Processor, pictures: Sequence[Pixels]
    ) -> torch.Tensor:
        import torch

        assert isinstance(processor, ClipProcessor)
        first = module.get_parameter("vision_model.embeddings.patch_embedding.weight")
        found = []
        with torch.inference_mode():
            for some in batches(pictures):
                pixels = processor.pictures(some).to(first.device, first.dtype)
                made = module.get_image_features(pixel_values=pixels)  # type: ignore[operator]
                found.append(_unit(made.pooler_output))
        return torch.cat(found) if found else torch.zeros((0, _dim(module)))

    def score_pictures(
        self,
        module: nn.Module,
        processor: Processor,
        pictures: Sequence[Pixels],
        texts: Sequence[str],
    ) -> torch.Tensor:
        pictures_nd = self.embed_pictures(module, processor, pictures)
        texts_bd = self.embed_texts(module, processor, texts)
        scale = float(module.get_parameter("logit_scale").detach().float().exp())
        return scale * (pictures_nd @ texts_bd.T)


def vision_shape(config: Mapping[str, Any], out_hidden: int) -> VisionShape:
    """A tower that gives one vector for a picture."""
    size, patch = _towers.side(config["image_size"]), _towers.side(config["patch_size"])
    return VisionShape(
        layers=int(config["num_hidden_layers"]),
        hidden=int(config["hidden_size"]),
        heads=int(config["num_attention_heads"]),
        ffn=int(config["intermediate_size"]),
        patch=patch,
        # One vector comes out, and no decoder takes it.
        picture=FixedPicture(size=size, patch=patch, tokens=0, extra=1),
        out_hidden=out_hidden,
    )


def _unit(rows_nd: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.normalize(rows_nd.float(), dim=-1)


def _dim(module: nn.Module) -> int:
    return int(module.config.projection_dim)  # type: ignore[union-attr,arg-type]
