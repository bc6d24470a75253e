"""Requests with pictures and sounds between their words, for models that take both.

The media of all messages come out in the order in which the prompt names them. A film is its
frames, as pictures one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from octavo.errors import BrokenFile, InputError
from octavo.requests import MediaReader, Modality, Part, Request, VideoSampling

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from octavo.models.checkpoint import Checkpoint

#: Frames of one film where the request does not say how many.
FRAMES: Final = 8
GENERATION: Final = "generation_config.json"
TEMPLATE: Final = "chat_template.json"


@dataclass(frozen=True, slots=True)
class Hearing:
    """What a model hears: ``rate`` in Hz, ``shortest`` and ``longest`` samples of one piece.

    A longer sound is cut into pieces that follow each other; None never cuts.
    """

    rate: int
    shortest: int
    longest: int | None = None


@dataclass(frozen=True, slots=True)
class Slot:
    """One piece of a message: ``kind`` is ``text``, ``image`` or ``audio``."""

    kind: str
    text: str = ""


@dataclass(slots=True, eq=False)
class Interleaved:
    """A request taken apart.

    Attributes:
        turns: role and slots of each message.
        pictures: height × width × 3 each, in order.
        sounds: mono samples each, in order.
        notes: what was decided on the way.
    """

    turns: list[tuple[str, list[Slot]]] = field(default_factory=list)
    pictures: list[NDArray[np.uint8]] = field(default_factory=list)
    sounds: list[NDArray[np.float32]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def interleave(
    request: Request, media: MediaReader, hearing: Hearing, reserved: Sequence[str]
) -> Interleaved:
    """Opens the media of a request.

    Args:
        reserved: tokens that stand for media; no text may hold them.

    Raises:
        InputError: a part cannot be opened, a sound is too short, a film has no frames, or a
            text holds a reserved token.
    """
    found = Interleaved()
    for message in request.messages:
        slots: list[Slot] = []
        for part in message.parts:
            slots += _slots(part, media, hearing, reserved, found)
        found.turns.append((message.role, slots))
    return found


def _slots(
    part: Part,
    media: MediaReader,
    hearing: Hearing,
    reserved: Sequence[str],
    found: Interleaved,
) -> list[Slot]:
    if part.kind is Modality.TEXT:
        return [_words(str(part.value), reserved)]
    if part.kind is Modality.AUDIO:
        pieces = _pieces(part, media, hearing)
        if len(pieces) > 1:
            found.notes.append(f"{part.where}: heard in {len(pieces)} pieces")
        found.sounds += pieces
        return [Slot("audio")] * len(pieces)
    if part.kind is Modality.VIDEO:
        frames = _frames(part, media)
        found.notes.append(f"{part.where}: {len(frames)} frames, as pictures")
        found.pictures += frames
        return [Slot("image")] * len(frames)
    found.pictures.append(media.picture(part))
    return [Slot("image")]


def _words(text: str, reserved: Sequence[str]) -> Slot:
    for token in reserved:
        if token in text:
            raise InputError(
                f"the text holds {token}, which stands for a picture or a sound",
                next_step=f"take {token} out of the text; media are given as parts",
            )
    return Slot("text", text)


def _pieces(part: Part, media: MediaReader, hearing: Hearing) -> list[NDArray[np.float32]]:
    sound_t = media.sound(part, hearing.rate)
    step = hearing.longest or max(len(sound_t), 1)
    pieces = [sound_t[start : start + step] for start in range(0, len(sound_t), step)]
    if len(pieces) > 1 and len(pieces[-1]) < hearing.shortest:
        pieces.pop()
    if not pieces or len(pieces[0]) < hearing.shortest:
        seconds = hearing.shortest / hearing.rate
        raise InputError(
            f"the sound has {len(sound_t)} samples; the model hears none under {seconds:.3f} s",
            where=part.where,
        )
    return pieces


def _frames(part: Part, media: MediaReader) -> list[NDArray[np.uint8]]:
    sampling = part.sampling or VideoSampling()
    if sampling.temporal_resolution is None:
        sampling = replace(sampling, temporal_resolution=FRAMES)
    frames = [frame.pixels for frame in media.frames(part, sampling)]
    if not frames:
        raise InputError("the film has no frames", where=part.where)
    return frames


def chat_template(checkpoint: Checkpoint, tokenizer: Any) -> str | None:
    """The checkpoint's own template, in Jinja; None where it has none."""
    found = getattr(tokenizer, "chat_template", None)
    if checkpoint.has(TEMPLATE):
        found = checkpoint.json(TEMPLATE).get("chat_template", found)
    return found if isinstance(found, str) else None


def render(
    tokenizer: Any,
    template: str | None,
    messages: Sequence[Mapping[str, Any]],
    own: Callable[[Sequence[Mapping[str, Any]]], str],
) -> str:
    """The prompt for ``messages``, by the checkpoint's template, else by ``own``.

    Raises:
        InputError: the template refuses the messages (roles in an order that it does not take).
        BrokenFile: the template itself is damaged.
    """
    if template is None:
        return own(messages)
    from jinja2 import TemplateError, TemplateSyntaxError

    try:
        return str(
            tokenizer.apply_chat_template(
                list(messages), chat_template=template, tokenize=False, add_generation_prompt=True
            )
        )
    except TemplateSyntaxError as error:
        raise BrokenFile(f"its chat template is damaged: {error}") from error
    except TemplateError as error:
        raise InputError(f"the model's chat template refuses the messages: {error}") from error


def end_tokens(checkpoint: Checkpoint, tokenizer: Any, ends: Sequence[str]) -> frozenset[int]:
    """Ids that end an answer: what the checkpoint says, and those of ``ends`` that it knows."""
    found: set[int] = set()
    said: list[Any] = [tokenizer.eos_token_id, checkpoint.config.get("eos_token_id")]
    if checkpoint.has(GENERATION):
        said.append(checkpoint.json(GENERATION).get("eos_token_id"))
    for value in said:
        found |= set(value) if isinstance(value, list) else {value}
    known = tokenizer.get_vocab()
    found |= {known[token] for token in ends if token in known}
    return frozenset(int(token) for token in found if token is not None)


def token_of(tokenizer: Any, token: int, checkpoint: Checkpoint) -> str:
    """The written form of a token that the configuration names.

    Raises:
        InputError: the tokenizer has no such token.
    """
    known = 0 <= token < len(tokenizer)
    written = tokenizer.convert_ids_to_tokens(token) if known else None
    if not isinstance(written, str):
        raise InputError(
            f"the tokenizer has no token {token}, which config.json names",
            where=checkpoint.name,
            next_step="config.json and tokenizer are of different models; download again",
        )
    return written
