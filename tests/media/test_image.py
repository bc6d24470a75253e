"""Pictures: orientation, frames, colours, limits and damage."""

from __future__ import annotations

import importlib.util
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octavo.errors import (
    BrokenFile,
    LimitExceeded,
    MissingDependency,
    PageError,
    SourceNotFound,
)
from octavo.media.image import open_image, to_rgb
from octavo.types import Box

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def flag() -> Image.Image:
    """60 × 40, red above, and the right half of the lower part blue on white."""
    image = Image.new("RGB", (60, 40), "white")
    image.paste(RED, (0, 0, 60, 20))
    image.paste(BLUE, (30, 20, 60, 40))
    return image


#: What a camera that was held in each way stores, from the upright picture.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", STORED)
def test_every_orientation_is_shown_upright(tmp_path: Path, orientation: int) -> None:
    how = STORED[orientation]
    stored = flag() if how is None else flag().transpose(how)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "photo.png", exif=exif)
    with open_image(tmp_path / "photo.png") as source:
        (page,) = source.pages((1,))
        assert (page.width, page.height) == (60, 40)
        assert np.array_equal(page.render(1.0), np.asarray(flag()))


def test_size_is_upright_before_decoding(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [Image.new("RGB", (10 + n, 20), "white") for n in range(3)]
    frames[0].save(tmp_path / "scan.tif", save_all=True, append_images=frames[1:], exif=exif)
    with open_image(tmp_path / "scan.tif") as source:
        first = next(source.pages((1,)))
        assert (first.width, first.height) == (20, 10)
        assert first.render(1.0).shape == (10, 20, 3)


def test_pages_of_a_tiff(tmp_path: Path) -> None:
    colours = [RED, GREEN, BLUE]
    frames = [Image.new("RGB", (30 + n, 20), colour) for n, colour in enumerate(colours)]
    frames[0].save(tmp_path / "scan.tif", save_all=True, append_images=frames[1:])
    with open_image(tmp_path / "scan.tif") as source:
        assert len(source) == 3
        for page in source.pages((3, 1, 2)):
            pixels = page.render(1.0)
            assert pixels.shape == (20, 29 + page.number, 3)
            assert pixels[10, 10].tolist() == list(colours[page.number - 1])


def test_previews_in_a_tiff_are_no_pages(tmp_path: Path) -> None:
    whole = Image.new("RGB", (40, 30), RED)
    small = Image.new("RGB", (8, 6), RED)
    small.encoderinfo = {"tiffinfo": {254: 1}}
    whole.save(tmp_path / "scan.tif", save_all=True, append_images=[small])
    with open_image(tmp_path / "scan.tif") as source:
        assert len(source) == 1


def test_frames_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in (RED, BLUE)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    with open_image(tmp_path / "moving.gif") as source:
        shown = [page.render(1.0)[5, 5].tolist() for page in source.pages((1, 2))]
    assert shown == [list(RED), list(BLUE)]


def test_scale_and_region(tmp_path: Path) -> None:
    flag().save(tmp_path / "flag.png")
    with open_image(tmp_path / "flag.png") as source:
        (page,) = source.pages((1,))
        assert page.render(0.5).shape == (20, 30, 3)
        assert page.render(3.0).shape == (40, 60, 3)
        part = page.render(1.0, Box(30, 20, 60, 40))
        assert np.array_equal(part, np.asarray(flag().crop((30, 20, 60, 40))))
        part[:] = 0
        assert page.render(1.0)[30, 45].tolist() == list(BLUE)
        assert page.render(0.5, Box(30, 20, 90, 90)).shape == (10, 15, 3)
        with pytest.raises(PageError, match="nothing to draw"):
            page.render(1.0, Box(60, 40, 70, 50))
        assert page.natural_scale(300, None) == 1.0
        assert page.natural_scale(300, 30) == pytest.approx(0.5)
        assert page.natural_scale(300, 300) == 1.0
        assert page.text_layer().words == ()


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "RGB", "YCbCr"])
def test_colours_become_rgb(tmp_path: Path, mode: str) -> None:
    name = "grey.tif" if mode != "P" else "grey.png"
    Image.new("RGB", (8, 8), "white").convert(mode).save(tmp_path / name)
    with open_image(tmp_path / name) as source:
        pixels = next(source.pages((1,))).render(1.0)
    assert pixels.shape == (8, 8, 3)
    assert pixels.dtype == np.uint8
    assert pixels.min() >= 250


