"""The reader of a request's media: pictures of every origin, and parts of the wrong kind."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_media import number_of, numbered, sine, write_film, write_sound
from PIL import Image

from octavo.errors import BrokenFile, InputError, LimitExceeded, SourceNotFound
from octavo.media.decode import Decoder
from octavo.requests import MediaReader, Part, VideoSampling


@pytest.fixture
def reader() -> MediaReader:
    return Decoder()


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def halves() -> Any:
    """Red above, blue below; 40 wide, 60 high."""
    pixels = np.zeros((60, 40, 3), np.uint8)
    pixels[:30, :, 0] = pixels[30:, :, 2] = 255
    return pixels


def test_a_picture_is_the_same_from_everywhere(tmp_path: Path, reader: MediaReader) -> None:
    image = Image.fromarray(halves())
    data = encoded(image)
    path = tmp_path / "a.png"
    path.write_bytes(data)
    for value in (path, str(path), data, bytearray(data), memoryview(data), image, halves()):
        pixels = reader.picture(Part.image(value))
        assert pixels.dtype == np.uint8
        assert np.array_equal(pixels, halves())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright(tmp_path: Path, reader: MediaReader, orientation: int) -> None:
    stored = {
        1: halves(), 2: halves()[:, ::-1], 3: halves()[::-1, ::-1], 4: halves()[::-1],
        5: halves().swapaxes(0, 1), 6: np.rot90(halves()), 7: np.rot90(halves()[::-1], 1),
        8: np.rot90(halves(), -1),
    }[orientation]  # fmt: skip
    if orientation == 7:
        stored = halves()[::-1, ::-1].swapaxes(0, 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    path = tmp_path / "a.png"
    path.write_bytes(data)
    for value in (path, data, Image.open(BytesIO(data))):
        assert np.array_equal(reader.picture(Part.image(value)), halves())


def test_other_pixels_become_rgb(reader: MediaReader) -> None:
    grey = np.arange(200, dtype=np.uint8).reshape(10, 20)
    assert np.array_equal(reader.picture(Part.image(grey)), np.repeat(grey[..., None], 3, 2))
    clear = np.zeros((4, 4, 4), np.uint8)
    assert reader.picture(Part.image(clear)).min() == 255
    assert reader.picture(Part.image(Image.fromarray(clear))).min() == 255
    deep = Image.fromarray(np.full((4, 4), 0x8000, np.uint16))
    assert (reader.picture(Part.image(encoded(deep))) == 128).all()


def test_a_pdf_is_no_picture_and_the_message_says_what_reads_it(
    tmp_path: Path, reader: MediaReader
) -> None:
    path = tmp_path / "paper.pdf"
    path.write_bytes(b"%PDF-1.7\n%%EOF\n")
    for value in (path, path.read_bytes()):
        with pytest.raises(BrokenFile) as caught:
            reader.picture(Part.image(value))
        assert "octavo parse" in str(caught.value.next_step)


def test_pictures_that_are_none(tmp_path: Path, reader: MediaReader) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), "JPEG")
    short = tmp_path / "short.jpg"
    short.write_bytes(whole[: len(whole) // 2])
    cases: list[tuple[Any, type[InputError], str]] = [
        (b"", BrokenFile, "empty"),
        (b"no picture at all", BrokenFile, "not a picture"),
        (whole[: len(whole) // 2], BrokenFile, "cut short"),
        (short, BrokenFile, "cut short"),
        (Image.open(BytesIO(short.read_bytes())), BrokenFile, "cut short"),
        (tmp_path / "absent.png", SourceNotFound, "no such file"),
        (np.zeros((4, 4, 3), np.float32), InputError, "float32"),
        (np.zeros((4, 4, 2), np.uint8), InputError, "shape"),
        (np.zeros((3, 4, 4, 3), np.uint8), InputError, "shape"),
        (np.zeros((0, 4, 3), np.uint8), InputError, "without pixels"),
        (7, InputError, "type int"),
    ]
    for value, kind, words in cases:
        with pytest.raises(kind, match=words) as caught:
            reader.picture(Part.image(value))
        assert caught.value.where
        assert caught.value.next_step


def test_bombs_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    data = bytearray(encoded(Image.new("L", (20, 20))))
    head = b"IHDR" + struct.pack(">II", 20_000, 20_000) + data[24:29]
    data[12:33] = head + struct.pack(">I", zlib.crc32(head))
    path = tmp_path / "bomb.png"
    path.write_bytes(data)
    for value in (path, bytes(data)):
        with pytest.raises(LimitExceeded):
            Decoder().picture(Part.image(value))
    small = Decoder(max_pixels=100)
    for value in (encoded(Image.new("L", (20, 20))), Image.new("L", (20, 20)), halves()):
        with pytest.raises(LimitExceeded, match="over the limit of 100"):
            small.picture(Part.image(value))


def test_sound_and_film_by_the_same_reader(tmp_path: Path, reader: MediaReader) -> None:
    film = write_film(tmp_path / "a.mp4", (numbered(n) for n in range(20)), sound=sine(0.8, 16_000))
    sound = write_sound(tmp_path / "a.wav", sine(1, 44_100), 44_100, "pcm_s16le")
    assert len(reader.sound(Part.audio(str(sound)), 16_000)) == 16_000
    assert len(reader.sound(Part.audio((sine(1, 8_000), 8_000)), 16_000)) == 16_000
    assert len(reader.sound(Part.video(film), 16_000)) > 12_000
    frames = list(reader.frames(Part.video(str(film)), VideoSampling(temporal_resolution=2)))
    assert [number_of(frame.pixels) for frame in frames] == [5, 15]
    with pytest.raises(InputError, match="cannot be of type int"):
        reader.sound(Part.audio(3), 16_000)
    with pytest.raises(LimitExceeded):
        Decoder(max_seconds=0.5).sound(Part.audio(sound), 16_000)


def test_parts_of_another_kind(reader: MediaReader) -> None:
    for ask in (
        lambda: reader.picture(Part.audio("a.wav")),
        lambda: reader.sound(Part.image("a.png"), 16_000),
        lambda: reader.frames(Part.text("words"), VideoSampling()),
    ):
        with pytest.raises(InputError, match="this part is"):
            ask()
