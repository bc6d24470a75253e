"""One request as the scheduler sees it: counts, positions and block numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from octavo.engine.blocks import chain
from octavo.errors import ConfigError


class Status(StrEnum):
    """Where a sequence is in its life."""

    WAITING = "waiting"
    RUNNING = "running"
    PREEMPTED = "preempted"
    FINISHED = "finished"


class Ending(StrEnum):
    """Why a sequence ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    FAILED = "failed"

    @property
    def whole(self) -> bool:
        """Whether the answer is what was asked for, and can be continued."""
        return self in (Ending.STOP, Ending.LENGTH)


@dataclass(frozen=True, slots=True)
class Media:
    """A picture, sound or film in the prompt.

    Attributes:
        start, tokens: its place among the tokens of the prompt.
        key: names its content and all settings that its features follow from.
        nbytes: of its features, which must be in memory until its last token is computed.
    """

    start: int
    tokens: int
    key: bytes
    nbytes: int = 0

    @property
    def end(self) -> int:
        return self.start + self.tokens


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What the scheduler is asked to run.

    Attributes:
        id: unlike that of every job that is not over.
        tokens: ids of the prompt, those that stand for media included.
        max_new_tokens: of the answer.
        media: in order of their places, without overlap.
        priority: higher goes first.
        deadline: in seconds of the scheduler's clock; later it ends as ``EXPIRED``.
        root: KV blocks are shared only with jobs whose root is the same.
        keep: whether the blocks stay when it ends, so that it can be continued.
        after: id of a kept job whose tokens this prompt begins with.
    """

    id: str
    tokens: tuple[int, ...]
    max_new_tokens: int
    media: tuple[Media, ...] = ()
    priority: int = 0
    deadline: float | None = None
    root: bytes = b""
    keep: bool = False
    after: str | None = None

    def __post_init__(self) -> None:
        if not self.tokens or self.max_new_tokens < 1:
            raise ConfigError("a job needs a prompt and a token to make", where=self.id)
        end = 0
        for medium in self.media:
            if medium.start < end or medium.tokens < 1 or medium.nbytes < 0:
                raise ConfigError("media out of order, overlapping or empty", where=self.id)
            end = medium.end
        if end > len(self.tokens):
            raise ConfigError("a medium goes past the end of the prompt", where=self.id)


@dataclass(slots=True, eq=False)
class Sequence:
    """A job and how far it is.

    Attributes:
        job: what was asked.
        arrival: the step before which it came.
        rank: lower goes first; see :meth:`Scheduler.add`.
        limit, deadline: tokens that the answer may have; when it must be over.
        tokens: the prompt and the answer so far.
        computed: tokens whose keys and values are in ``blocks``.
        parked: tokens whose keys and values were saved on the host when it was preempted.
        sealed: blocks whose content is final and was made known for sharing.
        holding: media whose features are held for it.
        shared: tokens that did not have to be computed because blocks were shared.
        preemptions, lost: how often it gave way; tokens whose keys and values were given up by it.
    """

    job: Job
    arrival: int
    rank: tuple[float, int]
    limit: int = 0
    deadline: float | None = None
    tokens: list[int] = field(default_factory=list)
    blocks: list[int] = field(default_factory=list)
    holding: list[Media] = field(default_factory=list)
    status: Status = Status.WAITING
    ending: Ending | None = None
    computed: int = 0
    parked: int = 0
    sealed: int = 0
    shared: int = 0
    preemptions: int = 0
    lost: int = 0
    _keys: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.limit = self.job.max_new_tokens
        self.deadline = self.job.deadline
        self.tokens = list(self.job.tokens)

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def length(self) -> int:
        return len(self.tokens)

    @property
    def pending(self) -> int:
        """Tokens to compute before the next one can be chosen; 1 while it decodes."""
        return self.length - self.computed

    @property
    def prompt_tokens(self) -> int:
        return len(self.job.tokens)

    @property
    def media_tokens(self) -> int:
        return sum(medium.tokens for medium in self.job.media)

    @property
    def feature_bytes(self) -> int:
        """Bytes of features that are held for it now."""
        return sum(medium.nbytes for medium in self.holding)

    @property
    def generated(self) -> int:
        return self.length - self.prompt_tokens

    @property
    def most(self) -> int:
        """Tokens whose keys and values it can come to hold: the last one needs none."""
        return self.prompt_tokens + self.limit - 1

    def media_in(self, start: int, end: int) -> Iterator[Media]:
        """Media with a token at ``start`` or later and before ``end``."""
        return (m for m in self.job.media if m.start < end and m.end > start)

    def key(self, index: int, size: int) -> bytes:
        """The key of its full block ``index``; ``size`` tokens a block."""
        while len(self._keys) <= index:
            start = len(self._keys) * size
            self._keys.append(self.key_of(start, start + size, size))
        return self._keys[index]

    def key_of(self, start: int, end: int, size: int) -> bytes:
        """Names the content from ``start``, where a block begins, to ``end`` in that block."""
        previous = self.key(start // size - 1, size) if start else self.job.root
        media = ((m.start - start, m.tokens, m.key) for m in self.media_in(start, end))
        return chain(previous, self.tokens[start:end], media)
