"""Films as frames, streamed: what the sampling chooses is decoded, one frame at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from octavo.errors import ConfigError, LimitExceeded
from octavo.media import video_choice, video_scenes
from octavo.media.container import File, decoded, open_container
from octavo.media.image import MAX_PIXELS
from octavo.media.page import Pixels
from octavo.media.video_choice import Span, Times
from octavo.media.video_index import Timeline, film_track, no_frames, scan
from octavo.media.video_scenes import Grey
from octavo.requests import Frame, VideoSampling

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame

#: Frames of a segment where neither the request nor the family says how many.
FRAMES: Final = 16
#: A jump to a key frame saves at least this many frames of decoding.
_WORTH: Final = 8
_THREADS: Final = 4


class Film(Protocol):
    """Frames by their place in order of showing."""

    @property
    def times(self) -> Times:
        """Seconds from the start, rising, at least one."""
        ...

    @property
    def length(self) -> float:
        """Seconds."""
        ...

    def read(self, places: Sequence[int]) -> Iterator[tuple[float, Pixels]]:
        """Frames at rising places, with their seconds; upright, RGB."""
        ...

    def thumbnails(self, places: Sequence[int]) -> Iterator[Grey]:
        """One small grey picture for each of the rising places."""
        ...


def segments(film: Film, sampling: VideoSampling) -> tuple[Span, ...]:
    """The parts of a film that are sampled for themselves, in order."""
    return video_choice.cut(film.times, film.length, sampling.segment_s)


def frames(film: Film, sampling: VideoSampling, segment: int | None = None) -> Iterator[Frame]:
    """The frames that ``sampling`` chooses, in order, decoded as they are asked for.

    Args:
        segment: only those of the segment with this number; None takes all.

    Raises:
        ConfigError: there is no such segment.
    """
    spans = segments(film, sampling)
    if segment is not None:
        spans = tuple(span for span in spans if span.number == segment)
        if not spans:
            raise ConfigError(
                f"the film has no segment {segment}",
                next_step="ask for one of those that `segments` lists",
            )
    return _frames(film, sampling, spans)


def _frames(film: Film, sampling: VideoSampling, spans: tuple[Span, ...]) -> Iterator[Frame]:
    for span in spans:
        for seconds, pixels in film.read(choose(film, span, sampling)):
            yield Frame(seconds, pixels, span.number)


def choose(film: Film, span: Span, sampling: VideoSampling) -> list[int]:
    """Places of the frames of one segment; only ``scene`` looks at the pictures."""
    count = sampling.temporal_resolution
    if sampling.strategy == "rate":
        return video_choice.by_rate(film.times, span, sampling.fps, count)
    if sampling.strategy == "uniform":
        return video_choice.uniform(film.times, span, FRAMES if count is None else count)
    inside = range(span.first, span.last)
    change_n = video_scenes.changes(film.thumbnails(inside))
    cuts = video_scenes.cuts(change_n, film.times[span.first : span.last])
    found = [(span.first + place, strength) for place, strength in cuts]
    return video_choice.by_scene(film.times, span, found, count)


class FileFilm:
    """A film in a file. Opened anew by every reading, so that readings may run side by side.

    Args:
        file: a path, or the bytes of a file.
        where: how messages name it.
        max_pixels: largest width × height of a frame.

    Raises:
        InputError: no such file, no film in it, damaged, or without frames.
    """

    def __init__(self, file: File, where: str, max_pixels: int = MAX_PIXELS) -> None:
        self._file = file
        self._where = where
        self._max_pixels = max_pixels
        self._timeline = scan(file, where)

    @property
    def times(self) -> Times:
        return self._timeline.times

    @property
    def length(self) -> float:
        return self._timeline.length

    def read(self, places: Sequence[int]) -> Iterator[tuple[float, Pixels]]:
        """Frames on show at these places. A frame that is damaged is replaced by the one before;
        none is given twice.

        Raises:
            BrokenFile: not one of them can be decoded.
            LimitExceeded: a frame over the limit of pixels.
        """
        last = None
        for stamp, frame in self._shown(places):
            if frame is not None and stamp != last:
                last = stamp
                yield self._seconds(stamp), upright(frame)
        if last is None and places:
            raise no_frames(self._where)

    def thumbnails(self, places: Sequence[int]) -> Iterator[Grey]:
        """Where nothing can be decoded yet they are black."""
        grey: Grey = np.zeros((video_scenes.HEIGHT, video_scenes.WIDTH), np.uint8)
        last = None
        for stamp, frame in self._shown(places):
            if frame is not None and stamp != last:
                last = stamp
                grey = _thumbnail(frame)
            yield grey

    def _seconds(self, stamp: int) -> float:
        place = int(np.searchsorted(self._timeline.stamps, stamp))
        return float(self.times[min(place, len(self.times) - 1)])

    def _shown(self, places: Sequence[int]) -> Iterator[tuple[int, VideoFrame | None]]:
        """For each place the frame on show, and its stamp."""
        done = 0
        if len(self._timeline.keys):
            try:
                for shown in self._pass(places, jump=True):
                    yield shown
                    done += 1
            except _LostError:
                pass
            else:
                return
        yield from self._pass(places[done:], jump=False)

    def _pass(
        self, places: Sequence[int], *, jump: bool
    ) -> Iterator[tuple[int, VideoFrame | None]]:
        timeline = self._timeline
        with open_container(self._file, self._where) as container:
            run = _Run(container, self._where, timeline, self._check)
            for place in places:
                if jump:
                    run.jump(place)
                yield run.show(int(timeline.stamps[place]))

    def _check(self, width: int, height: int) -> None:
        if width * height > self._max_pixels:
            raise LimitExceeded(
                f"a frame of {width} × {height} pixels is over the limit of {self._max_pixels}",
                where=self._where,
                next_step="shrink the film, or raise the limit if you trust it",
            )


class _LostError(Exception):
    """A jump did not end where it should; the film has to be read from its start."""


class _Run:
    """One walk through a film, forwards. Holds the frame on show, at most the next one too."""

    def __init__(
        self,
        container: InputContainer,
        where: str,
        timeline: Timeline,
        check: Callable[[int, int], None],
    ) -> None:
        self._container = container
        self._where = where
        self._timeline = timeline
        self._check = check
        self._track = film_track(container, where)
        if (codec := self._track.codec_context) is not None:
            check(codec.width, codec.height)
            codec.thread_type = "AUTO"
            codec.thread_count = min(_THREADS, os.cpu_count() or 1)
        self._frames = self._decode()
        self._ahead: tuple[int, VideoFrame] | None = None
        self._now: tuple[int, VideoFrame | None] = (-1, None)
        self._place = -1

    def show(self, stamp: int) -> tuple[int, VideoFrame | None]:
        """The frame on show at ``stamp``, which is not before that of the last call."""
        while self._now[1] is None or self._now[0] < stamp:
            found = self._ahead or next(self._frames, None)
            self._ahead = None
            if found is None:
                break
            if found[0] > stamp:
                self._ahead = found
                break
            self._now = found
        self._place = int(np.searchsorted(self._timeline.stamps, stamp))
        return self._now

    def jump(self, place: int) -> None:
        """Goes to the last key frame up to ``place`` where that saves decoding.

        Raises:
            _LostError: the file did not seek to it.
        """
        from av import FFmpegError

        timeline = self._timeline
        before = int(np.searchsorted(timeline.keys, place, side="right")) - 1
        if before < 0 or timeline.keys[before] - self._place <= _WORTH:
            return
        stamp = int(timeline.stamps[timeline.keys[before]])
        try:
            self._container.seek(stamp, stream=self._track, backward=True)
        except FFmpegError as error:
            raise _LostError from error
        self._frames = self._decode()
        self._now = (-1, None)
        self._ahead = next(self._frames, None)
        if self._ahead is None or self._ahead[0] > stamp or self._ahead[1].is_corrupt:
            raise _LostError

    def _decode(self) -> Iterator[tuple[int, Any]]:
        for number, frame in enumerate(decoded(self._container, self._track, self._where)):
            self._check(frame.width, frame.height)
            if self._timeline.counted:
                yield number, frame
            elif frame.pts is not None:
                yield frame.pts, frame


def upright(frame: VideoFrame) -> Pixels:
    """The frame as RGB, turned as its film says."""
    pixels = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
    quarters = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, quarters)) if quarters else pixels


def _thumbnail(frame: VideoFrame) -> Grey:
    small = frame.reformat(
        width=video_scenes.WIDTH, height=video_scenes.HEIGHT, format="gray", interpolation="AREA"
    )
    return np.asarray(small.to_ndarray(), dtype=np.uint8)
