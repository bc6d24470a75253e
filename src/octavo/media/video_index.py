"""When each frame of a film is shown, counted in the file itself.

Headers may lack a film's length and number of frames, or lie; cameras and screen recorders leave
frames out. So every packet is looked at, without decoding it: that costs one reading of the file.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from octavo.media.container import File, damaged, decoded, missing_track, open_container, packets

if TYPE_CHECKING:
    from av.container import InputContainer

#: Kinds of file with an index of key frames, so that seeking is fast and ends where it should.
_INDEXED: Final = ("mov", "matroska", "avi")
#: Codecs whose packets are not all shown.
_HIDDEN: Final = frozenset({"vp8"})
#: Of a frame, where nothing tells: 25 a second.
_USUAL_S: Final = 0.04


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """The frames of a film in order of showing.

    Attributes:
        stamps: of each frame, rising; in units of the track's time base, or, where ``counted``,
            its number.
        times: when each is shown first, in seconds from the film's start.
        length: of the film in seconds.
        keys: places of frames that need no other to be decoded; empty where seeking is no use.
        counted: packets carry no times, so the film was decoded to count its frames.
    """

    stamps: NDArray[np.int64]
    times: NDArray[np.float64]
    length: float
    keys: NDArray[np.int64]
    counted: bool = False


def scan(file: File, where: str) -> Timeline:
    """Reads through a film once.

    Raises:
        InputError: no such file, no film in it, damaged, or a film without frames.
    """
    with open_container(file, where) as container:
        track = film_track(container, where)
        timeline = None
        if track.codec_context is None or track.codec_context.name not in _HIDDEN:
            timeline = _from_packets(container, track, where)
    if timeline is None:
        with open_container(file, where) as container:
            timeline = _from_frames(container, film_track(container, where), where)
    return timeline


def film_track(container: InputContainer, where: str) -> Any:
    """The film that players show. Covers of music are pictures, not films.

    Raises:
        UnsupportedFormat: there is none.
    """
    from av.stream import Disposition

    found = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not found:
        raise missing_track(where, "film")
    best = container.streams.best("video")
    return best if best in found else found[0]


def no_frames(where: str) -> Exception:
    """The error for a film of which no frame can be shown."""
    return damaged(where, "not one frame of this film can be read")


def _from_packets(container: InputContainer, track: Any, where: str) -> Timeline | None:
    """None where a packet has no time."""
    stamps, keys = array("q"), array("q")
    duration = 0
    for packet in packets(container, track, where):
        if packet.size == 0 or packet.is_discard:
            continue
        if packet.pts is None:
            return None
        stamps.append(packet.pts)
        duration = packet.duration or duration
        if packet.is_keyframe:
            keys.append(packet.pts)
    if not stamps:
        raise no_frames(where)
    rising = np.unique(np.frombuffer(stamps, dtype=np.int64))
    base = float(track.time_base)
    times = (rising - rising[0]) * base
    places = np.searchsorted(rising, np.unique(np.frombuffer(keys, dtype=np.int64)))
    indexed = container.format.name.startswith(_INDEXED)
    return Timeline(
        rising,
        times,
        float(times[-1]) + (duration * base or _frame_s(times)),
        places.astype(np.int64) if indexed else np.empty(0, np.int64),
    )


def _from_frames(container: InputContainer, track: Any, where: str) -> Timeline:
    """Decodes the film; frames without a time follow each other at the track's rate."""
    rate = track.average_rate or track.guessed_rate
    step = float(1 / rate) if rate else _USUAL_S
    found = array("d")
    for number, frame in enumerate(decoded(container, track, where)):
        at = number * step if frame.time is None else frame.time
        found.append(max(at, found[-1]) if found else at)
    if not found:
        raise no_frames(where)
    times = np.frombuffer(found, dtype=np.float64) - found[0]
    length = float(times[-1]) + step
    return Timeline(
        np.arange(len(times), dtype=np.int64), times, length, np.empty(0, np.int64), counted=True
    )


def _frame_s(times: NDArray[np.float64]) -> float:
    return float(np.median(np.diff(times))) if len(times) > 1 else _USUAL_S
