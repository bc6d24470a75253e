"""A load in a thread of its own, for files that are not read by the reader pool."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future

from octavo.errors import ReleasedError

#: Told of bytes that are done; raises when the load is to stop.
Tell = Callable[[int], None]


class Background:
    """Work under way: see ``octavo.models.component.Work``.

    Args:
        run: does it; calls its argument with every few bytes.
        name: of the component, for messages.
        on_done: told of all bytes so far.
    """

    def __init__(
        self, run: Callable[[Tell], None], name: str, on_done: Callable[[int], None]
    ) -> None:
        self._name = name
        self._on_done = on_done
        self._stop = threading.Event()
        self._bytes = 0
        self._future: Future[None] = Future()
        self._thread = threading.Thread(target=self._go, args=(run,), name="octavo-load")
        self._thread.start()

    @property
    def done(self) -> bool:
        return self._future.done()

    def wait(self, timeout: float | None = None) -> None:
        """Raises what stopped it."""
        self._future.result(timeout)

    def cancel(self) -> None:
        """Returns when nothing more is written."""
        self._stop.set()
        self._thread.join()

    def _go(self, run: Callable[[Tell], None]) -> None:
        try:
            run(self._tell)
        # Whatever it is, whoever waits for the component is told.
        except BaseException as error:  # noqa: BLE001
            self._future.set_exception(error)
        else:
            self._future.set_result(None)

    def _tell(self, nbytes: int) -> None:
        if self._stop.is_set():
            raise ReleasedError("loading was stopped", where=self._name)
        self._bytes += nbytes
        self._on_done(self._bytes)
