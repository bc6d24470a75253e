"""From what a user names (files, folders, patterns) to the files to read."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from octavo.errors import SourceNotFound

_PICTURES = (".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2")
_MORE_PICTURES = (".heic", ".heif", ".avif", ".ppm", ".pgm", ".pbm")
_OFFICE = (".docx", ".pptx", ".xlsx", ".html", ".htm", ".xhtml")

#: Suffixes that are taken from a folder. A file that is named is opened whatever it is called.
KNOWN = frozenset((".pdf", *_PICTURES, *_MORE_PICTURES, *_OFFICE))


def find_inputs(
    inputs: Iterable[str | os.PathLike[str]], out: Path | None = None
) -> Iterator[Path | SourceNotFound]:
    """The files in the order named, folders and patterns sorted, each file once.

    Folders are searched to their depth for files of known kinds; hidden ones and what lies in
    ``out`` are left out. Links to folders are not followed. What cannot be found comes as a
    ``SourceNotFound``, not raised, so that the rest goes on.
    """
    seen: set[Path] = set()
    shut = out.resolve() if out is not None else None
    for name in inputs:
        found = False
        for path in _expand(Path(name)):
            key = path.resolve()
            inside = shut is not None and shut in key.parents and path != Path(name)
            found = found or not inside
            if not inside and key not in seen:
                seen.add(key)
                yield path
        if not found:
            yield _not_found(Path(name))


def _expand(path: Path) -> Iterator[Path]:
    try:
        if path.is_dir():
            yield from _walk(path)
            return
        if path.exists() or path.is_symlink():
            yield path
            return
    except (OSError, ValueError):
        # A name no file system takes: it is not there.
        return
    if glob.has_magic(str(path)):
        for name in sorted(glob.glob(str(path), recursive=True)):
            match = Path(name)
            if match.is_dir():
                # ``**`` finds the files below by itself.
                if "**" not in str(path):
                    yield from _walk(match)
            else:
                yield match


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in KNOWN:
                yield Path(parent, name)


def _not_found(path: Path) -> SourceNotFound:
    if path.is_dir():
        return SourceNotFound(
            "no file of a known kind is in this folder",
            where=str(path),
            next_step="name the files themselves to have them opened whatever they are called",
        )
    what = "nothing matches this pattern" if glob.has_magic(str(path)) else "no such file"
    return SourceNotFound(what, where=str(path), next_step="check the path and its spelling")
