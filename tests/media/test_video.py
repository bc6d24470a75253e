"""Films drawn with frames that carry their number: what is taken, when, how much is held."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest
from drawn_media import number_of, numbered, scenes, sine, write_film, write_sound

from octavo.errors import BrokenFile, ConfigError, InputError, LimitExceeded, UnsupportedFormat
from octavo.media import video
from octavo.media.decode import Decoder
from octavo.media.video import FileFilm
from octavo.requests import Frame, Part, VideoSampling

EVERY = VideoSampling("rate", fps=1000)


def taken(path: Path | bytes, sampling: VideoSampling) -> list[Frame]:
    return list(Decoder().frames(Part.video(path), sampling))


def numbers(frames: list[Frame]) -> list[int]:
    return [number_of(frame.pixels) for frame in frames]


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 frames, 4 s, two of three frames predicted from both sides, a key every 12."""
    path = tmp_path_factory.mktemp("film") / "a.mp4"
    return write_film(path, (numbered(n) for n in range(100)))


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mkv", "libx264"),
        ("a.webm", "libvpx-vp9"),
        ("b.webm", "libvpx"),
        ("a.avi", "mpeg4"),
        ("b.avi", "mjpeg"),
        ("a.ts", "libx264"),
        ("a.h264", "libx264"),
    ],
)
def test_every_frame_once_with_its_time(tmp_path: Path, name: str, codec: str) -> None:
    path = write_film(tmp_path / name, (numbered(n) for n in range(40)), codec)
    for file in (path, path.read_bytes()):
        frames = taken(file, EVERY)
        assert numbers(frames) == list(range(40))
        assert [frame.seconds for frame in frames] == pytest.approx(
            [n / 25 for n in range(40)], abs=2e-3
        )
        assert frames[0].pixels.shape == (48, 192, 3)
        assert frames[0].pixels.dtype == np.uint8


def test_uniform_takes_the_middle_of_equal_pieces(film: Path) -> None:
    frames = taken(film, VideoSampling(temporal_resolution=5))
    assert numbers(frames) == [10, 30, 50, 70, 90]
    assert [frame.seconds for frame in frames] == pytest.approx([0.4, 1.2, 2.0, 2.8, 3.6])
    assert len(taken(film, VideoSampling())) == video.FRAMES
    assert numbers(taken(film, VideoSampling(temporal_resolution=1))) == [50]
    assert numbers(taken(film, VideoSampling(temporal_resolution=500))) == list(range(100))


def test_rate_takes_frames_at_even_times(film: Path) -> None:
    assert numbers(taken(film, VideoSampling("rate", fps=5))) == list(range(0, 100, 5))
    assert numbers(taken(film, VideoSampling("rate", fps=0.5))) == [0, 50]
    thinned = numbers(taken(film, VideoSampling("rate", fps=5, temporal_resolution=4)))
    assert thinned == [10, 35, 60, 85]


def test_segments_are_sampled_for_themselves(film: Path) -> None:
    sampling = VideoSampling(temporal_resolution=2, segment_s=1.5)
    frames = taken(film, sampling)
    assert [frame.segment for frame in frames] == [0, 0, 1, 1, 2, 2]
    # Segments of 37.5, 37.5 and 25 frames: quarters and three quarters of each.
    assert numbers(frames) == [9, 28, 46, 65, 81, 93]
    decoder, part = Decoder(), Part.video(film)
    spans = decoder.segments(part, sampling)
    assert [(span.start, span.end) for span in spans] == [(0, 1.5), (1.5, 3), (3, 4)]
    side_by_side = [decoder.frames(part, sampling, segment=span.number) for span in spans]
    rows = list(zip(*side_by_side, strict=True))
    assert [number_of(row[k].pixels) for k in range(3) for row in rows] == numbers(frames)
    with pytest.raises(ConfigError, match="no segment 3"):
        decoder.frames(part, sampling, segment=3)


