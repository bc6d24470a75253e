"""What the commands that run a model share: options, opening with progress, answers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octavo.errors import ConfigError, InputError, MissingDependency

if TYPE_CHECKING:
    from octavo.models.loading import LoadProgress
    from octavo.models.model import Model

LOADING, ANSWERING, MEDIA, OUTPUT = "Loading", "Answering", "Media", "Output"


def option(panel: str, text: str, *names: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=text, metavar=metavar, rich_help_panel=panel)


ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="A folder, a .gguf file, or a name (octavo doctor).")
]
Memory = Annotated[
    str | None, option(LOADING, "Such as 4GB; what is free by default.", metavar="SIZE")
]
Device = Annotated[str | None, option(LOADING, "cpu, cuda, mps.", metavar="NAME")]
OfAll = Annotated[
    str | None, option(LOADING, "fp32, bf16, fp16, int8, int4, auto.", metavar="TYPE")
]
OfLanguage = Annotated[str | None, option(LOADING, "Of the language model.", metavar="TYPE")]
OfVision = Annotated[str | None, option(LOADING, "Of the vision tower.", metavar="TYPE")]
Json = Annotated[bool, option(OUTPUT, "One JSON object.", "--json")]
Verbose = Annotated[bool, option(OUTPUT, "The plan, and tracebacks.", "--verbose", "-v")]
Tokens = Annotated[int, option(ANSWERING, "Tokens of the answer at most.", metavar="N")]


@dataclass(frozen=True, slots=True)
class Loading:
    """The options of :func:`octavo.load` that commands have."""

    memory: str | None = None
    device: str | None = None
    precision: str | None = None
    llm_precision: str | None = None
    vision_precision: str | None = None
    workload: str | None = None
    verbose: bool = False
    kv_precision: str | None = None
    kv_cache_max_length: int | None = None


@contextmanager
def opened(name: str, loading: Loading) -> Iterator[Model]:
    """The model, with a line about how far it is when that takes long."""
    from octavo.cli._waiting import Waiting

    with needs_models():
        from octavo.runtime import load
    done: dict[str, LoadProgress] = {}
    with Waiting() as waiting:

        def show(progress: LoadProgress) -> None:
            done[progress.component] = progress
            waiting(
                "loading "
                + ", ".join(
                    f"{part.component} {100 * part.done_bytes // max(part.total_bytes, 1)} %"
                    for part in list(done.values())
                )
            )

        with needs_models():
            model = load(
                name,
                memory=loading.memory,
                device=loading.device,
                precision=loading.precision,
                llm_precision=loading.llm_precision,
                vision_precision=loading.vision_precision,
                workload=loading.workload,
                kv_precision=loading.kv_precision,
                kv_cache_max_length=loading.kv_cache_max_length,
                on_progress=show,
            )
    with model:
        if loading.verbose and model.plan is not None:
            print(model.plan.explain(), file=sys.stderr)
        yield model


@contextmanager
def needs_models() -> Iterator[None]:
    """An import that fails means that the extra is not installed."""
    try:
        yield
    except ImportError as error:
        raise MissingDependency(
            f"{error.name or error} is not installed, and models need it",
            next_step="pip install 'octavo[models]'",
        ) from error


def words(text: str) -> str:
    """The text of an argument; ``-`` is standard input."""
    try:
        found = sys.stdin.read() if text == "-" else text
    except UnicodeDecodeError as error:
        raise ConfigError("standard input is not UTF-8 text", next_step="convert it") from error
    if not found.strip():
        raise ConfigError("an empty question", next_step="give the words, or - for standard input")
    return found


def read_text(path: Path) -> str:
    """Raises InputError for a file that is no UTF-8 text."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot be read as UTF-8 text: {error}", where=str(path), next_step="check the file"
        ) from error


def existing(path: Path) -> Path:
    """Raises InputError before a model is loaded for nothing."""
    from octavo.errors import SourceNotFound

    try:
        there, is_folder = path.exists(), path.is_dir()
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror}", where=str(path), next_step="check the path"
        ) from error
    if not there:
        raise SourceNotFound("no such file", where=str(path), next_step="check the path")
    if is_folder:
        raise InputError("a folder, not a file", where=str(path), next_step="give a file in it")
    return path
