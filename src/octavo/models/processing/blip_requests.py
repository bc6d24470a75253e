"""What BLIP and BLIP-2 take of a request: one picture, and words about it."""

from __future__ import annotations

from octavo.errors import InputError
from octavo.models.processing.clip_files import refuse
from octavo.requests import Modality, Part, Request


def picture_and_words(request: Request, family: str) -> tuple[Part, str]:
    """The picture, and all texts joined by spaces; these models have no turns.

    Raises:
        InputError: not exactly one picture, or a part of another kind.
    """
    for part in request.parts:
        if part.kind not in (Modality.TEXT, Modality.IMAGE):
            raise refuse(part, family, "one picture and a text")
    pictures = [part for part in request.parts if part.kind is Modality.IMAGE]
    if len(pictures) != 1:
        raise InputError(
            f"{family} models take one picture, the request has {len(pictures)}",
            where=request.id,
            next_step="ask about each picture by itself",
        )
    words = [str(part.value).strip() for part in request.parts if part.kind is Modality.TEXT]
    return pictures[0], " ".join(word for word in words if word)


def as_question(words: str) -> str:
    """The form in which BLIP-2 was trained on questions (Li et al. 2023); what is no question is
    the beginning of a caption and stays as it is."""
    return f"Question: {words} Answer:" if words.endswith("?") else words
