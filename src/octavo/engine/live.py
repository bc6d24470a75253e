"""A request from the moment it is asked until its completion is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from octavo.engine.sequence import Ending
from octavo.models.model import failure_of
from octavo.requests import Completion, Finish, Usage
from octavo.types import Attempt, Failure

if TYPE_CHECKING:
    from octavo.engine.runner import Prompt
    from octavo.engine.sampling import Chooser
    from octavo.engine.sequence import Job
    from octavo.engine.tower import Medium
    from octavo.models.family import Guard, Prepared
    from octavo.requests import Request

_FINISHES: Mapping[Ending, Finish] = {
    Ending.STOP: Finish.STOP,
    Ending.LENGTH: Finish.LENGTH,
    Ending.CANCELLED: Finish.CANCELLED,
    Ending.EXPIRED: Finish.ERROR,
    Ending.FAILED: Finish.ERROR,
}


@dataclass(slots=True, eq=False)
class Live:
    """One request under way.

    Attributes:
        done: is told the completion, once.
        job: what the scheduler knows of it; ``chooser`` its tokens so far.
        prompt: positions; ``media`` what its towers have to look at, by key; let go of when they
            have, and opened again by ``reopen`` where features were lost.
        failure: why it ends as an error.
        room: is told when its pixels are let go of.
        attempts: what was given up for it, or while it was running.
        timings: seconds: ``prepare``; ``first_token`` from then; ``generate`` in all.
    """

    request: Request
    guard: Guard
    done: Callable[[Completion], None]
    prepared: Prepared
    job: Job
    prompt: Prompt
    media: Mapping[bytes, Medium]
    reopen: Callable[[], Mapping[bytes, Medium]]
    chooser: Chooser
    timings: dict[str, float]
    failure: Failure | None = None
    room: Callable[[], None] = lambda: None
    attempts: list[Attempt] = field(default_factory=list)
    _began: float = field(default_factory=time.perf_counter)

    @property
    def input_bytes(self) -> int:
        """Of pixels that are held for it."""
        return sum(medium.pixels.nbytes for medium in self.media.values())

    def medium(self, key: bytes) -> Medium:
        """
        Raises:
            OctavoError: it was let go of, and cannot be opened any more.
        """
        if key not in self.media:
            self.media = self.reopen()
        return self.media[key]

    def let_go(self) -> None:
        """Its media have been looked at."""
        self.media = {}
        self.prepared = replace(self.prepared, inputs={})

    def told(self, token: int) -> None:
        """Tells whoever asked of a token of the answer."""
        if "first_token" not in self.timings:
            self.timings["first_token"] = time.perf_counter() - self._began
        self.guard.token(token)

    def again(self, guard: Guard, done: Callable[[Completion], None], tokens: int) -> None:
        """It goes on where it was cut."""
        self.chooser.extend(tokens)
        self.guard, self.done = guard, done
        self._began = time.perf_counter()
        self.timings = {"prepare": 0.0}

    def completion(self, ending: Ending) -> Completion:
        """What came of it."""
        self.timings["generate"] = time.perf_counter() - self._began
        failure, text = self.failure, ""
        if ending is Ending.EXPIRED:
            failure = Failure(
                "DeadlineExceeded",
                "the answer was not complete at its deadline",
                "give it more time, or ask for fewer tokens",
            )
        try:
            text = self.chooser.text
        # The place that isolates a request: tokens that make no text are its own.
        except Exception as error:  # noqa: BLE001
            failure = failure or failure_of(error)
        finish = _FINISHES[ending]
        if finish is Finish.STOP and self.chooser.looped:
            finish = Finish.LOOP
        return Completion(
            self.request.id,
            text=text,
            tokens=tuple(self.chooser.tokens),
            finish=finish if failure is None else Finish.ERROR,
            usage=Usage(
                self.prepared.prompt_tokens, self.prepared.media_tokens, len(self.chooser.tokens)
            ),
            timings=self.timings,
            attempts=tuple(self.attempts),
            failure=failure,
        )
