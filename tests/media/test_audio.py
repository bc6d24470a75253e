"""Sound: sines of known pitch through every codec, and what is refused."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_media import numbered, pitch_of, sine, write_film, write_sound

from octavo.errors import (
    BrokenFile,
    InputError,
    LimitExceeded,
    MissingDependency,
    SourceNotFound,
    UnsupportedFormat,
)
from octavo.media import audio, container
from octavo.media.audio import convert_sound, read_sound

RATE = 16_000


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.wav", "pcm_s16le", 44_100),
        ("a.mp3", "libmp3lame", 44_100),
        ("a.flac", "flac", 48_000),
        ("a.m4a", "aac", 22_050),
        ("a.ogg", "libopus", 48_000),
        ("a.mka", "flac", 8_000),
    ],
)
def test_a_sine_keeps_its_pitch_loudness_and_length(
    tmp_path: Path, name: str, codec: str, rate: int
) -> None:
    path = write_sound(tmp_path / name, sine(3, rate), rate, codec)
    for file in (path, path.read_bytes()):
        sound = read_sound(file, RATE, name)
        assert sound.dtype == np.float32
        assert sound.ndim == 1
        assert pitch_of(sound, RATE) == pytest.approx(440, abs=1)
        assert np.abs(sound[RATE : 2 * RATE]).max() == pytest.approx(0.5, abs=0.03)
        assert len(sound) / RATE == pytest.approx(3, abs=0.06)


def test_the_sound_of_a_film(tmp_path: Path) -> None:
    film = write_film(
        tmp_path / "a.mp4", (numbered(n) for n in range(50)), sound=sine(2, RATE, 880)
    )
    assert pitch_of(read_sound(film, RATE, "film"), RATE) == pytest.approx(880, abs=1)


def test_both_sides_are_mixed_evenly(tmp_path: Path) -> None:
    left, right = sine(2, RATE, 300), sine(2, RATE, 700)
    path = write_sound(tmp_path / "a.wav", np.stack([left, right], 1), RATE, "pcm_s16le")
    assert np.abs(read_sound(path, RATE, "a") - (left + right) / 2).max() < 1e-3


def test_lossless_at_the_same_rate_is_the_samples(tmp_path: Path) -> None:
    samples = sine(2, RATE)
    path = write_sound(tmp_path / "a.wav", samples, RATE, "pcm_f32le")
    assert np.abs(read_sound(path, RATE, "a") - samples).max() < 1e-6


def test_what_passes_full_scale_is_clipped(tmp_path: Path) -> None:
    samples = sine(1, RATE, loud=1.5)
    samples[100] = np.nan
    path = write_sound(tmp_path / "a.wav", samples, RATE, "pcm_f32le")
    sound = read_sound(path, RATE, "a")
    assert np.isfinite(sound).all()
    assert np.abs(sound).max() == 1.0


def test_a_long_sound_is_whole(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.flac", sine(600, 8_000), 8_000, "flac")
    assert len(read_sound(path, 8_000, "a")) == 600 * 8_000


def test_a_tone_above_half_the_rate_is_gone(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", sine(2, 44_100, 12_000), 44_100, "pcm_s16le")
    assert np.abs(read_sound(path, RATE, "a")[1000:-1000]).max() < 0.01


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.wav", "pcm_s16le", {}),
        ("a.flac", "flac", {}),
        ("a.mp3", "libmp3lame", {}),
        ("a.mka", "flac", {}),
        ("a.mp4", "aac", {"movflags": "faststart"}),
        ("b.mp4", "aac", {}),
    ],
)
def test_a_file_cut_short_is_refused(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    path = write_sound(tmp_path / name, sine(5, 44_100), 44_100, codec, options)
    data = path.read_bytes()
    read_sound(path, RATE, name)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(BrokenFile, match="cut short") as caught:
        read_sound(path, RATE, name)
    assert caught.value.where == name
    assert caught.value.next_step


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0xFFFFFFFF])
def test_a_wav_written_to_a_pipe_does_not_know_its_length(tmp_path: Path, size: int) -> None:
    data = bytearray(write_sound(tmp_path / "a.wav", sine(2, RATE), RATE, "pcm_s16le").read_bytes())
    place = data.index(b"data")
    data[4:8] = data[place + 4 : place + 8] = struct.pack("<I", size)
    if size == 0:
        data[place + 4 : place + 8] = b"\xff" * 4
    assert len(read_sound(bytes(data), RATE, "pipe")) == 2 * RATE


def test_damage_in_the_middle_is_passed_over(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.mp3", sine(5, 44_100), 44_100, "libmp3lame")
    data = bytearray(path.read_bytes())
    data[20_000:20_400] = b"\xff" * 400
    sound = read_sound(bytes(data), RATE, "a")
    assert len(sound) / RATE == pytest.approx(5, abs=0.3)
    assert pitch_of(sound, RATE) == pytest.approx(440, abs=1)


def test_files_that_are_no_sound(tmp_path: Path) -> None:
    silent = write_film(tmp_path / "a.mp4", (numbered(n) for n in range(5)))
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "notes.mp3").write_text("these are not the words of a sound\n" * 50)
    header_only = write_sound(tmp_path / "h.wav", sine(1, RATE), RATE, "pcm_s16le").read_bytes()
    header_only = header_only[: header_only.index(b"data") + 8]
    cases: list[tuple[Any, type[InputError], str]] = [
        (silent, UnsupportedFormat, "no sound"),
        (tmp_path / "empty.wav", BrokenFile, "empty"),
        (b"", BrokenFile, "empty"),
        (tmp_path / "notes.mp3", UnsupportedFormat, "neither sound nor film"),
        (tmp_path / "absent.wav", SourceNotFound, "no such file"),
        (tmp_path, SourceNotFound, "folder"),
        (b"RIFF" + bytes(40), BrokenFile, "damaged"),
        (header_only, BrokenFile, "not one sample|damaged"),
    ]
    for file, kind, words in cases:
        with pytest.raises(kind, match=words) as caught:
            read_sound(file, RATE, "the file")
        assert caught.value.where
        assert caught.value.next_step


@pytest.mark.parametrize("first", ["#EXTM3U\n#EXTINF:3,\n", "ffconcat version 1.0\nfile "])
def test_a_list_opens_no_other_file(tmp_path: Path, first: str) -> None:
    inside = write_sound(tmp_path / "a.mp3", sine(1, RATE), RATE, "libmp3lame")
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(f"{first}{inside}\n#EXT-X-ENDLIST\n")
    with pytest.raises(UnsupportedFormat):
        read_sound(playlist, RATE, "list")


def test_a_sound_over_the_limit(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.flac", sine(4, RATE), RATE, "flac")
    with pytest.raises(LimitExceeded, match="limit of 3 s"):
        read_sound(path, RATE, "a", max_seconds=3)


def test_without_pyav(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav", sine(1, RATE), RATE, "pcm_s16le")
    monkeypatch.setattr(container, "find_spec", lambda _: None)
    for ask in (
        lambda: read_sound(path, RATE, "a"),
        lambda: convert_sound(sine(1, RATE), RATE, 8_000, "a"),
    ):
        with pytest.raises(MissingDependency) as caught:
            ask()
        assert "pip install" in str(caught.value.next_step)


def test_samples_in_memory_are_resampled(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = sine(3, 44_100)
    sound = convert_sound(samples, 44_100, RATE, "memory")
    assert len(sound) == pytest.approx(3 * RATE, abs=2)
    assert pitch_of(sound, RATE) == pytest.approx(440, abs=1)
    assert np.abs(sound[100:-100] - sine(3, RATE)[100 : len(sound) - 100]).max() < 1e-3
    monkeypatch.setattr(audio, "_BLOCK", 1000)
    assert np.array_equal(convert_sound(samples, 44_100, RATE, "memory"), sound)
    assert np.array_equal(convert_sound(samples, RATE, RATE, "memory"), samples)
    both = np.stack([samples, np.zeros_like(samples)], 1)
    assert np.array_equal(convert_sound(both, RATE, RATE, "memory"), samples / 2)


@pytest.mark.parametrize(
    ("samples", "rate", "words"),
    [
        (np.zeros(10, np.int16), RATE, "int16"),
        (np.zeros((2, 3, 4), np.float32), RATE, "shape"),
        (np.zeros((2, 100), np.float32), RATE, "shape"),
        (np.zeros(0, np.float32), RATE, "empty"),
        (np.full(10, 3e4, np.float32), RATE, "outside"),
        (np.full(10, np.nan, np.float32), RATE, "outside"),
        (np.zeros(10, np.float32), 0, "rate"),
        (np.zeros(10, np.float32), 16_000.5, "rate"),
    ],
)
def test_samples_that_are_none(samples: Any, rate: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        convert_sound(samples, rate, RATE, "memory")
    assert caught.value.next_step


def test_a_voice_in_the_middle_is_not_clipped(tmp_path: Path) -> None:
    voice = sine(2, RATE, loud=0.95)
    path = write_sound(tmp_path / "a.wav", np.stack([voice, voice], 1), RATE, "pcm_f32le")
    assert np.abs(read_sound(path, RATE, "a") - voice).max() < 1e-3
