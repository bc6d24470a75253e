"""BLIP (Li et al. 2022): captions, and answers to questions about one picture.

Shape letters: t tokens, d features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from octavo.errors import InputError, UnsupportedFormat
from octavo.hardware.pictures import FixedPicture
from octavo.hardware.spec import ModelSpec, VisionShape
from octavo.models.checkpoint import Checkpoint
from octavo.models.families import _towers
from octavo.models.family import (
    Family,
    Generated,
    Guard,
    Prepared,
    Processor,
    Task,
    components,
)
from octavo.requests import InputMode, MediaReader, Request, Sampling

if TYPE_CHECKING:
    import torch
    from torch import nn

_ORDER: Final = ("vision", "language")
_TIED: Final = {
    "cls.predictions.decoder.weight": "text_decoder.bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
CAPTIONS: Final = "BlipForConditionalGeneration"
ANSWERS: Final = "BlipForQuestionAnswering"


class BlipProcessor(Processor):
    """One picture to pixel values, and a prompt or question to ids.

    Args:
        tokenizer: transformers'; it puts [CLS] before and [SEP] after.
        pictures: one of transformers' Pillow classes.
        answers: whether the text is a question; else it is how the caption begins.
        start, end: ids that begin and end what the decoder writes.
    """

    def __init__(
        self, tokenizer: Any, pictures: Any, *, answers: bool, start: int, end: int
    ) -> None:
        self.tokenizer = tokenizer
        self._pictures = pictures
        self._answers = answers
        self._start = start
        self._end = end

    def prepare(self, request: Request, media: MediaReader) -> Prepared:
        """Ids of a question as they are encoded; of a prompt as the decoder continues it.

        Raises:
            InputError: not exactly one picture, or no question where there must be one.
        """
        import torch

        from octavo.models.processing.blip_requests import picture_and_words
        from octavo.models.processing.clip_files import pixels_of

        picture, words = picture_and_words(request, "blip")
        if self._answers and not words:
            raise InputError(
                "this model answers questions, and there is none",
                where=request.id,
                next_step="ask a question, or use a blip model for captions",
            )
        ids = [int(token) for token in self.tokenizer(words)["input_ids"]] if words else []
        if not self._answers:
            # The decoder was trained to begin with a token of its own in place of [CLS], and the
            # [SEP] after the prompt would end the caption.
            ids = [self._start, *ids[1:-1]]
        ids_t = torch.tensor([ids])
        pixels = pixels_of(self._pictures, [media.picture(picture)])["pixel_values"]
        inputs = {
            "input_ids": ids_t,
            "attention_mask": torch.ones_like(ids_t),
            "pixel_values": pixels,
        }
        return Prepared(inputs, len(ids))

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()

    @property
    def end_tokens(self) -> frozenset[int]:
        return frozenset({self._end})


class Blip(Family):
    """A checkpoint writes captions or answers questions, as its architecture says."""

    name: ClassVar[str] = "blip"
    model_types: ClassVar[frozenset[str]] = frozenset({"blip"})
    tasks: ClassVar[frozenset[Task]] = frozenset({Task.CAPTION, Task.ANSWER})
    modes: ClassVar[frozenset[InputMode]] = frozenset({InputMode.VISION})
    caption_prompt: ClassVar[str] = ""

    def describe(self, checkpoint: Checkpoint) -> ModelSpec:
        architecture(checkpoint)
        text = _text(checkpoint)
        vision = _towers.part_config(
            checkpoint, "vision_config", "blip_vision_model", ("blip_vision_model",)
        )
        tied = bool(checkpoint.config.get("tie_word_embeddings", True))
        tensors = _towers.wanted(checkpoint.tensors, _TIED if tied else None)
        size, patch = _towers.side(vision["image_size"]), _towers.side(vision["patch_size"])
        return ModelSpec(
            name=checkpoint.name,
            family=self.name,
            stored=_towers.stored_precision(tensors),
            components=components(self, tensors, _ORDER, _layer_of, _towers.is_matrix),
            text=_towers.tower_shape(text, tied),
            vision=VisionShape(
                layers=int(vision["num_hidden_layers"]),
                hidden=int(vision["hidden_size"]),
                heads=int(vision["num_attention_heads"]),
                ffn=int(vision["intermediate_size"]),
                patch=patch,
                # The decoder's layers look at all patches, and keep keys and values of them.
                picture=FixedPicture(size, patch, tokens=(size // patch) ** 2 + 1, extra=1),
                out_hidden=int(vision["hidden_size"]),
            ),
        )

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        module = _towers.build(checkpoint, "BlipConfig", architecture(checkpoint))
        encoder = ("text_encoder",) if hasattr(module, "text_encoder") else ()
        return _towers.take_any_float(module, "text_decoder", *encoder)

    def processor(self, checkpoint: Checkpoint) -> BlipProcessor:
        from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

        from octavo.models.processing.clip_files import picture_processor, tokenizer_of

        text = _text(checkpoint)
        return BlipProcessor(
            tokenizer_of(checkpoint),
            picture_processor(checkpoint, BlipImageProcessorPil),
            answers=architecture(checkpoint) == ANSWERS,
            start=int(text["bos_token_id"]),
            end=int(text["sep_token_id"]),
        )

    def sources(self, checkpoint: Checkpoint, module: nn.Module) -> Mapping[str, str]:
        return _towers.sources(checkpoint, module)

    def component_of(self, name: str) -> str:
        return "vision" if name.startswith("vision_model.") else "language"

    def layers(self, module: nn.Module, component: str) -> Sequence[nn.Module]:
        if component == "vision":
            return _towers.submodules(module, "vision_model.encoder.layers")
        paths = ["text_decoder.bert.encoder.layer"]
        if hasattr(module, "text_encoder"):
            paths.insert(0, "text_encoder.encoder.layer")
        return _towers.submodules(module, *paths)

    def generate(
        self,
        module: nn.Module,
        processor: Processor,
        prepared: Prepared,
        *,
        max_new_tokens: int,
        sampling: Sampling,
        guard: Guard,
    ) -> Generated:
        """As the model's own ``generate``, which first encodes and then asks its decoder."""
        import torch

        from octavo.models.generation import generate

        assert isinstance(processor, BlipProcessor)
        first = module.get_parameter("vision_model.embeddings.patch_embedding.weight")
        pixels = prepared.inputs["pixel_values"].to(first.device, first.dtype)
        ids_t, mask_t = (
            prepared.inputs[name].to(first.device) for name in ("input_ids", "attention_mask")
        )
        with torch.inference_mode():
            seen_td = module.vision_model(pixel_values=pixels).last_hidden_state  # type: ignore[operator]
            if hasattr(module, "text_encoder"):
                seen_td = module.text_encoder(  # type: ignore[operator]
                    input_ids=ids_t,
                    attention_mask=mask_t,
                    encoder_hidden_states=seen_td,
                    encoder_attention_mask=_ones(seen_td),
                ).last_hidden_state
                ids_t = torch.tensor([[module.decoder_start_token_id]], device=first.device)
                mask_t = torch.ones_like(ids_t)
        inputs = {
            "input_ids": ids_t,
            "attention_mask": mask_t,
            "encoder_hidden_states": seen_td,
            "encoder_attention_mask": _ones(seen_td),
        }
        decoder = module.get_submodule("text_decoder")
        return generate(
            decoder,
            processor,
            Prepared(inputs, ids_t.shape[1]),
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            guard=guard,
        )


def architecture(checkpoint: Checkpoint) -> str:
    """The transformers class; without a word about it, the one for captions.

    Raises:
        UnsupportedFormat: another one, as for retrieval.
    """
    named = list(checkpoint.config.get("architectures") or [CAPTIONS])
    for known in (CAPTIONS, ANSWERS):
        if known in named:
            return known
    raise UnsupportedFormat(
        f"a BLIP model for another purpose: {', '.join(map(str, named))}",
        where=checkpoint.name,
        next_step=f"use one with the architecture {CAPTIONS} or {ANSWERS}",
    )


def _text(checkpoint: Checkpoint) -> Mapping[str, Any]:
    return _towers.part_config(checkpoint, "text_config", "blip_text_model", ("blip_text_model",))


def _layer_of(name: str) -> int | None:
    """The decoder's layers come after those of the encoder of questions."""
    found = _towers.layer_of(name)
    return found if found is None or not name.startswith("text_decoder.") else _towers.AFTER + found


def _ones(features_td: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.ones(features_td.shape[:-1], dtype=torch.long, device=features_td.device)
