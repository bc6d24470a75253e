"""The next token of every answer in a step: rows of a mixed batch, each by its own rules.

A row is chosen as transformers' ``generate`` chooses it for the request alone: the model's own
settings first, by transformers' own processors, then the form of the answer, then chance.

Shape letters: b rows, t tokens, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from octavo.engine.recovery_faults import out_of_memory
from octavo.engine.sampling_rules import Rule, rules_of
from octavo.errors import ConfigError, OctavoError
from octavo.models.generation import Chance, settings_for
from octavo.models.loops import Loops
from octavo.models.streamed import Text

if TYPE_CHECKING:
    from transformers import GenerationConfig

    from octavo.models.constraints import Matcher
    from octavo.models.family import Processor
    from octavo.requests import Request


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen for one row.

    Attributes:
        token: its id; -1 with a ``failure``.
        stopped: whether the answer is complete with it.
        said: whether it is a part of the answer; an end token is not.
        failure: why there is no token; the request cannot go on, the others can.
    """

    token: int
    stopped: bool = False
    said: bool = True
    failure: OctavoError | None = None


class Chooser:
    """Chooses the tokens of one request and knows what was said so far. For one thread at a time.

    It outlives what a request loses in the engine: keys and values may be computed again, a step
    repeated because it failed; a token is chosen once.

    Args:
        own: the model's settings for generation; they are not changed.
        processor: of the model.
        request: what is asked.
        prompt: ids as transformers' ``generate`` is given them: those that stand for media
            included, none where it is given embeddings alone.
        matcher: of the request's form, at its beginning; None where it may say anything.
        device: where the logits are.

    Attributes:
        tokens: the answer so far, without an end token.
        stopped: whether it is complete; ``looped``: because it said the same over and over.

    Raises:
        ValueError: transformers refuses the model's settings.
    """

    def __init__(
        self,
        own: GenerationConfig,
        processor: Processor,
        request: Request,
        prompt: Sequence[int],
        matcher: Matcher | None = None,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        sampling = request.sampling
        self.id = request.id
        self.tokens: list[int] = []
        self.stopped = self.looped = False
        self._own, self._processor, self._sampling = own, processor, sampling
        self._ends = processor.end_tokens
        self._stops = _Stops(processor, sampling.stop) if sampling.stop else None
        self._loops = Loops(sampling.loop_limit) if sampling.loop_limit else None
        self._matcher = matcher
        self._chance = None if sampling.greedy else Chance(sampling)
        self._place: torch.Tensor | None = None
        self._most = request.max_new_tokens
        self._prompt_1t = torch.tensor([*prompt], dtype=torch.long, device=device)[None]
        self._ids_1t, self._written = self._prompt_1t, len(prompt)
        self._rules = self._made()

    @property
    def plain(self) -> bool:
        """Whether the likeliest token is taken, whatever was said before."""
        return not self._rules

    @property
    def text(self) -> str:
        """The answer so far, up to the first stop string."""
        text = self._processor.decode(self.tokens)
        ends = [text.find(stop) for stop in self._sampling.stop if stop in text]
        return text[: min(ends)] if ends else text

    def choose(self, logits_v: torch.Tensor) -> Choice:
        """The next token; it is a part of the answer from then on.

        Args:
            logits_v: those after the last token; they are not changed.

        Raises:
            OctavoError: there is none.
        """
        (choice,) = choose_all([self], logits_v[None])
        if choice.failure is not None:
            raise choice.failure
        return choice

    def extend(self, tokens: int) -> None:
        """An answer that was cut may have so many more tokens; they are those that it would have
        had, had all been asked for at once.

        Raises:
            ConfigError: the answer is complete, or no token is asked for.
        """
        if self.stopped or tokens < 1:
            raise ConfigError(
                "the answer is complete" if self.stopped else "no token is asked for",
                where=self.id,
                next_step="ask for at least one token more of an answer that was cut",
            )
        self._most += tokens
        self._rules = self._made()

    def _made(self) -> list[Rule]:
        settings = settings_for(self._own, self._processor, self._most, self._sampling)
        return rules_of(settings, self._prompt_1t, self._matcher, self._chance)

    def _ids(self) -> torch.Tensor:
        """Prompt and answer, shape (1, t): a view of a place with room for what is to come."""
        start, length = self._prompt_1t.shape[1], self._prompt_1t.shape[1] + len(self.tokens)
        room = start + self._most
        if self._ids_1t.shape[1] < room:
            more_1t = self._prompt_1t.new_zeros(1, room - self._written)
            self._ids_1t = torch.cat([self._ids_1t[:, : self._written], more_1t], -1)
        if self._written < length:
            new = self.tokens[self._written - start :]
            self._ids_1t[0, self._written : length] = self._ids_1t.new_tensor(new)
            self._written = length
        return self._ids_1t[:, :length]

    def _pick(self, logits_v: torch.Tensor) -> torch.Tensor:
        """The id of what comes next, shape (). Nothing is said yet; :meth:`_unpick` undoes it."""
        if self._chance is not None:
            self._place = self._chance.place
        # A copy, because rules write into it.
        scores_1v = logits_v[None].to(torch.float32, copy=True)
        ids_1t = self._ids()
        for rule in self._rules:
            scores_1v = rule(ids_1t, scores_1v)
        return scores_1v[0].argmax()

    def _unpick(self) -> None:
        if self._chance is not None:
            self._chance.back(self._place)

    def _said(self, picked: int | Exception) -> Choice:
        """What was picked is part of the answer from now on."""
        try:
            if isinstance(picked, Exception):
                raise picked
            return self._say(picked)
        # This isolates a request: a token that cannot be taken ends its own answer only.
        except Exception as error:  # noqa: BLE001
            return Choice(-1, said=False, failure=_failure(self, error))

    def _say(self, token: int) -> Choice:
        if self._matcher is not None:
            self._matcher.advance(token)
            # Nothing more can come: an end token need not be computed.
            self.stopped = self._matcher.finished
        if token in self._ends:
            self.stopped = True
            return Choice(token, stopped=True, said=False)
        self.tokens.append(token)
        if self._stops is not None and self._stops.came(token):
            self.stopped = True
        elif self._loops is not None and self._loops.came(token):
            self.stopped = self.looped = True
        return Choice(token, stopped=self.stopped)


class _Stops:
    """Watches for strings that end an answer."""

    def __init__(self, processor: Processor, stop: Sequence[str]) -> None:
        self._text = Text(processor.decode)
        self._stop = stop
        self._longest = max(map(len, stop))

    def came(self, token: int) -> bool:
        """Whether one is there with this token."""
        known = len(self._text.text)
        text = self._text.add(token)
        # One that was whole before would have ended the answer then.
        return any(text.find(stop, max(0, known - self._longest)) >= 0 for stop in self._stop)


@torch.inference_mode()
def choose_all(choosers: Sequence[Chooser], logits_bv: torch.Tensor) -> list[Choice]:
    """The next token of each; where no form is held to, one question to the device for all rows.

    Args:
        choosers: one a row, none of them stopped.
        logits_bv: those after each one's last token, in any floating type; they are not changed.

    Returns:
        One choice a row, in order. A row that fails takes no other with it.

    Raises:
        MemoryError, torch.OutOfMemoryError, RuntimeError: no memory is left. Nothing was chosen;
            asked again with the same logits, the choices are those that would have been.
    """
    begun: list[Chooser] = []
    try:
        picked = _picked(choosers, logits_bv, begun)
    except BaseException:
        for chooser in begun:
            chooser._unpick()
        raise
    return [chooser._said(token) for chooser, token in zip(choosers, picked, strict=True)]


def _picked(
    choosers: Sequence[Chooser], logits_bv: torch.Tensor, begun: list[Chooser]
) -> list[int | Exception]:
    """The token of each row, or why there is none; ``begun`` gets those that may have drawn."""
    own: dict[int, torch.Tensor] = {}
    failed: dict[int, Exception] = {}
    for row, chooser in enumerate(choosers):
        if chooser.plain:
            continue
        begun.append(chooser)
        try:
            own[row] = chooser._pick(logits_bv[row])
        # This isolates a request: whatever its rules raise is its own.
        except Exception as error:
            if out_of_memory(error):
                raise
            failed[row] = error
    if len(begun) < len(choosers):
        # Of equal ones the first, as argmax has it, which is slower in half precision.
        tokens_b = logits_bv.max(-1).indices
    else:
        tokens_b = torch.zeros(len(choosers), dtype=torch.long, device=logits_bv.device)
    for row, token in own.items():
        tokens_b[row] = token
    return [failed.get(row, token) for row, token in enumerate(tokens_b.tolist())]


def _failure(chooser: Chooser, error: Exception) -> OctavoError:
    if isinstance(error, OctavoError):
        return error
    failure = OctavoError(f"no token could be chosen: {error}", where=chooser.id)
    failure.__cause__ = error
    return failure
