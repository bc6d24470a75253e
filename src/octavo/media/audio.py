"""Sound as numbers: any track that PyAV decodes, mono, at the rate that a model wants.

Shape letters: t samples, c channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from octavo.errors import BrokenFile, InputError, LimitExceeded
from octavo.media.container import File, damaged, decoded, missing_track, need_pyav, open_container

if TYPE_CHECKING:
    from av import AudioResampler
    from av.container import InputContainer

Sound = NDArray[np.float32]

#: Longest sound, in seconds: 12 hours are 2.8 GB at 16 kHz. A small file can hold years of silence.
MAX_SECONDS: Final = 12 * 3600.0
#: What may be missing at the end before a file counts as cut short: codecs add and drop some.
_SLACK_S: Final = 0.25
_SLACK: Final = 0.02
#: Samples handed to the resampler at once, when they come from an array.
_BLOCK: Final = 1 << 20
#: Samples of other decoders may pass 1 a little, and are clipped; beyond this they are no samples.
_OVERSHOOT: Final = 2.0
#: Programs that write to a pipe leave 0 or about the largest number, with sign or without.
_UNKNOWN: Final = 0x7FF00000
_HEAD: Final = 1 << 16


def read_sound(file: File, rate: int, where: str, max_seconds: float = MAX_SECONDS) -> Sound:
    """The first sound track of a file, also of a film.

    Args:
        file: a path, or the bytes of a file.
        rate: of the result, in Hz.
        where: how messages name the file.
        max_seconds: a longer sound is refused.

    Returns:
        Mono samples in [-1, 1], shape (t,).

    Raises:
        InputError: no such file, no sound in it, damaged, cut short, empty or too long.
    """
    kept = bytearray()
    with open_container(file, where) as container:
        if not container.streams.audio:
            raise missing_track(where, "sound")
        promised = _promised_seconds(container, file)
        for block_t in _resampled(container, rate, where):
            kept += block_t.tobytes()
            if len(kept) > 4 * rate * max_seconds:
                raise LimitExceeded(
                    f"the sound is over the limit of {max_seconds:g} s",
                    where=where,
                    next_step="cut it into shorter files",
                )
    sound_t = np.frombuffer(kept, dtype=np.float32)
    seconds = len(sound_t) / rate
    if not len(sound_t):
        raise damaged(where, "there is a track for sound, but not one sample in it")
    if promised is not None and seconds < promised * (1 - _SLACK) - _SLACK_S:
        raise damaged(
            where, f"the file is cut short: {seconds:.1f} s of {promised:.1f} s can be read"
        )
    return sound_t


def convert_sound(samples: Any, found: int, rate: int, where: str) -> Sound:
    """Samples in memory, checked, mixed to mono and resampled.

    Args:
        samples: ``float32`` in [-1, 1], shape (t,), or (t, c) with fewer channels than samples.
        found: their rate in Hz.
        rate: of the result, in Hz.
        where: how messages name them.

    Raises:
        InputError: not such an array, empty, not finite or out of range, or no rate.
        MissingDependency: PyAV is not installed.
    """
    sound_t = _checked(samples, found, where)
    if found == rate:
        return sound_t
    need_pyav(where)
    from av import AudioFrame

    resampler = _resampler(rate)
    kept = bytearray()
    for start in range(0, len(sound_t), _BLOCK):
        frame = AudioFrame.from_ndarray(
            sound_t[None, start : start + _BLOCK], format="flt", layout="mono"
        )
        frame.sample_rate = int(found)
        for part in resampler.resample(frame):
            kept += _samples(part).tobytes()
    for block_t in _flushed(resampler):
        kept += block_t.tobytes()
    return np.frombuffer(kept, dtype=np.float32)


def _resampled(container: InputContainer, rate: int, where: str) -> Iterator[Sound]:
    """Blocks of mono samples at ``rate``, in order."""
    resampler: AudioResampler | None = None
    made_for: tuple[object, ...] = ()
    for frame in decoded(container, _track(container), where):
        # The resampler refuses time stamps that jump; order is all that matters here.
        frame.pts = None
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != made_for:
            # Broadcasts change between stereo and mono within one track.
            yield from _flushed(resampler)
            resampler, made_for = _resampler(rate), kind
        if resampler is not None:
            for part in resampler.resample(frame):
                yield _samples(part)
    yield from _flushed(resampler)


def _track(container: InputContainer) -> Any:
    """The sound that players choose: marked as default, else the first."""
    return container.streams.best("audio") or container.streams.audio[0]


def _flushed(resampler: Any) -> Iterator[Sound]:
    if resampler is not None:
        for part in resampler.resample(None):
            yield _samples(part)


def _resampler(rate: int) -> AudioResampler:
    from av import AudioResampler

    # Only for whole numbers does FFmpeg keep a mix of channels within full scale; as floats the
    # voice in the middle of a stereo track would come out at 1.41 and be clipped.
    return AudioResampler(format="s32", layout="mono", rate=rate)


def _samples(frame: Any) -> Sound:
    block_t: Sound = (frame.to_ndarray().reshape(-1) * (1 / 2**31)).astype(np.float32)
    return block_t


def _promised_seconds(container: InputContainer, file: File) -> float | None:
    """How long the sound is by the file's own account; None where that is only an estimate."""
    stream = _track(container)
    kind = container.format.name
    if kind in ("wav", "avi"):
        return _riff_seconds(container, file)
    if kind == "mp3" and not _counts_frames(_head(file)):
        return None
    exact = kind in ("mp3", "flac") or kind.startswith("mov")
    if exact and stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    if kind.startswith("matroska") and len(container.streams) == 1 and container.duration:
        return container.duration / 1_000_000
    return None