def test_scenes_begin_where_they_were_cut(tmp_path: Path) -> None:
    lengths = [30, 12, 45, 8, 25]
    starts = [0, 30, 42, 87, 95]
    path = write_film(tmp_path / "a.mp4", scenes(lengths), key_every=300)
    frames = taken(path, VideoSampling("scene"))
    assert [round(frame.seconds * 25) for frame in frames] == starts
    some = taken(path, VideoSampling("scene", temporal_resolution=3))
    assert len(some) == 3
    assert {round(frame.seconds * 25) for frame in some} < set(starts)
    filled = taken(path, VideoSampling("scene", temporal_resolution=9))
    more = [round(frame.seconds * 25) for frame in filled]
    assert len(more) == 9
    assert set(starts) < set(more)
    assert max(np.diff([*more, 120])) <= 23
    cut = taken(path, VideoSampling("scene", segment_s=2.0))
    assert [(round(f.seconds * 25), f.segment) for f in cut] == [
        (0, 0), (30, 0), (42, 0), (50, 1), (87, 1), (95, 1), (100, 2),
    ]  # fmt: skip


def test_noise_and_slow_change_are_no_scenes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    blocks = [rng.integers(0, 255, (4, 6, 3), dtype=np.uint8) for _ in range(40)]
    noise = [block.repeat(12, axis=0).repeat(12, axis=1) for block in blocks]
    assert len(taken(write_film(tmp_path / "a.mp4", noise), VideoSampling("scene"))) == 1
    fade = [np.full((48, 64, 3), 20 + 5 * n, np.uint8) for n in range(40)]
    assert len(taken(write_film(tmp_path / "b.mp4", fade), VideoSampling("scene"))) == 1


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_uneven_frames_have_their_own_times(tmp_path: Path, name: str) -> None:
    stamps = [0, 40, 80, 1000, 1040, 3000, 3500, 3540, 6000, 6040]
    path = write_film(tmp_path / name, (numbered(n) for n in range(10)), stamps=stamps)
    frames = taken(path, EVERY)
    assert numbers(frames) == list(range(10))
    assert [frame.seconds for frame in frames] == pytest.approx(
        [s / 1000 for s in stamps], abs=2e-3
    )
    # On show at 0.5, 1.5, 2.5, 3.5, 4.5 s.
    found = numbers(taken(path, VideoSampling("rate", fps=1, segment_s=None)))
    assert found == [0, 3, 4, 5, 7, 8]


def with_rotation(data: bytes, quarters: int) -> bytes:
    """An MP4 whose track header says how to turn its frames, clockwise."""
    one = 1 << 16
    a, b = [(one, 0), (0, one), (-one, 0), (0, -one)][quarters]
    matrix = struct.pack(">9i", a, b, 0, -b, a, 0, 0, 0, 1 << 30)
    place = data.index(b"tkhd") + 44
    return data[:place] + matrix + data[place + 36 :]


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_turned_films_are_upright(tmp_path: Path, quarters: int) -> None:
    pixels = np.full((64, 96, 3), 16, np.uint8)
    pixels[:32, :48] = 235
    data = write_film(tmp_path / "a.mp4", [pixels] * 3).read_bytes()
    frame = taken(with_rotation(data, quarters), EVERY)[0].pixels
    assert np.abs(frame.astype(int) - np.rot90(pixels, -quarters)).mean() < 4


def lying(data: bytes, box: bytes, offset: int, value: int) -> bytes:
    place = data.index(box) + offset
    return data[:place] + struct.pack(">I", value) + data[place + 4 :]


def test_headers_that_lie_or_say_nothing(film: Path, tmp_path: Path) -> None:
    data = film.read_bytes()
    for value in (0, 10, 10_000_000):
        false = lying(lying(data, b"mvhd", 20, value), b"mdhd", 20, value)
        with av.open(str(film)) as honest:
            assert honest.duration != value
        assert numbers(taken(false, VideoSampling(temporal_resolution=5))) == [10, 30, 50, 70, 90]
    live = tmp_path / "live.mkv"
    write_film(live, (numbered(n) for n in range(100)), file_options={"live": "1"})
    with av.open(str(live)) as container:
        assert container.duration is None
    assert numbers(taken(live, VideoSampling(temporal_resolution=5))) == [10, 30, 50, 70, 90]


def decodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one for each frame that is decoded."""
    seen: list[int] = []
    plain = video.decoded

    def counted(*args: Any) -> Any:
        for frame in plain(*args):
            seen.append(1)
            yield frame

    monkeypatch.setattr(video, "decoded", counted)
    return seen


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4")]
)
def test_jumping_to_key_frames_gives_the_same_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, codec: str
) -> None:
    path = write_film(tmp_path / name, (numbered(n) for n in range(400)), codec)
    seen = decodes(monkeypatch)
    for count in (3, 7, 16, 90):
        sampling = VideoSampling(temporal_resolution=count)
        seen.clear()
        jumped = taken(path, sampling)
        few = len(seen)
        film = FileFilm(path, name)
        film._timeline = dataclasses.replace(film._timeline, keys=np.empty(0, np.int64))
        seen.clear()
        walked = list(video.frames(film, sampling))
        assert len(seen) > 300
        assert few < 13 * count + 13
        assert len(jumped) == count
        for one, other in zip(jumped, walked, strict=True):
            assert one.seconds == other.seconds
            assert np.array_equal(one.pixels, other.pixels)


def test_a_jump_that_fails_is_made_up_for(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = FileFilm(film, "film")
    want = [(seconds, number_of(pixels)) for seconds, pixels in plain.read([5, 40, 60, 95])]
    assert [number for _, number in want] == [5, 40, 60, 95]

    class Deaf:
        """A container that seeks elsewhere, or not at all."""

        def __init__(self, container: Any, to: int | None) -> None:
            self._container, self._to = container, to

        def __getattr__(self, name: str) -> Any:
            return getattr(self._container, name)

        def seek(self, stamp: int, **options: Any) -> None:
            if self._to is None:
                raise av.PermissionError(1, "cannot seek")
            self._container.seek(self._to, **options)

    born = video._Run.__init__
    for to in (None, int(plain._timeline.stamps[97]), 1 << 40):
        monkeypatch.setattr(
            video._Run,
            "__init__",
            lambda run, container, *rest, to=to: born(run, Deaf(container, to), *rest),
        )
        found = [(seconds, number_of(pixels)) for seconds, pixels in plain.read([5, 40, 60, 95])]
        assert found == want


def test_files_that_are_no_film(tmp_path: Path, film: Path) -> None:
    sound = write_sound(tmp_path / "a.mp4", sine(1, 16_000), 16_000, "aac")
    song = write_sound(tmp_path / "a.mp3", sine(1, 44_100), 44_100, "libmp3lame").read_bytes()
    (tmp_path / "empty.mp4").write_bytes(b"")
    data = film.read_bytes()
    assert data.index(b"moov") > data.index(b"mdat")
    cases: list[tuple[Any, type[InputError], str]] = [
        (sound, UnsupportedFormat, "no film"),
        (cover(tmp_path) + song, UnsupportedFormat, "no film"),
        (data[: len(data) // 2], BrokenFile, "cut short"),
        (tmp_path / "empty.mp4", BrokenFile, "empty"),
        (b"just words " * 100, UnsupportedFormat, "neither sound nor film"),
        ("http://127.0.0.1/a.mp4", InputError, "no such file"),
    ]
    for value, kind, words in cases:
        with pytest.raises(kind, match=words) as caught:
            taken(value, VideoSampling(temporal_resolution=2))
        assert caught.value.where
        assert caught.value.next_step


def cover(folder: Path) -> bytes:
    """An ID3 tag with a picture, as music has it."""
    from PIL import Image

    Image.new("RGB", (32, 32), "red").save(folder / "cover.png")
    body = b"\0image/png\0\x03\0" + (folder / "cover.png").read_bytes()
    frame = b"APIC" + struct.pack(">IH", len(body), 0) + body
    size = len(frame)
    length = bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127])
    return b"ID3\x03\0\0" + length + frame


def test_what_is_left_of_a_film_cut_short(tmp_path: Path) -> None:
    path = write_film(
        tmp_path / "a.mp4",
        (numbered(n) for n in range(100)),
        key_every=10,
        file_options={"movflags": "faststart"},
    )
    data = path.read_bytes()
    frames = taken(data[: len(data) * 2 // 3], EVERY)
    assert 20 < len(frames) < 90
    assert numbers(frames) == list(range(len(frames)))
    without = data[: data.index(b"mdat") + 8]
    with pytest.raises(BrokenFile, match=r"not one frame|damaged"):
        taken(without, EVERY)


def test_frames_that_cannot_be_decoded_are_an_error(film: Path) -> None:
    data = bytearray(film.read_bytes())
    start = data.index(b"mdat") + 4
    size = struct.unpack(">I", data[start - 8 : start - 4])[0] - 8
    data[start : start + size] = bytes(size)
    with pytest.raises(BrokenFile, match=r"not one frame|damaged"):
        taken(bytes(data), VideoSampling(temporal_resolution=4))


def test_damage_in_the_middle_costs_a_few_frames(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.avi", (numbered(n) for n in range(50)), "mjpeg", key_every=1)
    data = bytearray(path.read_bytes())
    middle = data.index(b"00dc", len(data) // 2) + 8
    (size,) = struct.unpack("<I", data[middle - 4 : middle])
    data[middle : middle + size] = bytes(size)
    found = numbers(taken(bytes(data), EVERY))
    assert len(found) == 49
    assert set(found) < set(range(50))


def test_a_frame_over_the_limit(film: Path) -> None:
    with pytest.raises(LimitExceeded, match="192 × 48"):
        list(Decoder(max_pixels=192 * 47).frames(Part.video(film), EVERY))


def test_memory_is_flat_and_files_are_closed(tmp_path: Path) -> None:
    """2000 frames of 169 kB are 338 MB."""
    width, height = 320, 176
    picture = np.zeros((height, width, 3), np.uint8)

    def drawn() -> Any:
        for number in range(2000):
            picture[:, :192] = numbered(number, height=height)
            yield picture

    path = write_film(tmp_path / "a.mp4", drawn(), "mpeg4", key_every=50)
    process = psutil.Process()
    for sampling, count in ((EVERY, 2000), (VideoSampling("scene"), None)):
        stream = Decoder().frames(Part.video(path), sampling)
        next(stream)
        before, most, seen = process.memory_info().rss, 0, 1
        for place, _ in enumerate(stream):
            seen += 1
            if place % 50 == 0:
                most = max(most, process.memory_info().rss)
        assert count is None or seen == count
        assert most - before < 60_000_000
    stream = Decoder().frames(Part.video(path), EVERY)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert str(path) not in {file.path for file in process.open_files()}


def test_pictures_are_a_film_of_one_a_second(tmp_path: Path) -> None:
    pictures = [numbered(n) for n in range(12)]
    for value in (pictures, tuple(pictures), np.stack(pictures)):
        frames = list(Decoder().frames(Part.video(value), VideoSampling(temporal_resolution=4)))
        assert [(f.seconds, number_of(f.pixels)) for f in frames] == [
            (1.0, 1), (4.0, 4), (7.0, 7), (10.0, 10),
        ]  # fmt: skip
    drawn = [frame[:, :, ::-1] for frame in scenes([5, 6])]
    cut = list(Decoder().frames(Part.video(drawn), VideoSampling("scene")))
    assert [frame.seconds for frame in cut] == [0.0, 5.0]
    for bad in ([], [1, 2], 7):
        with pytest.raises(InputError, match="a film cannot be"):
            Decoder().frames(Part.video(bad), EVERY)
    broken = [numbered(0), tmp_path / "absent.png"]
    with pytest.raises(InputError, match="no such file"):
        list(Decoder().frames(Part.video(broken), EVERY))
