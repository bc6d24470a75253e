"""What LLaVA and LLaVA-NeXT share: a CLIP-like tower, two linear layers, a decoder.

Shape letters: t tokens, n pictures.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from octavo.errors import InputError
from octavo.hardware.pictures import PictureRule
from octavo.hardware.spec import ModelSpec, VisionShape
from octavo.models.checkpoint import Checkpoint
from octavo.models.families import _towers
from octavo.models.family import Family, Prepared, Processor, Task, components
from octavo.requests import InputMode, MediaReader, Request

if TYPE_CHECKING:
    import torch
    from torch import nn

_ORDER: Final = ("vision", "projector", "language")
_TIED: Final = {"lm_head.weight": "embed_tokens.weight"}
_DECODERS: Final = ("llama", "mistral", "qwen2")
#: Towers → tokens that they put before those of the picture (CLIP's class token).
_TOWERS: Final[Mapping[str, int]] = {"clip_vision_model": 1, "siglip_vision_model": 0}


@dataclass(frozen=True, slots=True)
class Tokens:
    """How a tower's patches become tokens.

    Attributes:
        size, patch: pixels of a side.
        extra: tokens of the tower that are no patches.
        dropped: tokens that are left out before the projector: the first, or none.
    """

    size: int
    patch: int
    extra: int
    dropped: int

    @property
    def kept(self) -> int:
        """Tokens beside the patches that the decoder sees."""
        return self.extra - self.dropped


def tokens_of(checkpoint: Checkpoint, config: Mapping[str, Any]) -> Tokens:
    """From the model's configuration, which is what the model goes by."""
    strategy = checkpoint.config.get("vision_feature_select_strategy", "default")
    return Tokens(
        size=_towers.side(config["image_size"]),
        patch=_towers.side(config["patch_size"]),
        extra=_TOWERS[config["model_type"]],
        dropped=1 if strategy == "default" else 0,
    )


