"""Page pictures as ``report.html`` carries them: of a long document, smaller ones."""

from __future__ import annotations

import io
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from PIL import Image

#: Bytes. Above it, which a hundred pages of print reach, a browser takes seconds to open the file.
LIMIT_BYTES = 24_000_000
#: Pixels. Print of ten points can be read at it, at a third of the bytes of the files.
LONG_EDGE_PX = 1000
JPEG_QUALITY = 30

#: What a page picture may be, by the ending of its file.
MIMES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}

_THREADS = 2
_AHEAD = 4


class PagePictures:
    """The pictures of a document, asked for once each, best in the order of ``files``.

    They are made a few ahead of the one asked for, so that no more are in memory. Together at
    most ``LIMIT_BYTES`` of them are carried as they are. A context manager.

    Args:
        files: JPEG, PNG or WebP by page number.

    Raises:
        OSError: from every method, when a file cannot be read.
    """

    def __init__(self, files: Mapping[int, Path]) -> None:
        self._files = files
        self._shrinks = sum(file.stat().st_size for file in files.values()) > LIMIT_BYTES
        self._coming = iter(files)
        self._ahead: dict[int, Future[bytes]] = {}
        self._pool = ThreadPoolExecutor(_THREADS, "octavo-shrink")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def take(self, number: int) -> tuple[str, bytes] | None:
        """The media type and the bytes; None for a page that has no picture."""
        file = self._files.get(number)
        if file is None:
            return None
        if not self._shrinks:
            return MIMES[file.suffix.lower()], file.read_bytes()
        while len(self._ahead) < _AHEAD and (following := next(self._coming, None)) is not None:
            self._ahead[following] = self._pool.submit(shrunk, self._files[following])
        future = self._ahead.pop(number, None)
        return "image/jpeg", shrunk(file) if future is None else future.result()


def shrunk(file: Path) -> bytes:
    """The picture as a JPEG of at most ``LONG_EDGE_PX``.

    Raises:
        OSError: it cannot be read, or is damaged.
    """
    with Image.open(file) as picture:
        picture.load()
        whole = picture if picture.mode in ("L", "RGB") else picture.convert("RGB")
    scale = min(1.0, LONG_EDGE_PX / max(whole.size))
    size = max(1, round(whole.width * scale)), max(1, round(whole.height * scale))
    small = whole.resize(size, Image.Resampling.BILINEAR)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return stream.getvalue()
