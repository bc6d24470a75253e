"""Checksums of 64 bits: XXH3; BLAKE2b where xxhash is not installed, which takes ten times as long.

What one of them signed is damaged to the other: a kept folder is as good as empty then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Final, Protocol

try:
    import xxhash
except ImportError:
    xxhash = None  # type: ignore[assignment]


class Digest(Protocol):
    """A checksum over pieces."""

    def update(self, piece: Any, /) -> Any: ...

    def intdigest(self) -> int: ...


class Blake:
    """A checksum with what Python has."""

    def __init__(self, data: bytes | memoryview = b"") -> None:
        self._hash = hashlib.blake2b(data, digest_size=8)

    def update(self, piece: bytes | memoryview, /) -> None:
        self._hash.update(piece)

    def intdigest(self) -> int:
        return int.from_bytes(self._hash.digest(), "big")


digest: Final[Callable[[], Digest]] = Blake if xxhash is None else xxhash.xxh3_64


def checksum(data: Any) -> int:
    """Of bytes, or of memory of them."""
    return Blake(data).intdigest() if xxhash is None else xxhash.xxh3_64_intdigest(data)