class LlavaProcessor(Processor):
    """Messages to ids with a run of image tokens for each picture.

    Args:
        tokenizer: transformers'.
        pictures: one of transformers' Pillow classes.
        template: the chat template; None for the classic prompt.
        image_id: the id that the model replaces by what the tower saw.
    """

    family: ClassVar[str] = "llava"

    def __init__(
        self,
        tokenizer: Any,
        pictures: Any,
        template: str | None,
        image_id: int,
        tokens: Tokens,
    ) -> None:
        self.tokenizer = tokenizer
        self._pictures = pictures
        self._template = template
        self._image_id = image_id
        self._image_token = str(tokenizer.convert_ids_to_tokens(image_id))
        self._tokens = tokens

    def prepare(self, request: Request, media: MediaReader) -> Prepared:
        import torch

        from octavo.models.processing.llava_prompts import prompt_of

        text, parts = prompt_of(
            request, self.family, self.tokenizer, self._template, self._image_token
        )
        seen, runs, notes = self._see([media.picture(part) for part in parts]) if parts else _NONE
        # A template that writes the start token itself must not get a second one.
        starts = bool(self.tokenizer.bos_token) and text.startswith(self.tokenizer.bos_token)
        ids = self.tokenizer(text, add_special_tokens=not starts)["input_ids"]
        ids = self._expanded(ids, runs, request.id)
        inputs: dict[str, torch.Tensor] = {"input_ids": torch.tensor([ids])}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        return Prepared({**inputs, **seen}, len(ids), sum(runs), notes)

    def _expanded(self, ids: Sequence[int], runs: Sequence[int], where: str) -> list[int]:
        """One image token after another, as many as the picture that it stands for has."""
        found = sum(1 for token in ids if token == self._image_id)
        if found != len(runs):
            raise InputError(
                f"the tokenizer makes {found} image tokens of {len(runs)} pictures",
                where=where,
                next_step="config.json and the tokenizer are of different models; download again",
            )
        left = iter(runs)
        return [
            token
            for given in ids
            for token in ([given] * next(left) if given == self._image_id else [given])
        ]

    def _see(
        self, pictures: Sequence[Any]
    ) -> tuple[Mapping[str, torch.Tensor], list[int], tuple[str, ...]]:
        """Inputs of the tower, tokens of each picture, and notes."""
        from octavo.models.processing.clip_files import pixels_of

        pixels = pixels_of(self._pictures, pictures)["pixel_values"]
        high, wide = (int(side) // self._tokens.patch for side in pixels.shape[-2:])
        run = high * wide + self._tokens.kept
        note = f"{len(pictures)} pictures of {pixels.shape[-1]} x {pixels.shape[-2]} pixels"
        return {"pixel_values": pixels}, [run] * len(pictures), (note,)

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    @property
    def end_tokens(self) -> frozenset[int]:
        end = self.tokenizer.eos_token_id
        return frozenset() if end is None else frozenset({int(end)})


_NONE: Final[tuple[Mapping[str, Any], list[int], tuple[str, ...]]] = ({}, [], ())


class LlavaLike(Family):
    """A tower, a projector and a decoder under the names that transformers gives them."""

    config_class: ClassVar[str]
    model_class: ClassVar[str]
    tasks: ClassVar[frozenset[Task]] = frozenset({Task.CHAT, Task.ANSWER, Task.CAPTION})
    modes: ClassVar[frozenset[InputMode]] = frozenset({InputMode.LANGUAGE, InputMode.VISION})

    @abstractmethod
    def picture_rule(self, checkpoint: Checkpoint, tokens: Tokens) -> PictureRule:
        """What a picture costs."""

    def describe(self, checkpoint: Checkpoint) -> ModelSpec:
        text = _towers.part_config(checkpoint, "text_config", "llama", _DECODERS)
        vision = self.vision_config(checkpoint)
        tied = bool(checkpoint.config.get("tie_word_embeddings", False))
        tensors = _towers.wanted(checkpoint.tensors, _TIED if tied else None)
        decoder = _towers.decoder_shape(text, tied)
        tokens = tokens_of(checkpoint, vision)
        tower = VisionShape(
            layers=int(vision["num_hidden_layers"]),
            hidden=int(vision["hidden_size"]),
            heads=int(vision["num_attention_heads"]),
            ffn=int(vision["intermediate_size"]),
            patch=tokens.patch,
            picture=self.picture_rule(checkpoint, tokens),
            out_hidden=decoder.hidden,
        )
        return ModelSpec(
            name=checkpoint.name,
            family=self.name,
            stored=_towers.stored_precision(tensors),
            components=components(self, tensors, _ORDER, _towers.layer_of, _towers.is_matrix),
            text=decoder,
            vision=tower,
        )

    def vision_config(self, checkpoint: Checkpoint) -> Mapping[str, Any]:
        return _towers.part_config(checkpoint, "vision_config", "clip_vision_model", tuple(_TOWERS))

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        module = _towers.build(checkpoint, self.config_class, self.model_class)
        return _towers.take_any_float(module, "model.multi_modal_projector")

    def sources(self, checkpoint: Checkpoint, module: nn.Module) -> Mapping[str, str]:
        return _towers.sources(checkpoint, module)

    def component_of(self, name: str) -> str:
        if "vision_tower." in name:
            return "vision"
        if "multi_modal_projector." in name or name.endswith("image_newline"):
            return "projector"
        return "language"

    def layers(self, module: nn.Module, component: str) -> Sequence[nn.Module]:
        paths = {
            "vision": "model.vision_tower.encoder.layers",
            "language": "model.language_model.layers",
        }
        path = paths.get(component)
        return () if path is None else _towers.submodules(module, path)


def image_id(checkpoint: Checkpoint) -> int:
    """The id that stands for a picture's token; the default is Vicuna's."""
    config = checkpoint.config
    found = config.get("image_token_index")
    return int(config.get("image_token_id", 32000) if found is None else found)
