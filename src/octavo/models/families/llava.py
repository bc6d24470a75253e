"""LLaVA (Liu et al. 2023): pictures of one size, 576 tokens each at 336 pixels."""

from __future__ import annotations

from typing import ClassVar

from octavo.hardware.pictures import FixedPicture, PictureRule
from octavo.models.checkpoint import Checkpoint
from octavo.models.families._llava import (
    LlavaLike,
    LlavaProcessor,
    Tokens,
    image_id,
    tokens_of,
)


class Llava(LlavaLike):
    """Answers about any number of pictures, in the order in which they are given."""

    name: ClassVar[str] = "llava"
    paged = True
    model_types: ClassVar[frozenset[str]] = frozenset({"llava"})
    config_class: ClassVar[str] = "LlavaConfig"
    model_class: ClassVar[str] = "LlavaForConditionalGeneration"

    def picture_rule(self, checkpoint: Checkpoint, tokens: Tokens) -> PictureRule:
        del checkpoint
        return FixedPicture(
            size=tokens.size,
            patch=tokens.patch,
            tokens=(tokens.size // tokens.patch) ** 2 + tokens.kept,
            extra=tokens.extra,
        )

    def processor(self, checkpoint: Checkpoint) -> LlavaProcessor:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        from octavo.models.processing.clip_files import picture_processor, tokenizer_of
        from octavo.models.processing.llava_prompts import template_of

        tokenizer = tokenizer_of(checkpoint)
        return LlavaProcessor(
            tokenizer,
            picture_processor(checkpoint, CLIPImageProcessorPil),
            template_of(checkpoint, tokenizer),
            image_id(checkpoint),
            tokens_of(checkpoint, self.vision_config(checkpoint)),
        )
