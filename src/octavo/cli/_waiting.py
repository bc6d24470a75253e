"""What a command does that takes long, said on stderr while it does it."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.status import Status
from rich.text import Text

from octavo.cli._errors import printable

#: A command that ends sooner says nothing.
PATIENCE_S: Final = 2.0


class Waiting:
    """One line that changes on a terminal; elsewhere a plain line every ``PATIENCE_S``."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._status: Status | None = None
        self._due = time.monotonic() + PATIENCE_S

    def __call__(self, doing: str) -> None:
        """What is done now."""
        if time.monotonic() < self._due:
            return
        text = Text(printable(doing), style="dim")
        if not self._console.is_terminal:
            self._console.print(text, soft_wrap=True)
            self._due = time.monotonic() + PATIENCE_S
        elif self._status is None:
            self._status = self._console.status(text)
            self._status.start()
        else:
            self._status.update(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._status is not None:
            self._status.stop()
