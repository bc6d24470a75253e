"""Which model a name means: a path, weights that a package carries, or one that was pulled."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from octavo.errors import BrokenFile, ConfigError, SourceNotFound
from octavo.hardware.home import octavo_home
from octavo.models.checkpoint import CONFIG, Checkpoint, reading
from octavo.models.download import folder_of, look, note_of
from octavo.models.packaged import PACKAGED, missing_packages, opened, packaged, place_of

#: As the hub allows it.
_HUB_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Installed:
    """A model on this machine: ``kind`` is ``pulled`` or ``package``."""

    name: str
    kind: str
    folder: Path
    licence: str | None = None


def resolve(name: str, *, headers_only: bool = False) -> Checkpoint:
    """The checkpoint that ``name`` means.

    Args:
        name: a folder, a ``.gguf`` or ``.safetensors`` file, a packaged model (``whisper-base``),
            or a hub's ``owner/name`` that was pulled.
        headers_only: a model that is not here is read over the network, headers only.

    Raises:
        SourceNotFound: it is nowhere; says what would bring it.
        InputError: it is a path that cannot be read.
        ConfigError: the name is empty.
    """
    if not name.strip():
        raise ConfigError("an empty name of a model", next_step="octavo doctor lists what is here")
    path = _path(name)
    with reading(path):
        is_file, is_folder = path.is_file(), path.is_dir()
    if is_file:
        return _file(path)
    if is_folder:
        return Checkpoint.at(path)
    carried = packaged(name)
    if carried is not None and not missing_packages(carried):
        place = opened(carried)
        return _file(place, carried.name) if place.is_file() else _folder(place, carried.name)
    for folder in (folder_of(name), _in_hub_cache(name)):
        if folder is not None and (folder / CONFIG).is_file():
            return _pulled(folder, name)
    if headers_only and _is_hub_name(name):
        from octavo.models.remote import RemoteFiles

        return Checkpoint(RemoteFiles(look(name)), name)
    if carried is not None:
        step = f"{carried.install}  # or octavo pull {carried.aliases[0]}"
    elif _is_hub_name(name):
        step = f"octavo pull {name}"
    else:
        step = f"give a folder, a hub's owner/name, or one of {', '.join(_packaged_names())}"
    raise SourceNotFound("no such model on this machine", where=name, next_step=step)


def _path(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:  # no such user
        return Path(name)


def installed() -> Iterator[Installed]:
    """Models that :func:`resolve` finds without a path, those in the hub's own cache left out.
    Nothing is checked or assembled."""
    for carried in PACKAGED:
        if not missing_packages(carried):
            yield Installed(carried.name, "package", place_of(carried), carried.licence)
    home = octavo_home() / "models"
    for folder in sorted(home.iterdir()) if home.is_dir() else []:
        try:
            note = note_of(folder)
        except BrokenFile:
            continue
        if note is not None:
            yield Installed(str(note.get("name")), "pulled", folder, note.get("licence"))


def _file(path: Path, name: str | None = None) -> Checkpoint:
    if path.suffix == ".gguf":
        from octavo.models.gguf import GgufCheckpoint

        return GgufCheckpoint(path, name)
    if path.suffix == ".safetensors":
        return Checkpoint.at(path.parent, name)
    raise SourceNotFound(
        "not a model file",
        where=str(path),
        next_step="give a .gguf file, or the folder with config.json and .safetensors files",
    )


def _folder(path: Path, name: str) -> Checkpoint:
    return Checkpoint.at(path, name)


def _pulled(folder: Path, name: str) -> Checkpoint:
    if folder == folder_of(name) and note_of(folder) is None:
        raise SourceNotFound(
            "this model was only fetched in part",
            where=str(folder),
            next_step=f"octavo pull {name} goes on where it stopped",
        )
    return Checkpoint.at(folder, name)


def _in_hub_cache(name: str) -> Path | None:
    """The newest snapshot in huggingface_hub's own cache."""
    if not _is_hub_name(name):
        return None
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    try:
        found = try_to_load_from_cache(name, CONFIG)
    except ValueError:  # a name that no hub allows
        return None
    return Path(found).parent if isinstance(found, str) else None


def _is_hub_name(name: str) -> bool:
    return _HUB_NAME.fullmatch(name) is not None and ".." not in name


def _packaged_names() -> list[str]:
    return [model.name for model in PACKAGED]
