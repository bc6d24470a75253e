"""Sound and film drawn for tests: sines of known pitch, frames that carry their own number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

BITS = 12
CELL = 16


def sine(seconds: float, rate: int, pitch: float = 440.0, loud: float = 0.5) -> Any:
    return (loud * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)).astype(
        np.float32
    )


def pitch_of(sound: Any, rate: int) -> float:
    """The strongest frequency, in Hz."""
    return float(np.abs(np.fft.rfft(sound * np.hanning(len(sound)))).argmax() * rate / len(sound))


def write_sound(
    path: Path, samples: Any, rate: int, codec: str, options: dict[str, str] | None = None
) -> Path:
    """``samples``: (t,) or (t, 2), float32."""
    with av.open(str(path), "w", options=options or {}) as file:
        track = file.add_stream(codec, rate=rate, layout="mono" if samples.ndim == 1 else "stereo")
        _encode_sound(file, track, samples, rate)
    return path


def _encode_sound(file: Any, track: Any, samples: Any, rate: int) -> None:
    layout = "mono" if samples.ndim == 1 else "stereo"
    context = track.codec_context
    resampler = av.AudioResampler(
        format=context.format, layout=layout, rate=rate, frame_size=context.frame_size or 1024
    )
    frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout=layout)
    frame.sample_rate = rate
    frame.pts = 0
    for part in (*resampler.resample(frame), *resampler.resample(None)):
        file.mux(track.encode(part))
    file.mux(track.encode(None))


def numbered(number: int, width: int = BITS * CELL, height: int = 48) -> Any:
    """A frame that says which it is, in black and white cells that survive any codec."""
    pixels = np.full((height, width, 3), 64, np.uint8)
    for bit in range(BITS):
        pixels[:, bit * CELL : (bit + 1) * CELL] = 235 if number >> bit & 1 else 16
    return pixels


def number_of(pixels: Any) -> int:
    middle = pixels[pixels.shape[0] // 2, CELL // 2 :: CELL, 1]
    return sum(1 << bit for bit in range(BITS) if middle[bit] > 125)


def write_film(
    path: Path,
    frames: Iterable[Any],
    codec: str = "libx264",
    fps: int = 25,
    key_every: int = 12,
    stamps: Sequence[int] | None = None,
    sound: Any = None,
    options: dict[str, str] | None = None,
    file_options: dict[str, str] | None = None,
) -> Path:
    """``stamps``: of each frame in 1 / 1000 s; without, ``fps`` a second."""
    frames = iter(frames)
    first = next(frames)
    quick = {"preset": "ultrafast", "bf": "2"} if codec == "libx264" else {}
    with av.open(str(path), "w", options=file_options or {}) as file:
        track = file.add_stream(codec, rate=fps, options={**quick, **(options or {})})
        track.height, track.width = first.shape[:2]
        track.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        track.gop_size = key_every
        base = Fraction(1, fps) if stamps is None else Fraction(1, 1000)
        track.codec_context.time_base = base
        heard = file.add_stream("aac", rate=16_000, layout="mono") if sound is not None else None
        for place, pixels in enumerate((first, *frames) if stamps else _chain(first, frames)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = place if stamps is None else stamps[place]
            frame.time_base = base
            file.mux(track.encode(frame))
        file.mux(track.encode(None))
        if heard is not None:
            _encode_sound(file, heard, sound, 16_000)
    return path


def _chain(first: Any, rest: Iterable[Any]) -> Iterable[Any]:
    yield first
    yield from rest


def scenes(lengths: Sequence[int], seed: int = 0) -> list[Any]:
    """Frames of scenes of these lengths: another picture each, a little noise, a drifting block."""
    rng = np.random.default_rng(seed)
    found = []
    for length in lengths:
        still = rng.integers(0, 255, (4, 6, 3)).repeat(24, axis=0).repeat(24, axis=1)
        for step in range(length):
            pixels = still + rng.normal(0, 4, still.shape)
            pixels[20:40, (2 * step) % 120 : (2 * step) % 120 + 20] = 200
            found.append(pixels.clip(0, 255).astype(np.uint8))
    return found
