"""The checks that every file passes before it is opened."""

from __future__ import annotations

from pathlib import Path

from octavo.errors import BrokenFile, InputError, SourceNotFound


def check_file(path: Path) -> None:
    """Says plainly why a path cannot be read.

    Raises:
        SourceNotFound: nothing is there, or it is a folder.
        BrokenFile: the file is empty.
        InputError: the file may not be read, or is no plain file.
    """
    read_head(path, 1)


def read_head(path: Path, size: int) -> bytes:
    """The first bytes of a file; raises as ``check_file``."""
    where = str(path)
    try:
        if path.is_dir():
            raise SourceNotFound(
                "this is a folder, not a file", where=where, next_step="name the files in it"
            )
        if path.exists() and not path.is_file():
            raise InputError(
                "this is not a plain file", where=where, next_step="copy its content to a file"
            )
        with path.open("rb") as file:
            head = file.read(size)
    except FileNotFoundError as error:
        raise SourceNotFound(
            "no such file", where=where, next_step="check the path and its spelling"
        ) from error
    except (OSError, ValueError) as error:
        # ValueError: a name that no file system takes, such as one with a null character.
        raise InputError(
            f"the file cannot be read: {error}", where=where, next_step="check its permissions"
        ) from error
    if not head:
        raise BrokenFile("the file is empty", where=where, next_step="get the file again")
    return head
