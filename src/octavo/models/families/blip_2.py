"""BLIP-2 (Li et al. 2023): a few queries look at the picture for an OPT or a Flan-T5.

Shape letters: t tokens, d features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from octavo.errors import InputError
from octavo.hardware.pictures import FixedPicture
from octavo.hardware.spec import ModelSpec, TensorSpec, TextShape, VisionShape
from octavo.models.checkpoint import Checkpoint, require
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

_ORDER: Final = ("vision", "projector", "language")
_DECODERS: Final = ("opt", "t5")
_LOOKED_UP: Final = {
    "encoder.embed_tokens.weight": "shared.weight",
    "decoder.embed_tokens.weight": "shared.weight",
}
_HEADS: Final = {
    "opt": {"lm_head.weight": "decoder.embed_tokens.weight"},
    "t5": {"lm_head.weight": "shared.weight"},
}


class Blip2Processor(Processor):
    """One picture to pixel values; image tokens, then the text's ids, start token included.

    Args:
        tokenizer: transformers'.
        pictures: one of transformers' Pillow classes.
        image_id: the id that the model replaces by what the queries saw.
        queries: how many of them there are.
        end: the id that ends an answer.
    """

    def __init__(
        self, tokenizer: Any, pictures: Any, *, image_id: int, queries: int, end: int
    ) -> None:
        self.tokenizer = tokenizer
        self._pictures = pictures
        self._image_id = image_id
        self._queries = queries
        self._end = end

    def prepare(self, request: Request, media: MediaReader) -> Prepared:
        """A text that ends with a question mark is asked as the model was trained; any other is
        how the answer begins.

        Raises:
            InputError: not exactly one picture, or a text with the picture's token.
        """
        import torch

        from octavo.models.processing.blip_requests import as_question, picture_and_words
        from octavo.models.processing.clip_files import pixels_of

        picture, words = picture_and_words(request, "blip-2")
        text = as_question(words)
        said = [int(token) for token in self.tokenizer(text)["input_ids"]]
        if self._image_id in said:
            raise InputError(
                "the text holds the token that stands for the picture",
                where=request.id,
                next_step="leave it out: the picture goes before the text",
            )
        ids_t = torch.tensor([[self._image_id] * self._queries + said])
        pixels = pixels_of(self._pictures, [media.picture(picture)])["pixel_values"]
        inputs = {
            "input_ids": ids_t,
            "attention_mask": torch.ones_like(ids_t),
            "pixel_values": pixels,
        }
        notes = (f"asked as: {text}",) if text != words else ()
        return Prepared(inputs, ids_t.shape[1], self._queries, notes)

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()

    @property
    def end_tokens(self) -> frozenset[int]:
        return frozenset({self._end})


class Blip2(Family):
    """Captions, and answers about one picture."""

    name: ClassVar[str] = "blip-2"
    model_types: ClassVar[frozenset[str]] = frozenset({"blip-2"})
    tasks: ClassVar[frozenset[Task]] = frozenset({Task.CAPTION, Task.ANSWER})
    modes: ClassVar[frozenset[InputMode]] = frozenset({InputMode.VISION})
    caption_prompt: ClassVar[str] = ""

    def describe(self, checkpoint: Checkpoint) -> ModelSpec:
        text = _text(checkpoint)
        vision = _towers.part_config(
            checkpoint, "vision_config", "blip_2_vision_model", ("blip_2_vision_model",)
        )
        kind = str(text["model_type"])
        tied = _tied(checkpoint, text)
        copies = {**_LOOKED_UP, **(_HEADS[kind] if tied else {})}
        tensors = _towers.wanted(checkpoint.tensors, copies)
        decoder = _t5_shape(text, tied) if kind == "t5" else _towers.tower_shape(text, tied)
        size, patch = _towers.side(vision["image_size"]), _towers.side(vision["patch_size"])
        return ModelSpec(
            name=checkpoint.name,
            family=self.name,
            stored=_towers.stored_precision(tensors),
            components=components(self, tensors, _ORDER, _layer_of, _is_matrix),
            text=decoder,
            vision=VisionShape(
                layers=int(vision["num_hidden_layers"]),
                hidden=int(vision["hidden_size"]),
                heads=int(vision["num_attention_heads"]),
                ffn=int(vision["intermediate_size"]),
                patch=patch,
                picture=FixedPicture(size, patch, tokens=_queries(checkpoint), extra=1),
                out_hidden=decoder.hidden,
            ),
        )

    def build(self, checkpoint: Checkpoint) -> nn.Module:
        import torch
        from torch import nn

        module = _towers.build(checkpoint, "Blip2Config", "Blip2ForConditionalGeneration")
        _towers.take_any_float(module, "qformer", "language_projection")
        text = _text(checkpoint)
        if text["model_type"] == "t5" and not _tied(checkpoint, text):
            # transformers ties every T5 and undoes it when it reads a head of its own, as Flan's.
            head = module.get_submodule("language_model.lm_head")
            head.weight = nn.Parameter(torch.empty_like(head.weight), requires_grad=False)  # type: ignore[arg-type]
        return module

    def processor(self, checkpoint: Checkpoint) -> Blip2Processor:
        from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

        from octavo.models.processing.clip_files import picture_processor, tokenizer_of

        tokenizer = tokenizer_of(checkpoint)
        end = _text(checkpoint).get("eos_token_id")
        return Blip2Processor(
            tokenizer,
            picture_processor(checkpoint, BlipImageProcessorPil),
            image_id=int(require(checkpoint.config, "image_token_index", checkpoint.name)),
            queries=_queries(checkpoint),
            end=int(tokenizer.eos_token_id if end is None else end),
        )

    def sources(self, checkpoint: Checkpoint, module: nn.Module) -> Mapping[str, str]:
        return _towers.sources(checkpoint, module)

    def component_of(self, name: str) -> str:
        if name.startswith("vision_model."):
            return "vision"
        return "language" if name.startswith("language_model.") else "projector"

    def layers(self, module: nn.Module, component: str) -> Sequence[nn.Module]:
        if component == "vision":
            return _towers.submodules(module, "vision_model.encoder.layers")
        if component == "projector":
            return _towers.submodules(module, "qformer.encoder.layer")
        inner = "language_model."
        if module.config.text_config.model_type == "t5":  # type: ignore[union-attr]
            return _towers.submodules(module, inner + "encoder.block", inner + "decoder.block")
        return _towers.submodules(module, inner + "model.decoder.layers")

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
        """As the model's own ``generate``, which puts what the queries saw before the text and
        asks the language model."""
        from octavo.models.generation import generate

        decoder: Any = module.get_submodule("language_model")
        inputs = _with_picture(module, prepared)
        # What comes back begins with the prompt, or with a T5's start token.
        begins = prepared.prompt_tokens
        if decoder.config.is_encoder_decoder:
            inputs.pop("input_ids")
            begins = 1
        return generate(
            decoder,
            processor,
            Prepared(inputs, begins),
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            guard=guard,
        )


def _with_picture(module: nn.Module, prepared: Prepared) -> dict[str, torch.Tensor]:
    """Inputs of the language model: the text's embeddings after what the queries saw."""
    import torch

    config: Any = module.config
    first = module.get_parameter("vision_model.embeddings.patch_embedding.weight")
    pixels = prepared.inputs["pixel_values"].to(first.device, first.dtype)
    ids_t = prepared.inputs["input_ids"].to(first.device)
    with torch.inference_mode():
        seen = module.get_image_features(pixel_values=pixels).pooler_output  # type: ignore[operator]
        words_td = module.get_input_embeddings()(ids_t)  # type: ignore[operator]
        places_t = torch.eq(ids_t, config.image_token_id)[..., None]
        mixed_td = words_td.masked_scatter(places_t, seen.to(words_td.dtype))
    return {
        "input_ids": ids_t,
        "inputs_embeds": mixed_td,
        "attention_mask": prepared.inputs["attention_mask"].to(first.device),
    }


