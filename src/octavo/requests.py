"""What is asked of a model and what it answers: the words that models and their callers share.

Nothing here decodes a file or holds a tensor of a model: a :class:`Part` names its picture, sound
or film, a :class:`MediaReader` opens it, and a :class:`Generator` answers. Local models, remote
servers and test doubles all speak these types.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import octavo.errors
from octavo.errors import ConfigError, OctavoError
from octavo.response import ResponseForm
from octavo.types import Attempt, Failure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ids = itertools.count(1)


class Modality(StrEnum):
    """What a part is made of."""

    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"


class InputMode(StrEnum):
    """Which towers a request needs; follows from its parts."""

    LANGUAGE = "language"
    VISION = "vision"
    SPEECH = "speech"
    VISION_SPEECH = "vision-speech"

    @classmethod
    def of(cls, kinds: Iterable[Modality]) -> InputMode:
        """The mode for a request with parts of these kinds."""
        kinds = set(kinds)
        sees, hears = bool(kinds & {Modality.IMAGE, Modality.VIDEO}), Modality.AUDIO in kinds
        if sees and hears:
            return cls.VISION_SPEECH
        return cls.VISION if sees else cls.SPEECH if hears else cls.LANGUAGE


@dataclass(frozen=True, slots=True)
class VideoSampling:
    """Which frames of a film a model sees.

    Attributes:
        strategy: ``uniform`` spreads ``temporal_resolution`` frames evenly over each segment;
            ``rate`` takes ``fps`` frames a second, thinned to ``temporal_resolution``; ``scene``
            takes the first frame of every scene and fills up evenly.
        temporal_resolution: frames of one segment, at least 1; None leaves it to the family.
        fps: frames a second for ``rate``.
        segment_s: longer films are cut into segments of this many seconds; None never cuts.
    """

    strategy: Literal["uniform", "rate", "scene"] = "uniform"
    temporal_resolution: int | None = None
    fps: float = 1.0
    segment_s: float | None = None

    def __post_init__(self) -> None:
        if self.strategy not in ("uniform", "rate", "scene"):
            raise ConfigError(
                f"no sampling {self.strategy!r} of video frames",
                next_step="use uniform, rate or scene",
            )
        if self.temporal_resolution is not None and self.temporal_resolution < 1:
            raise ConfigError("temporal_resolution must be at least 1")
        if not self.fps > 0 or (self.segment_s is not None and not self.segment_s > 0):
            raise ConfigError("fps and segment_s must be above 0")


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One piece of a message.

    Attributes:
        kind: what it is.
        value: the text; or where the medium is: a path, the bytes of a file, or decoded arrays
            (picture: ``uint8`` height × width × 3, or a Pillow image; sound: a pair of
            ``float32`` samples in [-1, 1] and their rate in Hz; film: a sequence of pictures).
        sampling: of a film; None leaves it to the family.
    """

    kind: Modality
    value: Any
    sampling: VideoSampling | None = None

    @classmethod
    def text(cls, words: str) -> Part:
        return cls(Modality.TEXT, words)

    @classmethod
    def image(cls, source: Any) -> Part:
        return cls(Modality.IMAGE, source)

    @classmethod
    def audio(cls, source: Any) -> Part:
        return cls(Modality.AUDIO, source)

    @classmethod
    def video(cls, source: Any, sampling: VideoSampling | None = None) -> Part:
        return cls(Modality.VIDEO, source, sampling)

    @property
    def where(self) -> str:
        """The file's name, or what else the part is, for messages."""
        return str(self.value) if isinstance(self.value, str | Path) else f"{self.kind} in memory"


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """What one side said: ``role`` is ``system``, ``user`` or ``assistant``."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if self.role not in ("system", "user", "assistant"):
            raise ConfigError(
                f"no role {self.role!r} in a conversation",
                next_step="use system, user or assistant",
            )


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen; the default takes the likeliest (greedy).

    Attributes:
        temperature: 0 is greedy.
        top_p: the smallest set of tokens whose probabilities reach this.
        top_k: at most this many of the likeliest; 0 is all.
        repetition_penalty: above 1 makes tokens that were there less likely (Keskar et al. 2019).
        seed: makes sampling repeatable.
        stop: strings that end the answer; they are not part of it.
        loop_limit: an answer that says the same up to 512 tokens so many times in a row ends there,
            as ``Finish.LOOP``; 0 lets it go on to ``max_new_tokens``.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    loop_limit: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf or not 0 < self.top_p <= 1 or self.top_k < 0:
            raise ConfigError(
                "temperature must be 0 or more, top_p in (0, 1], top_k 0 or more",
                where=f"temperature {self.temperature}, top_p {self.top_p}, top_k {self.top_k}",
            )
        if not 0 < self.repetition_penalty < math.inf:
            raise ConfigError("repetition_penalty must be above 0; 1 is none")
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise ConfigError("seed must be 0 or more, and below 2 ** 63", where=str(self.seed))
        if isinstance(self.stop, str) or not all(self.stop):
            raise ConfigError(
                "stop must be a tuple of strings, none of them empty", where=repr(self.stop)
            )
        if self.loop_limit < 0 or self.loop_limit == 1:
            raise ConfigError(
                "loop_limit must be 2 or more, or 0 for none", where=str(self.loop_limit)
            )

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """One question.

    Attributes:
        messages: oldest first; the last is the user's.
        max_new_tokens: of the answer.
        sampling: how tokens are chosen.
        response: the form that the answer must have. An answer that ``max_new_tokens`` cuts short
            has it not: ``response.is_whole(completion.text)`` tells.
        priority: of requests that wait, the higher goes first.
        deadline: seconds from now until which it must be answered; later it fails.
        keep: whether what was computed stays, so that an answer that ``max_new_tokens`` cut can be
            continued with ``model.extend``.
        id: comes back with the completion; made up when it is not given.
    """

    messages: tuple[Message, ...]
    max_new_tokens: int = 256
    sampling: Sampling = field(default_factory=Sampling)
    response: ResponseForm | None = None
    priority: int = 0
    deadline: float | None = None
    keep: bool = False
    id: str = field(default_factory=lambda: f"request-{next(_ids)}")

    def __post_init__(self) -> None:
        if not self.messages or not any(message.parts for message in self.messages):
            raise ConfigError("a request without a message", where=self.id)
        if not hasattr(self.max_new_tokens, "__index__") or self.max_new_tokens < 1:
            raise ConfigError("max_new_tokens must be a whole number, at least 1", where=self.id)
        if self.deadline is not None and not self.deadline > 0:
            raise ConfigError("deadline must be above 0 seconds", where=self.id)
        if self.response is not None and self.sampling.stop:
            raise ConfigError(
                "a stop string could cut an answer before it has its form",
                where=self.id,
                next_step="give a response or stop strings, not both",
            )

    @classmethod
    def of(
        cls, *parts: Part | str, system: str | None = None, max_new_tokens: int = 256, **other: Any
    ) -> Request:
        """One message of the user; strings are text.

        ``Request.of(Part.image("a.png"), "What is in it?")``
        """
        said = tuple(Part.text(part) if isinstance(part, str) else part for part in parts)
        before = () if system is None else (Message("system", (Part.text(system),)),)
        return cls((*before, Message("user", said)), max_new_tokens=max_new_tokens, **other)

    @property
    def parts(self) -> tuple[Part, ...]:
        """All parts of all messages, in order."""
        return tuple(part for message in self.messages for part in message.parts)

    @property
    def mode(self) -> InputMode:
        return InputMode.of(part.kind for part in self.parts)


class Finish(StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    LOOP = "loop"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens; ``media_tokens`` is the share of ``prompt_tokens`` that pictures and sound take."""

    prompt_tokens: int = 0
    media_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """The one answer to a request.

    Attributes:
        request_id: of the request.
        text, tokens: the answer without stop strings; its token ids.
        finish: why it ended; with ``ERROR`` the ``failure`` says what happened.
        timings: seconds by stage: ``prepare``, ``generate``.
        attempts: what was tried or given up on the way.
    """

    request_id: str
    text: str = ""
    tokens: tuple[int, ...] = ()
    finish: Finish = Finish.STOP
    usage: Usage = field(default_factory=Usage)
    timings: Mapping[str, float] = field(default_factory=dict, compare=False)
    attempts: tuple[Attempt, ...] = ()
    failure: Failure | None = None

    def check(self) -> Completion:
        """Itself.

        Raises:
            OctavoError: its failure, of the class that it names where that is one of Octavo's.
        """
        if self.failure is not None:
            kind = getattr(octavo.errors, self.failure.error, OctavoError)
            raise kind(self.failure.what, next_step=self.failure.next_step)
        return self


