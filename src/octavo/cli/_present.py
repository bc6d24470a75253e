"""Models on this machine: carried by packages, pulled, or in the hub's own cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from octavo.cli._checks import Check, size
from octavo.errors import BrokenFile
from octavo.hardware.home import octavo_home

_GROUP = "Weights"


def model_checks() -> Iterator[Check]:
    """Looks only: nothing is unpacked, verified or fetched."""
    yield from _carried()
    yield from _pulled(octavo_home() / "models")
    yield from _in_hub_cache(hub_cache())


def hub_cache() -> Path:
    """Where huggingface_hub keeps what it downloads (its ``HF_HUB_CACHE`` and ``HF_HOME``)."""
    if found := os.environ.get("HF_HUB_CACHE"):
        return Path(found).expanduser()
    home = os.environ.get("HF_HOME")
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return (Path(home) if home else Path(cache) / "huggingface").expanduser() / "hub"


def _carried() -> Iterator[Check]:
    from octavo.models.packaged import PACKAGED, missing_packages

    for model in PACKAGED:
        absent = missing_packages(model)
        if absent:
            value = f"not installed; {model.use}"
            yield Check(_GROUP, model.name, "optional", value, model.install)
        else:
            yield Check(_GROUP, model.name, "ok", f"in a package, {model.licence}")


def _pulled(home: Path) -> Iterator[Check]:
    from octavo.models.download import note_of

    for folder in _folders(home, "*--*"):
        name = folder.name.replace("--", "/", 1)
        try:
            note = note_of(folder)
        except BrokenFile as error:
            yield Check(_GROUP, name, "note", error.what, f"octavo pull {name}")
            continue
        if note is None:
            yield Check(_GROUP, name, "note", "pulled in part", f"octavo pull {name}")
        else:
            licence = note.get("licence") or "licence unknown"
            yield Check(_GROUP, name, "ok", f"pulled, {size(_nbytes(folder))}, {licence}")


def _in_hub_cache(cache: Path) -> Iterator[Check]:
    for folder in _folders(cache, "models--*"):
        name = folder.name.removeprefix("models--").replace("--", "/", 1)
        if any(folder.glob("snapshots/*/config.json")):
            value = f"in the hub's cache, {size(_nbytes(folder / 'blobs'))}"
            yield Check(_GROUP, name, "ok", value)


def _folders(home: Path, pattern: str) -> list[Path]:
    return sorted(path for path in home.glob(pattern) if path.is_dir())


def _nbytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
