"""Answers many requests at a time over one pass through the weights, within one budget.

Callers prepare their requests in their own threads; one thread computes, step by step, as the
scheduler says. It starts with the first request and ends when there has been none for a while.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from octavo.engine.compute import Compute
from octavo.engine.live import Live
from octavo.engine.recovery import GivenUp, Ladder, Shortage, guarded, insist
from octavo.engine.sampling import Choice
from octavo.engine.sequence import Ending
from octavo.engine.stats import EngineStats
from octavo.engine.step import Ended, Slice, Step
from octavo.errors import BudgetExceeded, ConfigError, ReleasedError
from octavo.models.family import Guard
from octavo.models.model import failure_of
from octavo.requests import Completion, Finish
from octavo.types import Attempt, Failure

if TYPE_CHECKING:
    from octavo.engine.intake import Intake
    from octavo.engine.relief import EngineRelief
    from octavo.engine.scheduler import Scheduler
    from octavo.engine.watch import MemoryWatch
    from octavo.requests import Request

#: Requests that are prepared ahead of those that can run.
_AHEAD: Final = 4
#: Seconds without work after which the thread ends.
_LINGER: Final = 1.0
Told = Callable[[Completion], None]


class Engine:
    """
    Args:
        intake: prepares requests.
        scheduler: its books are this engine's alone.
        compute: runs steps.
        relief: what can be given up when memory runs out.
        watch: of the memory that the budget is about.
        turn: held while something is computed; others use the module between steps.
        input_room: bytes of pixels that may wait for the tower; a request alone may have more.
    """

    def __init__(
        self,
        intake: Intake,
        scheduler: Scheduler,
        compute: Compute,
        relief: EngineRelief,
        watch: MemoryWatch,
        turn: threading.Lock,
        input_room: int,
    ) -> None:
        self._intake, self._scheduler, self._compute = intake, scheduler, compute
        self._relief, self._watch = relief, watch
        self._ladder, self._given_up = Ladder(relief), GivenUp()
        self._module_turn = turn
        self._live: dict[str, Live] = {}
        self._kept: dict[str, Live] = {}
        self._stats = EngineStats()
        # What other threads hand to the computing one, and whether it should end.
        self._wake = threading.Condition()
        self._inbox: list[Callable[[], None]] = []
        self._thread: threading.Thread | None = None
        self._closed = False
        self._broken: Failure | None = None
        self._input_bytes, self._input_room = 0, input_room

    # For callers, from any thread.

    def generate(
        self, requests: Iterable[Request], *, cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[Completion]:
        """One completion for each request, in order of completion. Requests are taken from the
        iterable as there is room for them. Whoever stops iterating cancels what is under way."""
        told: SimpleQueue[Completion | None] = SimpleQueue()
        abandoned = threading.Event()
        guard = Guard(cancelled=lambda: abandoned.is_set() or cancelled())
        source, open_ = iter(requests), 0
        more = True
        try:
            while more or open_:
                while more and told.empty() and self._takes_more(open_):
                    request = next(source, None)
                    more = request is not None
                    if request is not None:
                        open_ += 1
                        self._ask(request, guard, told.put, lambda: told.put(None))
                done = told.get() if open_ else None
                if done is not None:
                    open_ -= 1
                    yield done
        finally:
            abandoned.set()
            self._nudge()

    def _takes_more(self, open_: int) -> bool:
        """Whether another request may be prepared: as many as can run and a few more, and no more
        pixels than there is room for."""
        few = open_ < self._scheduler.limits.max_running + _AHEAD
        return few and (not open_ or self._input_bytes < self._input_room)

    def answer(self, request: Request, guard: Guard) -> Completion:
        """The completion of one request."""
        told: SimpleQueue[Completion] = SimpleQueue()
        self._ask(request, guard, told.put)
        return told.get()

    def extend(
        self, request_id: str, max_new_tokens: int, guard: Guard | None = None
    ) -> Completion:
        """Goes on with an answer that was cut, from its keys and values.

        Raises:
            ConfigError: it was not kept, is complete, or was forgotten.
        """
        told: SimpleQueue[Completion | Exception] = SimpleQueue()
        self._send(lambda: self._resume(request_id, max_new_tokens, guard or Guard(), told.put))
        done = told.get()
        if isinstance(done, Exception):
            raise done
        return done

    def forget(self, request_id: str) -> None:
        """Lets a kept answer's keys and values go. Harmless when there is none."""
        self._send(lambda: self._drop(request_id))

    def stats(self) -> EngineStats:
        """What it did so far."""
        return replace(self._compute.facts(self._stats), phases=self._watch.phases)

    def close(self) -> None:
        """Ends what is under way as failed and gives all memory back. Harmless when repeated."""
        with self._wake:
            self._closed = True
            thread = self._thread
            self._wake.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        for act in self._taken():
            act()
        for live in list(self._live.values()):
            self._finish(live, Ending.FAILED, _gone())
        self._compute.close()

    def _ask(
        self,
        request: Request,
        guard: Guard,
        told: Told,
        room: Callable[[], None] = lambda: None,
    ) -> None:
        began = time.perf_counter()
        live: Live | None = None
        failure: Failure | None = None
        attempts: tuple[Attempt, ...] = ()
        try:
            outcome = insist(
                lambda: self._intake.take(request, guard, told), self._ease, stage="prepare"
            )
            live, attempts = outcome.value, outcome.attempts
            if outcome.shortage is not None:
                failure = outcome.shortage.failure()
        # The place that isolates a request: whatever preparing it raises is its own.
        except Exception as error:  # noqa: BLE001
            # What it was prepared with may have gone under its hands.
            failure = _gone() if self._closed else failure_of(error)
        if live is None:
            timings = {"prepare": time.perf_counter() - began}
            told(
                Completion(
                    request.id,
                    finish=Finish.ERROR,
                    timings=timings,
                    attempts=attempts,
                    failure=failure,
                )
            )
            return
        live.room = room
        live.attempts += attempts
        self._hold_inputs(live.input_bytes)
        self._send(lambda: self._enter(live))

    def _ease(self) -> None:
        """Has the computing thread let go of what lies idle, and waits until it has."""
        eased = threading.Event()

        def act() -> None:
            guarded(self._relief.drop_idle)
            eased.set()

        self._send(act)
        eased.wait()

    def _send(self, act: Callable[[], None]) -> None:
        """Has the computing thread do something between two steps."""
        with self._wake:
            self._inbox.append(act)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(
                    target=self._work, name="octavo-engine", daemon=True
                )
                self._thread.start()
            closed = self._closed
            self._wake.notify_all()
        if closed:
            for left in self._taken():
                left()

    def _hold_inputs(self, nbytes: int) -> None:
        with self._wake:
            self._input_bytes += nbytes

    def _nudge(self) -> None:
        with self._wake:
            self._wake.notify_all()

    # In the computing thread.

    def _work(self) -> None:
        while self._wait():
            for act in self._taken():
                act()
            try:
                if not self._idle:
                    with self._module_turn:
                        self._step()
            # A fault of the engine itself: nobody may wait for ever.
            except Exception as error:  # noqa: BLE001
                self._break(error)

    @property
    def _idle(self) -> bool:
        return self._broken is not None or self._scheduler.idle

    def _wait(self) -> bool:
        """Until there is something to do; False when the thread should end."""
        with self._wake:
            while not self._closed and not self._inbox and self._idle:
                if not self._wake.wait(_LINGER) and not self._inbox:
                    self._thread = None
                    self._watch.leave()
                    return False
            return not self._closed

    def _taken(self) -> list[Callable[[], None]]:
        with self._wake:
            acts, self._inbox = self._inbox, []
            return acts

    def _enter(self, live: Live) -> None:
        failure = _gone() if self._closed else self._broken
        if failure is None:
            try:
                self._scheduler.add(live.job)
            except (BudgetExceeded, ConfigError) as error:
                failure = failure_of(error)
        if failure is not None:
            live.failure = failure
            self._hold_inputs(-live.input_bytes)
            live.done(live.completion(Ending.FAILED))
            return
        self._live[live.job.id] = live

    def _resume(
        self,
        request_id: str,
        tokens: int,
        guard: Guard,
        told: Callable[[Completion | Exception], None],
    ) -> None:
        live = self._kept.get(request_id)
        try:
            if live is None or self._closed:
                raise ConfigError(
                    "no such answer is kept",
                    where=request_id,
                    next_step="ask with Request(..., keep=True)",
                )
            self._scheduler.resume(live.job.id, tokens)
            live.again(guard, told, tokens)
        except (BudgetExceeded, ConfigError) as error:
            told(error)
            return
        del self._kept[request_id]
        self._live[live.job.id] = live

    def _drop(self, request_id: str) -> None:
        live = self._kept.pop(request_id, None)
        if live is not None:
            self._scheduler.forget(live.job.id)
            self._compute.release(live.job.id)

    def _step(self) -> None:
        for live in list(self._live.values()):
            self._look(live)
        step = self._scheduler.step()
        for ended in step.ended:
            self._over(ended)
        self._shed("prefill" if step.prefills else "decode")
        began = time.perf_counter()
        outcome = self._compute.run(step, self._live)
        busy = time.perf_counter() - began
        self._stats = replace(
            self._stats,
            steps=self._stats.steps + bool(step.slices),
            busy_seconds=self._stats.busy_seconds + busy,
            preemptions=self._stats.preemptions + len(step.preempted),
        )
        if outcome.choices is not None:
            self._ladder.stood()
            rows = [part for part in step.slices if part.samples]
            self._settle(step, rows, outcome.choices)
        elif outcome.shortage is not None:
            self._relieve(step, outcome.shortage)
        else:
            self._apart(step)

    def _shed(self, phase: str) -> None:
        """What lies idle goes before an allocation fails or the kernel ends the process."""
        if self._watch.enter(phase):
            if guarded(self._relief.drop_idle).value is not None:
                self._stats = replace(self._stats, shed=self._stats.shed + 1)
            self._watch.relieved()

    def _look(self, live: Live) -> None:
        """Cancels a request that is no longer wanted."""
        try:
            if live.guard.cancelled():
                self._scheduler.cancel(live.job.id)
        # The place that isolates a request: the question is its caller's code.
        except Exception as error:  # noqa: BLE001
            live.failure = failure_of(error)
            self._scheduler.cancel(live.job.id)

    def _settle(
        self, step: Step, rows: list[Slice], choices: list[Choice], failed: Collection[str] = ()
    ) -> None:
        tokens: dict[str, int] = {}
        stopped: set[str] = set()
        failed = set(failed)
        for part, choice in zip(rows, choices, strict=True):
            live = self._live[part.id]
            if choice.failure is None and choice.said:
                self._tell(live, choice.token)
            if choice.failure is not None:
                live.failure = failure_of(choice.failure)
            if live.failure is not None:
                failed.add(part.id)
                continue
            tokens[part.id] = choice.token
            if choice.stopped:
                stopped.add(part.id)
        for part in step.prefills:
            self._seen(part)
        prompts = sum(part.count for part in step.prefills)
        self._stats = replace(
            self._stats,
            prompt_tokens=self._stats.prompt_tokens + prompts,
            answer_tokens=self._stats.answer_tokens + len(tokens),
        )
        for ended in self._scheduler.finished(step, tokens, stopped=stopped, failed=failed):
            self._over(ended)

    def _seen(self, part: Slice) -> None:
        """The pixels of a prompt whose media have all been computed are not needed any more."""
        live = self._live[part.id]
        if live.media and part.end >= max(medium.end for medium in live.job.media):
            self._hold_inputs(-live.input_bytes)
            live.let_go()
            live.room()

    def _tell(self, live: Live, token: int) -> None:
        try:
            live.told(token)
        # The place that isolates a request: who listens is its caller's code.
        except Exception as error:  # noqa: BLE001
            live.failure = failure_of(error)

    def _relieve(self, step: Step, shortage: Shortage) -> None:
        """Memory ran out: something is given up and the step planned anew, or who cannot be
        served fails."""
        attempt = self._ladder.climb(str(shortage))
        self._stats = replace(self._stats, relieved=self._stats.relieved + 1)
        if attempt is None:
            self._fail(step, shortage.failure())
            return
        self._given_up.note(attempt, [part.id for part in step.slices])
        self._scheduler.abandon(step)

    def _apart(self, step: Step) -> None:
        """A step broke off: its slices are run one by one, and who fails alone fails."""
        self._stats = replace(self._stats, failed_steps=self._stats.failed_steps + 1)
        failed: set[str] = set()
        rows: list[Slice] = []
        choices: list[Choice] = []
        for part in step.slices:
            alone = Step(step.number)
            alone.add(part)
            outcome = self._compute.run(alone, self._live)
            while outcome.shortage is not None:
                attempt = self._ladder.climb(str(outcome.shortage))
                if attempt is None:
                    break
                self._given_up.note(attempt, [part.id])
                outcome = self._compute.run(alone, self._live)
            live = self._live[part.id]
            if outcome.choices is None:
                shortage = outcome.shortage
                live.failure = shortage.failure() if shortage is not None else outcome.failure
                failed.add(part.id)
            elif part.samples:
                rows.append(part)
                choices += outcome.choices
        self._settle(step, rows, choices, failed)

    def _fail(self, step: Step, failure: Failure) -> None:
        for part in step.slices:
            self._live[part.id].failure = failure
        failed = [part.id for part in step.slices]
        for ended in self._scheduler.finished(step, {}, failed=failed):
            self._over(ended)

    def _over(self, ended: Ended) -> None:
        live = self._live[ended.id]
        ending = Ending.FAILED if live.failure is not None else ended.ending
        self._stats = replace(
            self._stats, prefix_tokens=self._stats.prefix_tokens + ended.sequence.shared
        )
        if live.request.keep and ending.whole:
            self._drop(live.request.id)
            self._kept[live.request.id] = live
        else:
            self._compute.release(ended.id)
        self._finish(live, ending)

    def _finish(self, live: Live, ending: Ending, failure: Failure | None = None) -> None:
        del self._live[live.job.id]
        live.failure = failure or live.failure
        live.attempts += self._given_up.take(live.job.id)
        self._stats = replace(self._stats, requests=self._stats.requests + 1)
        self._hold_inputs(-live.input_bytes)
        live.media = {}
        live.done(live.completion(ending))

    def _break(self, error: Exception) -> None:
        """The books cannot be trusted any more: everybody is told, now and later."""
        self._broken = failure_of(error)
        for live in list(self._live.values()):
            self._finish(live, Ending.FAILED, self._broken)


def _gone() -> Failure:
    return failure_of(ReleasedError("the model was closed", next_step="load it again"))
