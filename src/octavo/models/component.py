"""A part of a loaded model: how far it is, and what brings it in when it is first needed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from octavo.errors import ReleasedError
from octavo.hardware.spec import ComponentSpec, Precision


class State(StrEnum):
    """Where a component is on its way into memory."""

    WAITING = "waiting"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    CLOSED = "closed"


class Work(Protocol):
    """A load under way."""

    def wait(self, timeout: float | None = None) -> None: ...

    def cancel(self) -> None: ...

    @property
    def done(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class ComponentFacts:
    """One component at one moment.

    Attributes:
        precision: it is held in; None is as stored.
        nbytes: it holds when it is there, streamed layers not counted.
        loaded: bytes of its files that are in.
        resident_layers, streamed_layers: how its repeated layers are held.
    """

    name: str
    state: State
    precision: Precision | None
    parameters: int
    nbytes: int
    loaded: int
    resident_layers: int
    streamed_layers: int


def _gone() -> Work:
    raise AssertionError("a closed component is never started")


class Component:
    """Starts once, is waited for by whoever needs it, and remembers how it failed.

    Args:
        start: begins to load it.
        resident_nbytes: what it holds when it is there.
        streamed_layers: layers that are read whenever they are used.
    """

    def __init__(
        self,
        spec: ComponentSpec,
        start: Callable[[], Work],
        *,
        precision: Precision | None,
        resident_nbytes: int,
        streamed_layers: int = 0,
    ) -> None:
        self.spec = spec
        self.precision = precision
        self.nbytes = resident_nbytes
        self.streamed_layers = streamed_layers
        self.loaded = 0
        self._start = start
        self._work: Work | None = None
        self._closed = False
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return self.spec.name

    def start(self) -> Work:
        """Begins to load, unless that has begun.

        Raises:
            ReleasedError: the model is closed.
        """
        with self._lock:
            if self._closed:
                raise ReleasedError(
                    "this model is closed", where=self.name, next_step="load it again"
                )
            if self._work is None:
                self._work = self._start()
            return self._work

    def need(self) -> None:
        """Waits until it is there; starts it when nobody has.

        Raises:
            OctavoError: what stopped it from loading, each time it is asked for.
        """
        work = self.start()
        work.wait()

    def close(self) -> None:
        """Stops it where it is. What it holds is the module's to let go."""
        with self._lock:
            self._closed = True
            # What is loaded is not held on to any longer than the module does.
            work, self._work = self._work, None
            self._start = _gone
        if work is not None and not work.done:
            work.cancel()

    @property
    def state(self) -> State:
        work = self._work
        if self._closed:
            return State.CLOSED
        if work is None:
            return State.WAITING
        if not work.done:
            return State.LOADING
        return State.FAILED if self._failed(work) else State.READY

    def _failed(self, work: Work) -> bool:
        """Of work that is done; what stopped it is whoever's who needs it."""
        try:
            work.wait(0)
        except BaseException:  # noqa: BLE001
            return True
        return False

    def facts(self) -> ComponentFacts:
        return ComponentFacts(
            name=self.name,
            state=self.state,
            precision=self.precision,
            parameters=self.spec.parameters,
            nbytes=self.nbytes,
            loaded=self.loaded,
            resident_layers=len(self.spec.layers) - self.streamed_layers,
            streamed_layers=self.streamed_layers,
        )
