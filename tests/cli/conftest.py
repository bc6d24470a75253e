"""A way to call the program, and a pipeline that plays a script of events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import octavo.cli._run
from octavo.cli.main import main
from octavo.pipeline.config import PipelineConfig
from octavo.pipeline.events import Event, Outcome


@dataclass(frozen=True)
class Ended:
    """How a call of the program ended."""

    code: int
    out: str
    err: str


Program = Callable[..., Ended]


@pytest.fixture
def program(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Program:
    """Runs ``octavo`` with arguments, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Ended:
        with pytest.raises(SystemExit) as ending:
            main(list(arguments))
        captured = capsys.readouterr()
        return Ended(int(ending.value.code or 0), captured.out, captured.err)

    return run


class Script:
    """Stands in for ``convert``: tells ``events`` and remembers how it was called."""

    def __init__(self) -> None:
        self.events: Sequence[Event] = ()
        self.error: BaseException | None = None
        self.inputs: list[str] = []
        self.out: Path | None = None
        self.config: PipelineConfig | None = None

    def __call__(
        self,
        inputs: Sequence[str],
        out: Path,
        config: PipelineConfig,
        *,
        on_event: Callable[[Event], None],
    ) -> Iterator[Outcome]:
        self.inputs, self.out, self.config = list(inputs), out, config
        for event in self.events:
            on_event(event)
            if isinstance(event, Outcome):
                yield event
        if self.error is not None:
            raise self.error


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    played = Script()
    monkeypatch.setattr(octavo.cli._run, "convert", played)
    return played
