"""What a model is asked to do, as far as memory cares: pictures, sound, tokens."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, fields
from typing import Final

from octavo.errors import ConfigError
from octavo.hardware.spec import ModelSpec

#: Inches of an A4 page.
A4: Final = (8.27, 11.69)


@dataclass(frozen=True, slots=True)
class Workload:
    """The largest request that must fit, and how many of them at a time.

    Attributes:
        pages: of a document; each is a request of its own with one picture, so their number is
            a matter of time, not of memory. 0: no document.
        dpi: at which pages are drawn, and the size of pictures that ``width`` does not give.
        images: pictures in one request; None is 1 where there are pages, else 0.
        width, height: pixels of each picture; None is an A4 page at ``dpi``.
        frames: of a film in one request.
        audio_s: seconds of sound in one request.
        prompt: text tokens beside the media.
        new: tokens of the answer.
        batch: requests at a time.
    """

    pages: int = 0
    dpi: int = 200
    images: int | None = None
    width: int | None = None
    height: int | None = None
    frames: int = 0
    audio_s: float = 0.0
    prompt: int = 300
    new: int = 1000
    batch: int = 1

    def __post_init__(self) -> None:
        for name in ("dpi", "batch", "prompt", "new"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1", where="workload")
        for name in ("pages", "images", "frames", "audio_s"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ConfigError(f"{name} must be 0 or more", where="workload")
        for name in ("width", "height"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1", where="workload")

    @classmethod
    def parse(cls, text: str) -> Workload:
        """``"pages=20,dpi=200,new=4000"``; what is not named keeps its default.

        Raises:
            ConfigError: an unknown key, a value that is no number, or one out of range.
        """
        known = {entry.name for entry in fields(cls)}
        values: dict[str, int | float] = {}
        for item in filter(None, (piece.strip() for piece in text.split(","))):
            key, equals, value = (piece.strip() for piece in item.partition("="))
            if key not in known:
                near = difflib.get_close_matches(key, sorted(known), 1, 0.5)
                raise ConfigError(
                    f"{key!r} is not part of a workload",
                    where=text,
                    next_step=f"did you mean {near[0]}?"
                    if near
                    else f"use {', '.join(sorted(known))}",
                )
            if key in values:
                raise ConfigError(f"{key} is given twice", where=text)
            try:
                values[key] = float(value) if key == "audio_s" else int(value)
            except ValueError:
                raise ConfigError(
                    f"{key} must be a number, not {value!r}" if equals else f"{key} has no value",
                    where=text,
                    next_step=f"write {key}=1",
                ) from None
        return cls(**values)  # type: ignore[arg-type]

    @property
    def pictures(self) -> int:
        """In one request, frames of films not counted."""
        return self.images if self.images is not None else int(self.pages > 0)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a picture, in pixels."""
        wide, high = (max(1, round(inches * self.dpi)) for inches in A4)
        return self.width or wide, self.height or high


@dataclass(frozen=True, slots=True)
class Pictures:
    """What the pictures of one request cost the tower.

    Attributes:
        count: of pictures, frames of films included.
        sequences: of crops and tiles; the tower attends within each.
        patches: of all of them.
        largest: patches of one picture or one film.
        longest: patches of one sequence.
        tokens: for the decoder.
        features: rows of features that the tower hands on, ``tokens`` at most.
        pixels: after resizing, of all sequences.
    """

    count: int = 0
    sequences: int = 0
    patches: int = 0
    largest: int = 0
    longest: int = 0
    tokens: int = 0
    pixels: int = 0


def pictures_of(spec: ModelSpec, workload: Workload) -> Pictures:
    """The pictures and frames of one request.

    Raises:
        ConfigError: a shape that the model refuses, or pictures for one that does not see.
    """
    wanted = workload.pictures + workload.frames
    if not wanted:
        return Pictures()
    if spec.vision is None:
        raise ConfigError(
            f"{spec.family} models do not see: the workload has {wanted} pictures",
            where=spec.name,
            next_step="leave pages, images and frames out of the workload",
        )
    try:
        one = spec.vision.picture.cost(*workload.size)
    except ValueError as error:
        raise ConfigError(str(error), where="workload") from error
    films = -(-workload.frames // spec.vision.frame_patches)
    count = workload.pictures + films
    return Pictures(
        count=wanted,
        sequences=count * one.sequences,
        patches=count * one.patches,
        largest=max(films, 1) * one.patches,
        longest=-(-one.patches // one.sequences),
        tokens=count * one.tokens,
        pixels=count * one.patches * spec.vision.frame_patches * spec.vision.patch**2,
    )


def sound_tokens(spec: ModelSpec, workload: Workload) -> int:
    """Of the sound in one request.

    Raises:
        ConfigError: sound for a model that does not hear.
    """
    if not workload.audio_s:
        return 0
    if spec.audio is None:
        raise ConfigError(
            f"{spec.family} models do not hear: the workload has sound",
            where=spec.name,
            next_step="leave audio_s out of the workload",
        )
    return math.ceil(workload.audio_s * spec.audio.tokens_per_second)
