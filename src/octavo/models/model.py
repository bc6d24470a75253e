"""A model that was opened: its components, its plan, and the answers it gives."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from octavo.errors import BudgetExceeded, ConfigError, InputError, OctavoError
from octavo.hardware.spec import ModelSpec
from octavo.models.component import Component, ComponentFacts
from octavo.models.family import Family, Generated, Guard, Prepared, Processor, Task
from octavo.requests import (
    Completion,
    Finish,
    InputMode,
    MediaReader,
    Modality,
    Part,
    Request,
    Transcript,
    Usage,
    VideoSampling,
)
from octavo.types import Failure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from octavo.hardware.plan import Plan
    from octavo.memory.ledger import Ledger
    from octavo.models.stats import ModelStats
    from octavo.models.streaming import LayerStream

#: A family that says nothing about films gets this many frames.
FRAMES = 8


class Answerer(Protocol):
    """Answers requests of one model; see :class:`octavo.engine.engine.Engine`."""

    def generate(
        self, requests: Iterable[Request], *, cancelled: Callable[[], bool]
    ) -> Iterator[Completion]: ...

    def answer(self, request: Request, guard: Guard) -> Completion: ...

    def extend(self, request_id: str, max_new_tokens: int) -> Completion: ...

    def forget(self, request_id: str) -> None: ...

    def stats(self) -> Any: ...

    def close(self) -> None: ...


class Model:
    """One loaded checkpoint. Made by :func:`octavo.load`; safe to use from many threads, which
    take turns.

    Attributes:
        spec: what the checkpoint holds.
        plan: what was planned for it; ``plan.explain()`` says it line by line.
        ledger: who holds which bytes of its budget; None where a library loads itself.
        streams: of layers that are read while they are used.
        device: that its weights are brought to.
    """

    def __init__(
        self,
        family: Family,
        spec: ModelSpec,
        module: Any,
        processor: Processor,
        parts: Mapping[str, Component],
        media: MediaReader,
        *,
        plan: Plan | None = None,
        ledger: Ledger | None = None,
        streams: Sequence[LayerStream] = (),
        device: str = "cpu",
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.spec = spec
        self.plan = plan
        self.family = family
        self.module = module
        self.processor = processor
        self._parts = parts
        self.media = media
        self.ledger = ledger
        self.streams = streams
        self.device = device
        self._close = close
        self._closed = False
        #: Makes what keeps the keys and values of so many tokens; None leaves it to transformers.
        self.cache: Callable[[int], Any] | None = None
        #: Answers requests together; None answers them one by one.
        self.engine: Answerer | None = None
        # One computation at a time: the module's cache and the plan's peak are for one.
        self.turn = threading.Lock()

    @property
    def components(self) -> Mapping[str, ComponentFacts]:
        """Each component as it is now."""
        return {name: part.facts() for name, part in self._parts.items()}

    def wait(self) -> None:
        """Until every component that has been started is there.

        Raises:
            OctavoError: what stopped one.
        """
        for part in self._parts.values():
            if part.state != "waiting":
                part.need()

    def generate(
        self, requests: Iterable[Request], *, cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[Completion]:
        """One completion for each request, in order of completion.

        A request that fails is a completion with a ``failure``; the others are answered.
        """
        self._must(Task.CHAT, Task.ANSWER, Task.CAPTION)
        if self.engine is not None:
            yield from self.engine.generate(requests, cancelled=cancelled)
            return
        for request in requests:
            yield self._answer(request, Guard(cancelled=cancelled))

    def ask(self, *parts: Part | str, **options: Any) -> str:
        """The answer to one question.

        Raises:
            OctavoError: why there is none.
        """
        return next(self.generate([Request.of(*parts, **options)])).check().text

    def stream(self, request: Request) -> Iterator[str]:
        """Pieces of the answer as they are made; all of them together are its text.

        Raises:
            OctavoError: why there is none, after what there was.
        """
        from octavo.models.streamed import pieces

        self._must(Task.CHAT, Task.ANSWER, Task.CAPTION)
        yield from pieces(
            lambda guard: self._answer(request, guard),
            self.processor.decode,
            request.sampling.stop,
        )

    def extend(self, request_id: str, max_new_tokens: int) -> Completion:
        """The whole answer of a request asked with ``keep=True`` that its ``max_new_tokens`` cut:
        continued, not made anew.

        Args:
            max_new_tokens: how many more it may have.

        Raises:
            ConfigError: no such answer is kept, it is complete, or this model keeps none.
        """
        return self._engine().extend(request_id, max_new_tokens)

    def forget(self, request_id: str) -> None:
        """Lets go of what an answer that is kept holds. Harmless when there is none."""
        self._engine().forget(request_id)

    def stats(self) -> ModelStats:
        """What it holds, and what it did so far."""
        from octavo.models.stats import stats_of

        return stats_of(self)

    def caption(self, picture: Part, *, max_new_tokens: int = 64) -> str:
        """One sentence about a picture."""
        self._must(Task.CAPTION)
        words = self.family.caption_prompt
        parts = (picture, Part.text(words)) if words else (picture,)
        return self.ask(*parts, max_new_tokens=max_new_tokens)

    def classify(
        self, picture: Part, labels: Sequence[str], *, template: str = "a photo of a {}"
    ) -> Mapping[str, float]:
        """Probability of each label for a picture, likeliest first; they sum to 1."""
        self._must(Task.CLASSIFY)
        texts = _worded(template, labels)
        with self.turn:
            self.need(InputMode.VISION)
            logits = self.family.score_pictures(
                self.module, self.processor, [self.media.picture(picture)], texts
            )[0]
        return _shares(labels, logits)

    def classify_video(
        self, film: Part, labels: Sequence[str], *, template: str = "{}"
    ) -> Mapping[str, float]:
        """Probability of each label for a film, likeliest first; they sum to 1."""
        self._must(Task.SCORE_VIDEO)
        texts = _worded(template, labels)
        frames = self.spec.vision.frames if self.spec.vision is not None else 0
        sampling = film.sampling or VideoSampling(temporal_resolution=frames or FRAMES)
        pixels = [frame.pixels for frame in self.media.frames(film, sampling)]
        with self.turn:
            self.need(InputMode.VISION)
            logits = self.family.score_video(self.module, self.processor, pixels, texts)
        return _shares(labels, logits)

    def embed(self, parts: Sequence[Part]) -> NDArray[np.float32]:
        """Search vectors, shape (parts, dimensions), rows of length 1.

        Texts and pictures may be mixed where the family embeds both.
        """
        import numpy as np

        kinds = {part.kind for part in parts}
        if Modality.TEXT in kinds:
            self._must(Task.EMBED_TEXT)
        if kinds - {Modality.TEXT}:
            self._must(Task.EMBED_IMAGE)
        for kind in kinds - {Modality.TEXT, Modality.IMAGE}:
            raise ConfigError(f"texts and pictures are embedded, not {kind}", where=self.spec.name)
        for part in parts:
            if part.kind is Modality.TEXT:
                _check_unicode(str(part.value))
        vectors: list[Any] = [None] * len(parts)
        with self.turn:
            for kind, rows in _by_kind(parts).items():
                if kind is Modality.TEXT:
                    self.need(InputMode.LANGUAGE)
                    made = self.family.embed_texts(
                        self.module, self.processor, [str(parts[row].value) for row in rows]
                    )
                else:
                    self.need(InputMode.VISION)
                    made = self.family.embed_pictures(
                        self.module,
                        self.processor,
                        [self.media.picture(parts[row]) for row in rows],
                    )
                for row, vector in zip(rows, made.cpu().numpy(), strict=True):
                    vectors[row] = vector
        return np.stack(vectors).astype(np.float32) if vectors else np.zeros((0, 0), np.float32)

    def transcribe(self, sound: Part) -> Transcript:
        """What is said."""
        self._must(Task.TRANSCRIBE)
        rate = self.spec.audio.rate if self.spec.audio is not None else 16_000
        samples_t = self.media.sound(sound, rate)
        with self.turn:
            self.need(InputMode.SPEECH)
            return self.family.transcribe(self.module, self.processor, samples_t, rate)

    def close(self) -> None:
        """Stops what loads and lets go of the weights. Closing twice is harmless."""
        if self.engine is not None:
            self.engine.close()
        for part in self._parts.values():
            part.close()
        with self.turn:
            if self._closed:
                return
            self._closed = True
            self.module = None
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _engine(self) -> Answerer:
        if self.engine is None:
            raise ConfigError(f"{self.family.name} models keep no answers", where=self.spec.name)
        return self.engine

    def _must(self, *tasks: Task) -> None:
        if self.family.tasks.isdisjoint(tasks):
            raise self.family.cannot(tasks[0])

    def need(self, mode: InputMode) -> None:
        """Waits for the components that a request of this mode uses; starts those that are lazy.

        Raises:
            OctavoError: what stopped one.
        """
        for name in self.family.components_for(mode):
            if name in self._parts:
                self._parts[name].need()

    def _answer(self, request: Request, guard: Guard) -> Completion:
        if self.engine is not None:
            return self.engine.answer(request, guard)
        began = time.perf_counter()
        timings: dict[str, float] = {}
        try:
            self.check(request)
            prepared = self.processor.prepare(request, self.media)
            timings["prepare"] = time.perf_counter() - began
            with self.turn:
                self.need(request.mode)
                began = time.perf_counter()
                guard = self._held(request, guard)
                made = self.family.generate(
                    self.module,
                    self.processor,
                    prepared,
                    max_new_tokens=request.max_new_tokens,
                    sampling=request.sampling,
                    guard=guard,
                )
            timings["generate"] = time.perf_counter() - began
            return self._completion(request, prepared, made, guard, timings)
        # The place that isolates a request: whatever it raises is its own.
        except Exception as error:  # noqa: BLE001
            return Completion(
                request.id, finish=Finish.ERROR, timings=timings, failure=failure_of(error)
            )

    def _held(self, request: Request, guard: Guard) -> Guard:
        """The guard of an answer that is kept in the model's cache and held to its form."""
        guard = replace(guard, cache=self.cache)
        form = request.response
        if form is None:
            return guard
        from octavo.models.constraints import grammars_of

        grammars = grammars_of(self.processor.tokenizer, self.processor.end_tokens)
        return replace(guard, matcher=lambda: grammars.matcher(form))

    def check(self, request: Request) -> None:
        """
        Raises:
            ConfigError, InputError: the model does not take such a request.
        """
        if request.mode not in self.family.modes:
            raise ConfigError(
                f"{self.family.name} models do not take {request.mode} input",
                where=request.id,
                next_step=f"this one takes: {', '.join(sorted(self.family.modes))}",
            )
        for part in request.parts:
            if part.kind is Modality.TEXT:
                _check_unicode(str(part.value))

    def _completion(
        self,
        request: Request,
        prepared: Prepared,
        made: Generated,
        guard: Guard,
        timings: Mapping[str, float],
    ) -> Completion:
        text = self.processor.decode(made.tokens)
        ends = [text.find(stop) for stop in request.sampling.stop if stop in text]
        finish = Finish.STOP if made.stopped or ends else Finish.LENGTH
        if made.looped and not ends:
            finish = Finish.LOOP
        elif finish is not Finish.STOP and guard.cancelled():
            finish = Finish.CANCELLED
        return Completion(
            request.id,
            text=text[: min(ends)] if ends else text,
            tokens=made.tokens,
            finish=finish,
            usage=Usage(prepared.prompt_tokens, prepared.media_tokens, len(made.tokens)),
            timings=timings,
        )


