"""What the runner does in one step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from octavo.engine.sequence import Ending, Media, Sequence


@dataclass(frozen=True, slots=True)
class Slice:
    """Tokens of one sequence to compute: ``count`` of them from position ``start``.

    ``sequence.blocks`` has a place for each, and holds the keys and values of all before them.
    """

    sequence: Sequence
    start: int
    count: int

    @property
    def id(self) -> str:
        return self.sequence.id

    @property
    def end(self) -> int:
        return self.start + self.count

    @property
    def samples(self) -> bool:
        """Whether it reaches the last token, so that the next one is chosen."""
        return self.end == self.sequence.length

    @property
    def decodes(self) -> bool:
        """Whether it only computes the token that was chosen last."""
        return self.count == 1 and self.samples and self.sequence.generated > 0

    @property
    def media(self) -> Iterator[Media]:
        """Media whose features it needs."""
        return self.sequence.media_in(self.start, self.end)


@dataclass(frozen=True, slots=True)
class Copy:
    """The first ``tokens`` of block ``source`` go to block ``target``."""

    source: int
    target: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Move:
    """Blocks of a sequence to or from the host.

    Attributes:
        id: of the sequence.
        blocks: numbers on the device, in the order of the tokens.
        first: what ``blocks[0]`` is among the sequence's blocks on the host.
        tokens: that the sequence has on the host, from its beginning.
    """

    id: str
    blocks: tuple[int, ...]
    first: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Fork:
    """``sequence`` goes on from the first ``tokens``, which sequence ``parent`` has computed."""

    sequence: Sequence
    parent: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Preempted:
    """A sequence that gave way. ``parked``: its blocks are saved; else they are computed again."""

    id: str
    parked: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """A sequence that is over; each ends once."""

    sequence: Sequence
    ending: Ending

    @property
    def id(self) -> str:
        return self.sequence.id


@dataclass(slots=True, eq=False)
class Step:
    """One pass through the model. The lists are done in this order, each from its beginning.

    The order matters: a block that is saved or copied from may be the target of a later list.
    What is ``ended``, ``dropped`` and ``unseen`` is so even if the step is abandoned.

    Attributes:
        number: counts from 1.
        ended: were cancelled or are past their deadline; nothing is computed for them.
        dropped: ids whose blocks on the host are no longer needed.
        unseen: media keys whose features no sequence holds any longer.
        preempted: gave way in this step.
        saves: blocks to keep on the host, for those that are parked.
        forks: begin with what another one has computed. Their blocks say so already; this is for
            those who keep keys and values by sequence.
        copies: blocks that a sequence takes over from a shared one.
        restores: blocks to bring back; the copies on the host are not needed after that.
        prefills: parts of prompts, and what is computed again after a preemption.
        decodes: one token each.
    """

    number: int
    ended: list[Ended] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    unseen: list[bytes] = field(default_factory=list)
    preempted: list[Preempted] = field(default_factory=list)
    saves: list[Move] = field(default_factory=list)
    forks: list[Fork] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)
    restores: list[Move] = field(default_factory=list)
    prefills: list[Slice] = field(default_factory=list)
    decodes: list[Slice] = field(default_factory=list)

    @property
    def slices(self) -> list[Slice]:
        """All that is computed: decodes, then prefills."""
        return [*self.decodes, *self.prefills]

    @property
    def tokens(self) -> int:
        """Tokens that are computed."""
        return len(self.decodes) + sum(part.count for part in self.prefills)

    def add(self, part: Slice) -> None:
        (self.decodes if part.decodes else self.prefills).append(part)
