"""Requests as Qwen's vision-language models take them: words, pictures and films to tensors.

The prompt comes from the checkpoint's own chat template; each place of a picture or film in it is
then widened to as many tokens as the tower gives. Inputs are those of transformers'
``Qwen3VLProcessor``, ``Qwen2_5_VLProcessor`` and ``Qwen2VLProcessor``; positions (M-RoPE) are
computed by the model from ``mm_token_type_ids`` and the grids.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from octavo.errors import BrokenFile, InputError
from octavo.models.family import Prepared, Processor
from octavo.models.processing.qwen_pictures import Patching, picture_rows
from octavo.models.processing.qwen_video import Film, FilmSettings, films
from octavo.requests import MediaReader, Modality, Part, Request

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from octavo.models.checkpoint import Checkpoint

#: Kinds of tokens in ``mm_token_type_ids``; text is 0.
_PICTURE, _FILM = 1, 2


@dataclass(frozen=True, slots=True)
class Marks:
    """Ids of the tokens around and in the place of media, as the configuration has them."""

    picture: int
    film: int
    start: int
    end: int


@dataclass(slots=True, eq=False)
class _Media:
    """What the parts of one request became, in order."""

    pictures: list[tuple[NDArray[np.float32], tuple[int, int, int]]] = field(default_factory=list)
    films: list[Film] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class QwenProcessor(Processor):
    """Qwen2-VL's: a film is one run of tokens.

    Args:
        tokenizer: of transformers.
        template: the chat template, in Jinja.
        marks: ids of media tokens.
        ends: ids that end an answer.
        pictures, film: how media become rows.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: str,
        marks: Marks,
        ends: frozenset[int],
        pictures: Patching,
        film: FilmSettings,
    ) -> None:
        self.tokenizer = tokenizer
        self._template = template
        self._marks = marks
        self._ends = ends
        self.pictures = pictures
        self.film = film
        self._token = {
            id_: str(tokenizer.convert_ids_to_tokens(id_))
            for id_ in (marks.picture, marks.film, marks.start, marks.end)
        }

    @property
    def end_tokens(self) -> frozenset[int]:
        return self._ends

    def decode(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def prepare(self, request: Request, media: MediaReader) -> Prepared:
        import torch

        found = _Media()
        messages = [
            {
                "role": message.role,
                "content": [
                    entry for part in message.parts for entry in self._entries(part, media, found)
                ],
            }
            for message in request.messages
        ]
        text = self._widened(self._written(messages, request.id), found)
        ids_t = torch.tensor(self.tokenizer(text)["input_ids"])
        kinds_t = torch.zeros_like(ids_t)
        kinds_t[ids_t == self._marks.picture] = _PICTURE
        kinds_t[ids_t == self._marks.film] = _FILM
        media_tokens = int((kinds_t > 0).sum())
        inputs = {
            "input_ids": ids_t[None],
            "attention_mask": torch.ones_like(ids_t)[None],
            "mm_token_type_ids": kinds_t[None],
            **self._tensors(found),
        }
        return Prepared(inputs, len(ids_t), media_tokens, tuple(found.notes))

    def _entries(self, part: Part, media: MediaReader, found: _Media) -> Iterable[dict[str, str]]:
        """What the template is told of a part; its pixels go to ``found``."""
        if part.kind is Modality.TEXT:
            return [{"type": "text", "text": str(part.value)}]
        if part.kind is Modality.IMAGE:
            rows, grid = picture_rows(media.picture(part), self.pictures, part.where)
            found.pictures.append((rows, grid))
            patch = self.pictures.patch
            found.notes.append(f"{part.where}: picture of {grid[2] * patch} x {grid[1] * patch}")
            return [{"type": "image"}]
        if part.kind is Modality.VIDEO:
            segments = films(part, media, self.film)
            found.films += segments
            patch = self.film.patching.patch
            found.notes += [
                f"{part.where}: {len(film.seconds)} frames of {film.grid[2] * patch} x "
                f"{film.grid[1] * patch}, {film.seconds[0]:.1f} to {film.seconds[-1]:.1f} s"
                for film in segments
            ]
            return [{"type": "video"}] * len(segments)
        raise InputError(
            "this model takes text, pictures and films, no sound",
            where=part.where,
            next_step="transcribe the sound with a speech model and give it the text",
        )

    def _written(self, messages: list[dict[str, Any]], where: str) -> str:
        from jinja2.exceptions import TemplateError

        try:
            text: str = self.tokenizer.apply_chat_template(
                messages, chat_template=self._template, tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise InputError(
                f"the model's chat template refuses these messages: {error}",
                where=where,
                next_step="let messages of user and assistant take turns, the user's first",
            ) from error
        return text

    def _widened(self, text: str, found: _Media) -> str:
        """The prompt with every place of a picture or film as long as its tokens."""
        marks = self._marks
        picture, film = self._token[marks.picture], self._token[marks.film]
        merged = self.pictures.merge**2
        wide = {
            picture: [picture * (high * wide // merged) for _, (_, high, wide) in found.pictures],
            film: [self._film_words(one) for one in found.films],
        }
        for token, words in wide.items():
            if text.count(token) != len(words):
                raise InputError(
                    f"the prompt has {text.count(token)} places {token} for {len(words)} media",
                    next_step=f"take {token} out of the text; media are given as parts",
                )
        left = {token: iter(words) for token, words in wide.items()}
        pattern = "|".join(map(re.escape, left))
        return re.sub(pattern, lambda place: next(left[place.group()]), text)

    def _group_tokens(self, film: Film) -> str:
        """One frame group's tokens."""
        _, high, wide = film.grid
        return self._token[self._marks.film] * (high * wide // self.film.patching.merge**2)

    def _film_words(self, film: Film) -> str:
        return self._group_tokens(film) * film.grid[0]

    def _tensors(self, found: _Media) -> dict[str, torch.Tensor]:
        tensors: dict[str, torch.Tensor] = {}
        if found.pictures:
            rows, grids = zip(*found.pictures, strict=True)
            tensors["pixel_values"], tensors["image_grid_thw"] = _joined(rows, grids)
        if found.films:
            tensors["pixel_values_videos"], tensors["video_grid_thw"] = _joined(
                [film.rows for film in found.films], [film.grid for film in found.films]
            )
        return tensors


class PacedProcessor(QwenProcessor):
    """Qwen2.5-VL's: time between frame groups goes into their positions."""

    def _tensors(self, found: _Media) -> dict[str, torch.Tensor]:
        import torch

        tensors = super()._tensors(found)
        if found.films:
            paces = [film.seconds_per_group for film in found.films]
            tensors["second_per_grid_ts"] = torch.tensor(paces, dtype=torch.float32)
        return tensors


class TimedProcessor(QwenProcessor):
    """Qwen3-VL's: every frame group stands alone, after its time in words."""

    def _film_words(self, film: Film) -> str:
        start, end = self._token[self._marks.start], self._token[self._marks.end]
        group = self._group_tokens(film)
        return "".join(
            f"<{seconds:.1f} seconds>{start}{group}{end}" for seconds in film.group_seconds
        )


def _joined(
    rows: Sequence[NDArray[np.float32]], grids: Sequence[tuple[int, int, int]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """All rows under each other, without a copy where there is one; all grids, shape (media, 3)."""
    import numpy as np
    import torch

    together = rows[0] if len(rows) == 1 else np.concatenate(rows)
    return torch.from_numpy(together), torch.tensor(list(grids))


def chat_template(checkpoint: Checkpoint, tokenizer: Any) -> str:
    """The template of the processor's files, else the tokenizer's.

    Raises:
        InputError: there is none.
    """
    if checkpoint.has("chat_template.jinja"):
        try:
            return checkpoint.files.read("chat_template.jinja").decode()
        except UnicodeDecodeError as error:
            raise BrokenFile("chat_template.jinja is not text", where=checkpoint.name) from error
    found: Any = None
    if checkpoint.has("chat_template.json"):
        found = checkpoint.json("chat_template.json").get("chat_template")
    found = found or tokenizer.chat_template
    if not isinstance(found, str):
        raise InputError(
            "the checkpoint has no chat template",
            where=checkpoint.name,
            next_step="take an instruct checkpoint, or add its chat_template.jinja",
        )
    return found