def _text(checkpoint: Checkpoint) -> Mapping[str, Any]:
    return _towers.part_config(checkpoint, "text_config", "opt", _DECODERS)


def _tied(checkpoint: Checkpoint, text: Mapping[str, Any]) -> bool:
    """Whether the head is the embeddings; of T5 only the stored tensors say so."""
    if text["model_type"] == "t5":
        return not any(name.endswith("lm_head.weight") for name in checkpoint.tensors)
    return bool(text["tie_word_embeddings"])


def _queries(checkpoint: Checkpoint) -> int:
    return int(checkpoint.config.get("num_query_tokens") or 32)


def _t5_shape(config: Mapping[str, Any], tied: bool) -> TextShape:
    """The decoder; the encoder has as many layers."""
    heads = int(config["num_heads"])
    return TextShape(
        layers=int(config.get("num_decoder_layers") or config["num_layers"]),
        hidden=int(config["d_model"]),
        heads=heads,
        kv_heads=heads,
        head_dim=int(config["d_kv"]),
        ffn=int(config["d_ff"]),
        vocabulary=int(config["vocab_size"]),
        tied=tied,
        gated=str(config["feed_forward_proj"]).startswith("gated"),
    )


def _layer_of(name: str) -> int | None:
    """A T5's decoder comes after its encoder."""
    found = _towers.layer_of(name)
    if found is None or not name.startswith("language_model.decoder."):
        return found
    return _towers.AFTER + found


def _is_matrix(tensor: TensorSpec) -> bool:
    """A T5's second feed-forward matrix stays in float: transformers asks for its type."""
    return _towers.is_matrix(tensor) and not tensor.name.endswith(".wo.weight")
