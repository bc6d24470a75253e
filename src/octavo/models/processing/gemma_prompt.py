"""Requests to Gemma 3n's tensors: the ids of transformers' ``Gemma3nProcessor``.

Every picture is resized to one size and takes a fixed number of tokens; so does every piece of
sound of up to 30 s, whatever its length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from octavo.errors import InputError
from octavo.models.family import Prepared, Processor
from octavo.models.processing.clip_files import (
    picture_processor,
    picture_settings,
    pixels_of,
    processor_settings,
    tokenizer_of,
)
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
from octavo.requests import MediaReader, Request

if TYPE_CHECKING:
    import torch

    from octavo.models.checkpoint import Checkpoint

#: 30 s, which the model's 188 tokens stand for.
LONGEST_S: Final = 30
_ENDS: Final = ("<end_of_turn>",)


@dataclass(frozen=True, slots=True)
class Marks:
    """Written tokens, and how many stand for one picture and one piece of sound."""

    picture: str
    picture_start: str
    picture_end: str
    sound: str
    sound_start: str
    sound_end: str
    picture_tokens: int
    sound_tokens: int

    def widened(self, prompt: str) -> str:
        """The prompt with every place of a medium as long as the model wants it."""
        picture = self.picture * self.picture_tokens
        sound = self.sound * self.sound_tokens
        return prompt.replace(
            self.picture, f"\n\n{self.picture_start}{picture}{self.picture_end}\n\n"
        ).replace(self.sound, f"\n\n{self.sound_start}{sound}{self.sound_end}\n\n")


class GemmaProcessor(Processor):
    """Args:
    tokenizer: of transformers.
    template: the chat template in Jinja; None for the family's own form.
    marks: tokens around and in the place of media.
    ends: ids that end an answer.
    pictures: transformers' Pillow class for pictures.
    ears: transformers' ``Gemma3nAudioFeatureExtractor``.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: str | None,
        marks: Marks,
        ends: frozenset[int],
        pictures: Any,
        ears: Any,
    ) -> None:
        self.tokenizer = tokenizer
        self._template = template
        self._marks = marks
        self._ends = ends
        self._pictures = pictures
        self._ears = ears
        rate = int(ears.sampling_rate)
        # One frame and the sample after it, once padded to whole blocks of 128.
        self._hearing = Hearing(rate, int(ears.frame_length) + 1, LONGEST_S * rate)

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> GemmaProcessor:
        """From the checkpoint's files.

        Raises:
            InputError: files are missing, or do not fit each other.
        """
        from transformers import Gemma3nAudioFeatureExtractor
        from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

        tokenizer = tokenizer_of(checkpoint)
        return cls(
            tokenizer,
            chat_template(checkpoint, tokenizer),
            _marks(checkpoint, tokenizer),
            end_tokens(checkpoint, tokenizer, _ENDS),
            picture_processor(checkpoint, SiglipImageProcessorPil),
            Gemma3nAudioFeatureExtractor.from_dict(dict(_ear_settings(checkpoint))),
        )

    @property
    def end_tokens(self) -> frozenset[int]:
        return self._ends

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def prepare(self, request: Request, media: MediaReader) -> Prepared:
        import torch

        marks = self._marks
        found = interleave(request, media, self._hearing, (marks.picture, marks.sound))
        prompt = render(self.tokenizer, self._template, _messages(found), self._own_prompt)
        places = (prompt.count(marks.picture), prompt.count(marks.sound))
        if places != (len(found.pictures), len(found.sounds)):
            raise InputError(
                f"the chat template makes {places[0]} places for {len(found.pictures)} pictures "
                f"and {places[1]} for {len(found.sounds)} sounds",
                next_step="give media in messages of the user only",
            )
        ids = self.tokenizer(marks.widened(prompt), add_special_tokens=False)["input_ids"]
        ids_bt = torch.tensor([ids])
        inputs = {
            "input_ids": ids_bt,
            "attention_mask": torch.ones_like(ids_bt),
            **self._seen(found),
            **self._heard(found),
        }
        taken = places[0] * (marks.picture_tokens + 2) + places[1] * (marks.sound_tokens + 2)
        return Prepared(inputs, len(ids), taken, tuple(found.notes))

    def _seen(self, found: Interleaved) -> Mapping[str, torch.Tensor]:
        if not found.pictures:
            return {}
        return {"pixel_values": pixels_of(self._pictures, found.pictures)["pixel_values"]}

    def _heard(self, found: Interleaved) -> Mapping[str, torch.Tensor]:
        if not found.sounds:
            return {}
        made = self._ears(found.sounds, return_tensors="pt")
        return {name: made[name] for name in ("input_features", "input_features_mask")}

    def _own_prompt(self, messages: Sequence[Mapping[str, Any]]) -> str:
        """The published form; what the system says leads the first message."""
        words = [str(self.tokenizer.bos_token or "")]
        before = ""
        for message in messages:
            said = before + "".join(self._written(slot) for slot in message["content"])
            if message["role"] == "system":
                before = f"{said}\n\n"
                continue
            role = "model" if message["role"] == "assistant" else "user"
            words.append(f"<start_of_turn>{role}\n{said}<end_of_turn>\n")
            before = ""
        return "".join([*words, "<start_of_turn>model\n"])

    def _written(self, slot: Mapping[str, str]) -> str:
        marks = {"image": self._marks.picture, "audio": self._marks.sound}
        return marks.get(slot["type"]) or slot["text"].strip()


def _messages(found: Interleaved) -> list[dict[str, Any]]:
    """As chat templates want them."""

    def entry(slot: Slot) -> dict[str, str]:
        return {"type": slot.kind, **({"text": slot.text} if slot.kind == "text" else {})}

    return [{"role": role, "content": [entry(s) for s in slots]} for role, slots in found.turns]


def _marks(checkpoint: Checkpoint, tokenizer: Any) -> Marks:
    """Raises InputError where the tokenizer lacks a token."""
    config = checkpoint.config
    usual = {
        "image_token_id": 262_145,
        "boi_token_id": 255_999,
        "eoi_token_id": 262_144,
        "audio_token_id": 262_273,
        "boa_token_id": 256_000,
        "eoa_token_id": 262_272,
    }
    written = {
        key: token_of(tokenizer, int(config.get(key, number)), checkpoint)
        for key, number in usual.items()
    }
    return Marks(
        picture=written["image_token_id"],
        picture_start=written["boi_token_id"],
        picture_end=written["eoi_token_id"],
        sound=written["audio_token_id"],
        sound_start=written["boa_token_id"],
        sound_end=written["eoa_token_id"],
        picture_tokens=int(config.get("vision_soft_tokens_per_image") or 256),
        sound_tokens=int(config.get("audio_soft_tokens_per_image") or 188),
    )


def _ear_settings(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """How sound is turned into features: newer checkpoints have it in a file for all media."""
    nested = processor_settings(checkpoint).get("feature_extractor")
    return nested if isinstance(nested, dict) else picture_settings(checkpoint)
