"""Files of sound and film, opened with PyAV: what is refused, and why.

A file is handed over as bytes that can be read and sought, never as a name: FFmpeg would take
``http:`` and ``concat:`` in names, and guess the kind from an ending.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from octavo.errors import BrokenFile, InputError, MissingDependency, UnsupportedFormat
from octavo.media.files import check_file

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet

#: A medium as a part names it: a file, or a file's bytes.
File = Path | bytes

#: No protocol of this name exists. A playlist can name other files and addresses; none is opened.
_NO_OTHER_FILES: Final = {"protocol_whitelist": "none"}
_INSTALL: Final = "pip install 'octavo[models]'"
_AGAIN: Final = "check that it plays; if not, get the file again"
_MEDIA: Final = (b"ID3", b"RIFF", b"fLaC", b"OggS", b"FORM", b"\x1a\x45\xdf\xa3", b"caff", b"FLV")


@contextmanager
def open_container(file: File, where: str) -> Iterator[InputContainer]:
    """The file as FFmpeg reads it.

    Args:
        file: a path, or the bytes of a file.
        where: how messages name it.

    Raises:
        SourceNotFound: no such file, or it is a folder.
        MissingDependency: PyAV is not installed.
        BrokenFile: empty, damaged, or cut short before anything can be read.
        UnsupportedFormat: neither sound nor film, or a list of other files.
    """
    with _reading(file, where) as raw:
        need_pyav(where)
        import av

        head = raw.read(64)
        raw.seek(0)
        try:
            container = av.open(_Bare(raw), mode="r", options=_NO_OTHER_FILES,
                                metadata_errors="ignore")  # fmt: skip
        except PermissionError as error:
            raise UnsupportedFormat(
                "a list of other files is not opened", where=where, next_step="give the files in it"
            ) from error
        except (av.FFmpegError, ValueError) as error:
            raise _refused(head, where) from error
        with container:
            yield container


def need_pyav(where: str) -> None:
    """Raises MissingDependency where PyAV is not installed."""
    if find_spec("av") is None:
        raise MissingDependency("sound and film need PyAV", where=where, next_step=_INSTALL)


def missing_track(where: str, what: str) -> UnsupportedFormat:
    """The error for a file without ``what`` (``"sound"``, ``"film"``)."""
    return UnsupportedFormat(
        f"there is no {what} in this file",
        where=where,
        next_step="give another file, or leave this part out",
    )


def damaged(where: str, what: str) -> BrokenFile:
    """The error for a file whose track cannot be read."""
    return BrokenFile(what, where=where, next_step=_AGAIN)


def packets(container: InputContainer, stream: Any, where: str) -> Iterator[Packet[Any]]:
    """Packets of one track, up to where the file can be read; the last is empty and flushes.

    Raises:
        BrokenFile: not even the first can be read.
    """
    import av

    found = 0
    try:
        for packet in container.demux(stream):
            found += 1
            yield packet
    except av.FFmpegError as error:
        if not found:
            raise damaged(where, "the file is damaged") from error


def decoded(container: InputContainer, stream: Any, where: str) -> Iterator[Any]:
    """Frames of one track; packets that cannot be decoded are left out, as players do.

    Raises:
        BrokenFile: not even the first packet can be read.
        UnsupportedFormat: there is no decoder for it.
    """
    import av

    if stream.codec_context is None:
        raise UnsupportedFormat(
            "no decoder for this kind of track", where=where, next_step="convert the file"
        )
    for packet in packets(container, stream, where):
        try:
            yield from packet.decode()
        except (av.InvalidDataError, av.PatchWelcomeError, av.UnknownError):
            continue
        except (av.EOFError, av.MemoryError, av.DecoderNotFoundError) as error:
            raise damaged(where, f"the file cannot be decoded: {error.strerror}") from error


@contextmanager
def _reading(file: File, where: str) -> Iterator[IO[bytes]]:
    if isinstance(file, bytes):
        if not file:
            raise BrokenFile("the file is empty", where=where, next_step="get the file again")
        yield BytesIO(file)
        return
    check_file(file)
    try:
        opened = file.open("rb")
    except OSError as error:
        raise InputError(
            f"the file cannot be read: {error}", where=where, next_step="check its permissions"
        ) from error
    with opened:
        yield opened


class _Bare:
    """A file without a name."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw

    def read(self, size: int) -> bytes:
        return self._raw.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        return self._raw.tell()


def _refused(head: bytes, where: str) -> InputError:
    if head.startswith(_MEDIA) or head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide"):
        return damaged(where, "the file is damaged or cut short")
    return UnsupportedFormat(
        "this is neither sound nor film that can be read",
        where=where,
        next_step="give a file such as wav, mp3, flac, m4a, ogg, mp4, mkv, webm or avi",
    )
