"""Opens what a request's parts name: a ``MediaReader`` over Pillow and PyAV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Final

import numpy as np

from octavo.errors import InputError
from octavo.media import video
from octavo.media.audio import MAX_SECONDS, Sound, convert_sound, read_sound
from octavo.media.container import File
from octavo.media.image import MAX_PIXELS
from octavo.media.page import Pixels
from octavo.media.picture import is_picture_value, read_picture
from octavo.media.slides import Slides
from octavo.media.video import FileFilm, Film
from octavo.media.video_choice import Span
from octavo.requests import Frame, Modality, Part, VideoSampling

_TAKES: Final = "give a path or the bytes of a file"


class Decoder:
    """A ``requests.MediaReader``. Holds nothing open between calls; any thread may use it.

    Args:
        max_pixels: largest width × height of a picture or frame.
        max_seconds: longest sound.
    """

    def __init__(self, max_pixels: int = MAX_PIXELS, max_seconds: float = MAX_SECONDS) -> None:
        self._max_pixels = max_pixels
        self._max_seconds = max_seconds

    def picture(self, part: Part) -> Pixels:
        """``uint8`` height × width × 3, upright, RGB; of a file with several, the first.

        Raises:
            SourceNotFound, BrokenFile, LimitExceeded, InputError: it cannot be opened.
            MissingDependency: HEIC without its plugin.
        """
        _expect(part, Modality.IMAGE)
        return read_picture(part.value, part.where, self._max_pixels)

    def sound(self, part: Part, rate: int) -> Sound:
        """Mono samples in [-1, 1] at ``rate`` Hz, shape (t,). The part may be a film.

        Raises:
            InputError: it cannot be opened, has no sound, is damaged, cut short or empty.
            MissingDependency: PyAV is not installed.
        """
        _expect(part, Modality.AUDIO, Modality.VIDEO)
        value = part.value
        if isinstance(value, tuple) and len(value) == 2:
            return convert_sound(value[0], value[1], rate, part.where)
        file = _file(value)
        if file is None:
            raise InputError(
                f"a sound cannot be {_kind(value)}",
                where=part.where,
                next_step=f"{_TAKES}, or a pair (samples, rate)",
            )
        return read_sound(file, rate, part.where, self._max_seconds)

    def frames(
        self, part: Part, sampling: VideoSampling, segment: int | None = None
    ) -> Iterator[Frame]:
        """The frames that ``sampling`` chooses, in order, decoded as they are asked for.

        The film is read through once before, to count its frames; each call opens it anew, so
        segments may be read side by side. A film that is cut short gives what is left of it.

        Args:
            segment: only this one of ``segments``; None takes all.

        Raises:
            InputError: it cannot be opened, is no film, or has no frames.
            ConfigError: there is no such segment.
            MissingDependency: PyAV is not installed.
        """
        return video.frames(self._film(part), sampling, segment)

    def segments(self, part: Part, sampling: VideoSampling) -> tuple[Span, ...]:
        """The segments of a film, for ``frames``; raises as that."""
        return video.segments(self._film(part), sampling)

    def _film(self, part: Part) -> Film:
        _expect(part, Modality.VIDEO)
        value = part.value
        if (file := _file(value)) is not None:
            return FileFilm(file, part.where, self._max_pixels)
        if isinstance(value, np.ndarray) and value.ndim == 4:
            value = list(value)
        if isinstance(value, Sequence) and value and all(map(is_picture_value, value)):
            return Slides(value, part.where, self._max_pixels)
        raise InputError(
            f"a film cannot be {_kind(value)}",
            where=part.where,
            next_step=f"{_TAKES}, or a sequence of pictures",
        )


def _file(value: Any) -> File | None:
    if isinstance(value, str | PathLike):
        return Path(value)
    return bytes(value) if isinstance(value, bytes | bytearray | memoryview) else None


def _expect(part: Part, *kinds: Modality) -> None:
    if part.kind not in kinds:
        raise InputError(
            f"this part is {part.kind}, not {' or '.join(kinds)}",
            where=part.where if part.kind is not Modality.TEXT else None,
            next_step="make the part with Part.image, Part.audio or Part.video",
        )


def _kind(value: Any) -> str:
    if isinstance(value, Sequence | np.ndarray) and not len(value):
        return "empty"
    return f"of type {type(value).__name__}"
