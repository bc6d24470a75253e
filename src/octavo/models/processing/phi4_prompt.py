"""Requests to Phi-4-multimodal's tensors: those of transformers' ``Phi4MultimodalProcessor``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from octavo.errors import InputError
from octavo.hardware.pictures_phi4 import HighDefinition
from octavo.models.family import Prepared, Processor
from octavo.models.processing.clip_files import picture_settings, tokenizer_of
from octavo.models.processing.interleaved import (
    Hearing,
    Interleaved,
    Slot,
    chat_template,
    end_tokens,
    interleave,
    render,
    token_of,
)
from octavo.models.processing.phi4_settings import ear_settings, high_definition
from octavo.requests import MediaReader, Request

if TYPE_CHECKING:
    import torch

    from octavo.models.checkpoint import Checkpoint
    from octavo.models.processing.phi4_pictures import Colours

_ENDS: Final = ("<|end|>",)


class Phi4Processor(Processor):
    """Args:
    tokenizer: of transformers.
    template: the chat template in Jinja; None for the family's own form.
    picture, sound: the written tokens that stand for one.
    ends: ids that end an answer.
    rule, colours: how pictures are cut and scaled.
    ears: transformers' ``Phi4MultimodalFeatureExtractor``.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: str | None,
        picture: str,
        sound: str,
        ends: frozenset[int],
        rule: HighDefinition,
        colours: Colours,
        ears: Any,
    ) -> None:
        self.tokenizer = tokenizer
        self._template = template
        self._picture = picture
        self._sound = sound
        self._ends = ends
        self._rule = rule
        self._colours = colours
        self._ears = ears
        self._hearing = Hearing(int(ears.sampling_rate), int(ears.win_length))

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Phi4Processor:
        """From the checkpoint's files.

        Raises:
            InputError: files are missing, or do not fit each other.
        """
        from transformers import Phi4MultimodalFeatureExtractor

        from octavo.models.processing.phi4_pictures import Colours

        tokenizer = tokenizer_of(checkpoint)
        vision = checkpoint.config.get("vision_config") or {}
        audio = checkpoint.config.get("audio_config") or {}
        return cls(
            tokenizer,
            chat_template(checkpoint, tokenizer),
            token_of(tokenizer, int(vision.get("image_token_id", 200_010)), checkpoint),
            token_of(tokenizer, int(audio.get("audio_token_id", 200_011)), checkpoint),
            end_tokens(checkpoint, tokenizer, _ENDS),
            high_definition(checkpoint),
            Colours.of(picture_settings(checkpoint)),
            Phi4MultimodalFeatureExtractor.from_dict(dict(ear_settings(checkpoint))),
        )

    @property
    def end_tokens(self) -> frozenset[int]:
        return self._ends

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def prepare(self, request: Request, media: MediaReader) -> Prepared:
        import torch

        found = interleave(request, media, self._hearing, (self._picture, self._sound))
        prompt = render(self.tokenizer, self._template, self._messages(found), _own_prompt)
        heard = self._heard(found)
        sounds = [int(size) for size in heard.get("audio_embed_sizes", ())]
        pictures = self._costs(found)
        widened = self._widened(prompt, pictures, sounds)
        ids = self.tokenizer(widened, add_special_tokens=False)["input_ids"]
        ids_bt = torch.tensor([ids])
        inputs = {
            "input_ids": ids_bt,
            "attention_mask": torch.ones_like(ids_bt),
            **self._seen(found),
            **heard,
        }
        return Prepared(inputs, len(ids), sum(pictures) + sum(sounds), tuple(found.notes))

    def _messages(self, found: Interleaved) -> list[dict[str, Any]]:
        """Contents are strings, which templates of all releases take."""
        marks = {"image": self._picture, "audio": self._sound}

        def written(slot: Slot) -> str:
            return marks.get(slot.kind) or slot.text

        return [
            {"role": role, "content": "".join(map(written, slots))} for role, slots in found.turns
        ]

    def _costs(self, found: Interleaved) -> list[int]:
        """Tokens of each picture."""
        sizes = [picture.shape[:2] for picture in found.pictures]
        try:
            return [self._rule.cost(width, height).tokens for height, width in sizes]
        except ValueError as error:
            raise InputError(str(error), where="a picture of the request") from error

    def _widened(self, prompt: str, pictures: Sequence[int], sounds: Sequence[int]) -> str:
        """The prompt with every place of a medium as long as its features."""
        left = {self._picture: iter(pictures), self._sound: iter(sounds)}
        for mark, sizes in ((self._picture, pictures), (self._sound, sounds)):
            if prompt.count(mark) != len(sizes):
                raise InputError(
                    f"the chat template makes {prompt.count(mark)} places for {len(sizes)} media",
                    next_step="give media in messages of the user only",
                )
        pattern = "|".join(map(re.escape, left))
        return re.sub(pattern, lambda place: place.group() * next(left[place.group()]), prompt)

    def _seen(self, found: Interleaved) -> Mapping[str, torch.Tensor]:
        from octavo.models.processing.phi4_pictures import crops_of

        return crops_of(found.pictures, self._rule, self._colours) if found.pictures else {}

    def _heard(self, found: Interleaved) -> Mapping[str, torch.Tensor]:
        """Features of all sounds; the mask is there only where their lengths may differ."""
        if not found.sounds:
            return {}
        made = self._ears(
            found.sounds, sampling_rate=int(self._ears.sampling_rate), return_tensors="pt"
        )
        return dict(made)


def _own_prompt(messages: Sequence[Mapping[str, Any]]) -> str:
    """The published form."""
    said = "".join(f"<|{one['role']}|>{one['content']}<|end|>" for one in messages)
    return f"{said}<|assistant|>"