def _by_kind(parts: Sequence[Part]) -> dict[Modality, list[int]]:
    rows: dict[Modality, list[int]] = {}
    for row, part in enumerate(parts):
        rows.setdefault(part.kind, []).append(row)
    return rows


def _check_unicode(text: str) -> None:
    """Raises InputError for what no tokenizer takes: names in other encodings become such text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"the text is not Unicode at character {error.start}",
            where=ascii(text[error.start : error.start + 20]),
            next_step="give it in UTF-8",
        ) from error


def _worded(template: str, labels: Sequence[str]) -> list[str]:
    """What is compared with the picture, one text for each label.

    Raises:
        ConfigError: no label, or one twice.
    """
    if not labels or len(set(labels)) < len(labels):
        raise ConfigError("give at least one label, and each once", where=", ".join(labels) or None)
    for label in labels:
        _check_unicode(label)
    return [template.replace("{}", label) for label in labels]


def _shares(labels: Sequence[str], logits: Any) -> Mapping[str, float]:
    shares = logits.float().softmax(0).tolist()
    pairs = sorted(zip(labels, shares, strict=True), key=lambda pair: -pair[1])
    return dict(pairs)


def failure_of(error: Exception) -> Failure:
    """An error as a completion carries it."""
    if isinstance(error, OctavoError):
        what = f"{error.where}: {error.what}" if error.where else error.what
        return Failure(type(error).__name__, what, error.next_step)
    if isinstance(error, MemoryError) or "not enough memory" in str(error):
        return Failure(
            BudgetExceeded.__name__,
            f"no memory was left: {error}",
            "give less at once (smaller pictures, a shorter answer) or a lower --memory",
        )
    return Failure(type(error).__name__, str(error))
