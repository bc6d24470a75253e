"""Page pictures in the HTML report: as they are, or smaller where there are many."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from octavo.pipeline import page_pictures
from octavo.pipeline.page_pictures import LONG_EDGE_PX, PagePictures, shrunk

RED, GREEN = (200, 30, 30), (30, 160, 60)


def picture(path: Path, size: tuple[int, int], left: tuple[int, int, int]) -> Path:
    """The left half of one colour, the rest white."""
    image = Image.new("RGB", size, "white")
    image.paste(left, (0, 0, size[0] // 2, size[1]))
    image.save(path, quality=95)
    return path


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@pytest.fixture
def files(tmp_path: Path) -> dict[int, Path]:
    colours = [RED, GREEN] * 6
    return {
        number: picture(tmp_path / f"{number}.jpg", (990, 1400), colour)
        for number, colour in enumerate(colours, 1)
    }


def test_few_pictures_are_carried_byte_for_byte(tmp_path: Path, files: dict[int, Path]) -> None:
    files[20] = picture(tmp_path / "20.png", (1100, 1400), RED)
    with PagePictures(files) as carried:
        assert carried.take(3) == ("image/jpeg", files[3].read_bytes())
        assert carried.take(20) == ("image/png", files[20].read_bytes())
        assert carried.take(99) is None


@pytest.mark.parametrize("order", [range(1, 13), range(12, 0, -1), (2, 4, 12, 1)])
def test_many_pictures_are_carried_smaller(
    files: dict[int, Path], order: range | tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sum(file.stat().st_size for file in files.values())
    monkeypatch.setattr(page_pictures, "LIMIT_BYTES", whole - 1)
    with PagePictures(files) as carried:
        for number in order:
            taken = carried.take(number)
            assert taken is not None
            kind, data = taken
            assert kind == "image/jpeg"
            assert len(data) < files[number].stat().st_size / 2
            small = opened(data)
            assert small.size == (707, LONG_EDGE_PX)
            colour = np.asarray(small.convert("RGB"))[500, 100]
            assert np.abs(colour.astype(int) - (RED if number % 2 else GREEN)).max() < 20


def test_no_more_are_made_than_a_few_ahead(
    files: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    lock = threading.Lock()

    def counting(file: Path) -> bytes:
        with lock:
            made.append(file)
        return b"small"

    monkeypatch.setattr(page_pictures, "LIMIT_BYTES", 0)
    monkeypatch.setattr(page_pictures, "shrunk", counting)
    with PagePictures(files) as carried:
        for taken, number in enumerate(files, 1):
            assert carried.take(number) == ("image/jpeg", b"small")
            assert len(made) <= taken + 4
    assert sorted(made) == sorted(files.values())


def test_grey_stays_grey_and_small_pictures_stay_small(tmp_path: Path) -> None:
    Image.new("L", (700, 300), 128).save(tmp_path / "grey.jpg")
    Image.new("RGBA", (1200, 300), (0, 0, 255, 255)).save(tmp_path / "blue.png")
    Image.new("RGB", (5000, 2), "white").save(tmp_path / "strip.png")
    assert (opened(shrunk(tmp_path / "grey.jpg")).mode) == "L"
    assert opened(shrunk(tmp_path / "grey.jpg")).size == (700, 300)
    assert opened(shrunk(tmp_path / "blue.png")).size == (1000, 250)
    assert opened(shrunk(tmp_path / "strip.png")).size == (1000, 1)


def test_a_damaged_picture_is_an_error_of_the_file(tmp_path: Path) -> None:
    whole = picture(tmp_path / "a.jpg", (990, 1400), RED).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "other.jpg").write_bytes(b"not a picture")
    for name in ("cut.jpg", "other.jpg", "gone.jpg"):
        with pytest.raises(OSError):
            shrunk(tmp_path / name)