def test_what_shows_through_is_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (4, 2), (0, 0, 0, 0))
    image.putpixel((0, 0), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 0, 128))
    image.save(tmp_path / "logo.png")
    with open_image(tmp_path / "logo.png") as source:
        pixels = next(source.pages((1,))).render(1.0)
    assert pixels[0, 0].tolist() == list(RED)
    assert pixels[1, 1].tolist() == list(WHITE)
    assert 125 <= int(pixels[0, 1, 0]) <= 129


def test_sixteen_bits_keep_their_upper_half(tmp_path: Path) -> None:
    ramp = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    with open_image(tmp_path / "deep.png") as source:
        pixels = next(source.pages((1,))).render(1.0)
    assert pixels[0, :, 1].tolist() == [0, 1, 128, 255]


def test_floats_are_stretched() -> None:
    values = np.array([[-1.0, 0.0, 1.0, np.nan]], dtype=np.float32)
    assert to_rgb(Image.fromarray(values))[0, :, 0].tolist() == [0, 127, 255, 127]


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flag().save(tmp_path / "flag.png")
    with pytest.raises(LimitExceeded, match="60 × 40"):
        open_image(tmp_path / "flag.png", max_pixels=2000)
    monkeypatch.setattr("octavo.media.image.MAX_FRAMES", 1)
    flag().save(tmp_path / "two.tif", save_all=True, append_images=[flag()])
    with pytest.raises(LimitExceeded, match="2 pictures"):
        open_image(tmp_path / "two.tif")


@pytest.mark.parametrize("side", [9_200, 12_000, 60_000])
def test_a_bomb_is_refused_without_decoding(tmp_path: Path, side: int) -> None:
    """A header that promises more than the limit: of this package, and twice of Pillow."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    (tmp_path / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1_000_000))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(LimitExceeded):
        open_image(tmp_path / "bomb.png")


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "tif", "webp", "bmp"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_cut_short(tmp_path: Path, kind: str, share: float) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    noise.save(tmp_path / f"whole.{kind}")
    data = (tmp_path / f"whole.{kind}").read_bytes()
    (tmp_path / f"part.{kind}").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BrokenFile):
        open_image(tmp_path / f"part.{kind}")


def test_a_damaged_second_page_leaves_the_first(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    frames = [Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)) for _ in range(2)]
    path = tmp_path / "scan.tif"
    frames[0].save(path, save_all=True, append_images=frames[1:], compression="tiff_lzw")
    with Image.open(path) as image:
        image.seek(1)
        start = image.tag_v2[273][0]
    data = bytearray(path.read_bytes())
    data[start : start + 200] = b"\xff" * 200
    path.write_bytes(data)
    with open_image(path) as source:
        first, second = source.pages((1, 2))
        assert np.array_equal(first.render(1.0), np.asarray(frames[0]))
        with pytest.raises(PageError, match="damaged"):
            second.render(1.0)
        with pytest.raises(PageError, match="no such page"):
            next(source.pages((3,))).render(1.0)


def test_not_a_picture_a_folder_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(BrokenFile, match="not a picture"):
        open_image(tmp_path / "text.png")
    with pytest.raises(SourceNotFound, match="folder"):
        open_image(tmp_path)
    with pytest.raises(SourceNotFound, match="no such file"):
        open_image(tmp_path / "missing.png")


@pytest.mark.skipif(
    importlib.util.find_spec("pillow_heif") is not None, reason="the plugin is installed"
)
def test_heic_without_its_plugin_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "phone.heic").write_bytes(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic")
    with pytest.raises(MissingDependency) as caught:
        open_image(tmp_path / "phone.heic")
    assert caught.value.next_step == "pip install pillow-heif"


def test_a_closed_picture(tmp_path: Path) -> None:
    flag().save(tmp_path / "flag.png")
    source = open_image(tmp_path / "flag.png")
    (page,) = source.pages((1,))
    source.close()
    source.close()
    with pytest.raises(PageError, match="closed"):
        page.render(1.0)
