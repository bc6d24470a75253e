"""A Whisper of transformers as one of CTranslate2, converted once and kept."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from octavo.errors import InputError, MissingDependency, OutputError, SourceNotFound
from octavo.hardware.home import octavo_home
from octavo.models.checkpoint import CONFIG, Checkpoint

_COPIED: Final = ("tokenizer.json", "preprocessor_config.json")
#: Part of the key: what is kept under another is never used again.
_FORM: Final = 1


def converted(checkpoint: Checkpoint) -> Path:
    """The folder of the converted model, in Octavo's own; made when it is not there.

    The key is the weights' place, sizes and times and the configuration, so that a changed
    checkpoint is converted again. The folder appears whole or not at all.

    Raises:
        SourceNotFound: no safetensors (pickles are never loaded) or no tokenizer.
        MissingDependency: transformers is not installed.
        InputError: remote, or CTranslate2 cannot convert it.
        OutputError: it cannot be written.
    """
    if checkpoint.folder is None:
        raise InputError(
            "the model is not on this machine",
            where=checkpoint.name,
            next_step=f"octavo pull {checkpoint.name}",
        )
    if not checkpoint.has(_COPIED[0]):
        raise SourceNotFound(
            f"no {_COPIED[0]}", where=checkpoint.name, next_step="download the model again"
        )
    home = octavo_home() / "converted"
    target = home / f"whisper-{_key(checkpoint, checkpoint.folder)}"
    if target.is_dir():
        return target
    made: Path | None = None
    try:
        home.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=home, prefix=".making-"))
        _convert(checkpoint, checkpoint.folder, made / "model")
        try:
            os.replace(made / "model", target)
        except OSError:
            # Another process was faster; its result is the same.
            if not target.is_dir():
                raise
    except OSError as error:
        raise OutputError(
            f"the converted model cannot be kept: {error}",
            where=str(home),
            next_step="make room there, or point OCTAVO_HOME to another folder",
        ) from error
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
    return target


def _convert(checkpoint: Checkpoint, folder: Path, target: Path) -> None:
    try:
        import transformers  # noqa: F401
        from ctranslate2.converters import TransformersConverter
    except ImportError as error:
        raise MissingDependency(
            "a Whisper of transformers is converted with transformers and torch",
            where=checkpoint.name,
            next_step="pip install 'octavo[models]'",
        ) from error
    copied = [name for name in _COPIED if checkpoint.has(name)]
    try:
        with _quiet():
            TransformersConverter(str(folder), copy_files=copied).convert(str(target))
    except (ValueError, RuntimeError, KeyError, NotImplementedError, AttributeError) as error:
        raise InputError(
            f"CTranslate2 cannot convert this model: {error}",
            where=checkpoint.name,
            next_step="use one that is already converted, such as Systran/faster-whisper-base",
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No bar of progress on the user's terminal."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _key(checkpoint: Checkpoint, folder: Path) -> str:
    facts: list[object] = [_FORM, str(folder.resolve()), checkpoint.files.read(CONFIG).decode()]
    for name in (*checkpoint.shards, *_COPIED):
        if checkpoint.has(name):
            state = (folder / name).stat()
            facts.append([name, state.st_size, state.st_mtime_ns])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