@dataclass(frozen=True, slots=True)
class Segment:
    """Words spoken between two times, in seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said; ``language`` is an ISO 639-1 code, empty where nothing is said; ``seconds`` is
    the length of the sound."""

    segments: tuple[Segment, ...]
    language: str
    seconds: float

    @property
    def text(self) -> str:
        return " ".join(segment.text.strip() for segment in self.segments)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A picture of a film: ``pixels`` are ``uint8`` height × width × 3, ``seconds`` from its start;
    ``segment`` counts from 0."""

    seconds: float
    pixels: NDArray[np.uint8]
    segment: int = 0


class MediaReader(Protocol):
    """Opens what parts name. Errors are ``InputError`` with the part's ``where``."""

    def picture(self, part: Part) -> NDArray[np.uint8]:
        """``uint8`` height × width × 3, upright, RGB."""
        ...

    def sound(self, part: Part, rate: int) -> NDArray[np.float32]:
        """Mono samples in [-1, 1] at ``rate`` Hz, shape (samples,)."""
        ...

    def frames(self, part: Part, sampling: VideoSampling) -> Iterator[Frame]:
        """The frames that ``sampling`` chooses, in order, one at a time."""
        ...


class Generator(Protocol):
    """Answers requests; one completion each, in order of completion.

    A request that cannot be answered is a completion with a ``failure``; it never takes others
    with it.
    """

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]: ...

    def close(self) -> None: ...


class Embedder(Protocol):
    """Turns parts into vectors whose dot product is their likeness."""

    def embed(self, parts: Sequence[Part]) -> NDArray[np.float32]:
        """Shape (parts, dimensions), rows of length 1."""
        ...

    def close(self) -> None: ...