def _counts_frames(head: bytes) -> bool:
    """Whether an MP3 file says how long it is; without, FFmpeg guesses from its size."""
    return b"Xing" in head or b"Info" in head or b"VBRI" in head


def _riff_seconds(container: InputContainer, file: File) -> float | None:
    """FFmpeg trims what it says of these to the size of the file; the header still knows."""
    head, size = _head(file), _size(file)
    said = int.from_bytes(head[4:8], "little") + 8
    found = container.duration
    if not head.startswith(b"RIFF") or found is None or not size < said < _UNKNOWN:
        return None
    return found / 1_000_000 * said / size


def _head(file: File) -> bytes:
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return opened.read(_HEAD)
    return file[:_HEAD]


def _size(file: File) -> int:
    return file.stat().st_size if isinstance(file, Path) else len(file)


def _checked(samples: Any, found: int, where: str) -> Sound:
    sound = np.asarray(samples)
    wrong = None
    if sound.dtype not in (np.float32, np.float64):
        wrong = f"samples of type {sound.dtype}; float32 in [-1, 1] is wanted"
    elif sound.ndim == 2 and 0 < sound.shape[1] < sound.shape[0]:
        sound = sound.mean(axis=1)
    elif sound.ndim != 1:
        wrong = f"samples of shape {sound.shape}; (samples,) is wanted"
    if wrong is None and not isinstance(found, int | np.integer):
        wrong = f"a rate of {found!r}; whole hertz are wanted"
    elif wrong is None and not 1 <= found <= 1_000_000:
        wrong = f"a rate of {found} Hz"
    if wrong is not None:
        raise InputError(wrong, where=where, next_step="give (samples, rate)")
    if not sound.size:
        raise BrokenFile("the sound is empty", where=where, next_step="give some samples")
    if not np.isfinite(sound).all() or float(np.abs(sound).max()) > _OVERSHOOT:
        raise InputError(
            "samples outside of [-1, 1]", where=where, next_step="divide them by their full scale"
        )
    return np.ascontiguousarray(np.clip(sound, -1.0, 1.0), dtype=np.float32)
