"""Keys as JSON and back, so that ``1``, ``"1"``, ``True`` and ``(1,)`` stay apart."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from octavo.errors import CodecError


def key_to_json(key: Hashable) -> Any:
    """A value that ``json`` writes; tuples, bytes and floats are marked lists.

    Raises:
        CodecError: a key of another type.
    """
    if key is None or type(key) in (str, bool, int):
        return key
    if type(key) is float:
        return ["float", key.hex()]
    if type(key) is bytes:
        return ["bytes", key.hex()]
    if type(key) is tuple:
        return ["tuple", *map(key_to_json, key)]
    raise CodecError(
        f"a key of type {type(key).__name__} cannot be kept on the disk",
        where=repr(key),
        next_step="use str, int, float, bool, bytes, None or tuples of them",
    )


def key_from_json(coded: Any) -> Hashable:
    """The key that :func:`key_to_json` wrote.

    Raises:
        CodecError: it wrote no such thing.
    """
    if coded is None or isinstance(coded, (str, bool, int)):
        return coded
    match coded:
        case ["float", str(text)]:
            return float.fromhex(text)
        case ["bytes", str(text)]:
            return bytes.fromhex(text)
        case ["tuple", *items]:
            return tuple(map(key_from_json, items))
    raise CodecError(f"{coded!r} is no key", next_step="delete the folder of the disk tier")
