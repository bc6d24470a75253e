"""LLaVA-NeXT (Liu et al. 2024): LLaVA with pictures in tiles, up to 2880 tokens each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

from octavo.errors import InputError
from octavo.hardware.pictures_tiled import TiledPicture
from octavo.models.checkpoint import Checkpoint
from octavo.models.families._llava import (
    LlavaLike,
    LlavaProcessor,
    Tokens,
    image_id,
    tokens_of,
)

if TYPE_CHECKING:
    import torch

#: Where ``config.json`` names none; height and width in pixels.
_GRIDS: Final = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))


class LlavaNextProcessor(LlavaProcessor):
    """As LLaVA's, with as many image tokens as the picture's tiles give."""

    family: ClassVar[str] = "llava-next"

    def __init__(self, *given: Any, rule: TiledPicture) -> None:
        super().__init__(*given)
        self._rule = rule

    def _see(
        self, pictures: Sequence[Any]
    ) -> tuple[Mapping[str, torch.Tensor], list[int], tuple[str, ...]]:
        from octavo.models.processing.clip_files import pixels_of

        costs = []
        for picture in pictures:
            try:
                costs.append(self._rule.cost(picture.shape[1], picture.shape[0]))
            except ValueError as error:
                raise InputError(str(error), where="picture") from error
        made = pixels_of(self._pictures, pictures)
        notes = tuple(
            f"picture {number}: {cost.sequences} tiles, {cost.tokens} tokens"
            for number, cost in enumerate(costs, 1)
        )
        seen = {name: made[name] for name in ("pixel_values", "image_sizes")}
        return seen, [cost.tokens for cost in costs], notes


class LlavaNext(LlavaLike):
    """Answers about any number of pictures, each at up to four times LLaVA's resolution."""

    name: ClassVar[str] = "llava-next"
    paged = True
    model_types: ClassVar[frozenset[str]] = frozenset({"llava_next"})
    config_class: ClassVar[str] = "LlavaNextConfig"
    model_class: ClassVar[str] = "LlavaNextForConditionalGeneration"

    def picture_rule(self, checkpoint: Checkpoint, tokens: Tokens) -> TiledPicture:
        grids = checkpoint.config.get("image_grid_pinpoints") or _GRIDS
        return TiledPicture(
            tile=tokens.size,
            patch=tokens.patch,
            grids=tuple((int(high), int(wide)) for high, wide in grids),
            extra=tokens.extra,
            kept=tokens.kept,
        )

    def processor(self, checkpoint: Checkpoint) -> LlavaNextProcessor:
        from transformers.models.llava_next.image_processing_pil_llava_next import (
            LlavaNextImageProcessorPil,
        )

        from octavo.models.processing.clip_files import picture_processor, tokenizer_of
        from octavo.models.processing.llava_prompts import template_of

        tokenizer = tokenizer_of(checkpoint)
        tokens = tokens_of(checkpoint, self.vision_config(checkpoint))
        rule = self.picture_rule(checkpoint, tokens)
        pictures = picture_processor(checkpoint, LlavaNextImageProcessorPil)
        # The model goes by config.json; tiles cut by other grids would not fit its features.
        pictures.image_grid_pinpoints = [list(grid) for grid in rule.grids]
        return LlavaNextProcessor(
            tokenizer,
            pictures,
            template_of(checkpoint, tokenizer),
            image_id(checkpoint),
            tokens,
            rule=rule,
        )
