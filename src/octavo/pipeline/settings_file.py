"""Settings from ``octavo.toml`` and the environment: flags > environment > file > defaults."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

from octavo.errors import ConfigError
from octavo.pipeline.config import FIELD_NAMES, PipelineConfig, check_name, nearest

FILE_NAME = "octavo.toml"
ENV_PREFIX = "OCTAVO_"
#: Where models and measurements are kept; no setting of a run.
HOME = "OCTAVO_HOME"

_WORDS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


def load_config(
    flags: Mapping[str, Any],
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> PipelineConfig:
    """The configuration of a run.

    Args:
        flags: what the command line or caller set; a value of None counts as not set.
        file: a settings file; None looks for ``octavo.toml`` from ``cwd`` upward.
        environ: the environment, ``os.environ`` by default.
        cwd: where the search starts, the working folder by default.

    Raises:
        ConfigError: an unknown key or wrong value; ``where`` names the file or variable.
    """
    path = file if file is not None else find_file(cwd or Path.cwd())
    layers = [
        (str(path), read_file(path) if path else {}),
        ("environment", read_environment(os.environ if environ is None else environ)),
        ("options", {name: value for name, value in flags.items() if value is not None}),
    ]
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for where, settings in layers:
        for name, value in settings.items():
            check_name(name, where=where)
            merged[name] = value
            origin[name] = where
    try:
        return PipelineConfig.build(**merged)
    except ConfigError as error:
        where = origin.get(error.where or "", "")
        if where in ("", "options"):
            raise
        raise ConfigError(
            error.what, where=f"{where}: {error.where}", next_step=error.next_step
        ) from error


def find_file(start: Path) -> Path | None:
    """The nearest ``octavo.toml`` in ``start`` or a folder above it."""
    start = start.resolve()
    for folder in (start, *start.parents):
        path = folder / FILE_NAME
        if path.is_file():
            return path
    return None


def read_file(path: Path) -> dict[str, Any]:
    """The settings in a TOML file, names checked."""
    try:
        with path.open("rb") as stream:
            settings = tomllib.load(stream)
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}", where=str(path), next_step="check the path"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"is not TOML: {error}", where=str(path)) from error
    for name in settings:
        check_name(name, where=str(path))
    return settings


def read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """The settings in variables such as ``OCTAVO_PDF_DPI=150``, read as the field's type."""
    settings: dict[str, Any] = {}
    known = {ENV_PREFIX + name.upper(): name for name in FIELD_NAMES}
    for variable, text in environ.items():
        if not variable.startswith(ENV_PREFIX) or variable == HOME:
            continue
        if variable not in known:
            raise ConfigError("unknown setting", where=variable, next_step=nearest(variable, known))
        settings[known[variable]] = _read_as(known[variable], text, variable)
    return settings


def _read_as(name: str, text: str, variable: str) -> Any:
    """``text`` as the type of the field ``name``."""
    hint = get_type_hints(PipelineConfig)[name]
    kinds = {kind for kind in (get_args(hint) or (hint,)) if isinstance(kind, type)}
    try:
        if bool in kinds:
            return _WORDS[text.strip().lower()]
        if int in kinds:
            return int(text)
        if float in kinds:
            return float(text)
    except (ValueError, KeyError) as error:
        kind = "true or false" if bool in kinds else "a number"
        raise ConfigError(
            f"{text!r} is not {kind}", where=variable, next_step=f"set {variable} to {kind}"
        ) from error
    return text
