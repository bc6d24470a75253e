"""Films: sizes and rows against what transformers' processors gave with torchvision."""

from __future__ import annotations

import json
import platform
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from octavo.errors import InputError
from octavo.models.checkpoint import Checkpoint
from octavo.models.processing import qwen_video
from octavo.models.processing.qwen_pictures import HALF, Patching
from octavo.models.processing.qwen_video import Film, FilmSettings, film_settings, films
from octavo.requests import Frame, Part, VideoSampling
from tests.golden import qwen_films

GOLDEN = json.loads((Path(qwen_films.__file__).parent / "qwen_films.json").read_text())
CASES = [(family, name) for family in qwen_films.FAMILIES for name in qwen_films.FILMS]
SETTINGS = {
    "qwen3-vl": FilmSettings(
        Patching(patch=16, min_pixels=4096, max_pixels=128 * 1024, mean=HALF, std=HALF),
        shared=True,
        max_tokens=768,
    ),
    "qwen2.5-vl": FilmSettings(Patching(min_pixels=3136, max_pixels=16 * 784)),
}


class Reader:
    """Plays lists of frames, one list a call; remembers what was asked and how many live."""

    def __init__(self, *films: list[Frame] | Callable[[], Iterator[Frame]]) -> None:
        self._films = list(films)
        self.asked: list[VideoSampling] = []

    def picture(self, part: Part) -> Any:
        raise AssertionError(part)

    def sound(self, part: Part, rate: int) -> Any:
        raise AssertionError(part)

    def frames(self, part: Part, sampling: VideoSampling) -> Iterator[Frame]:
        del part
        self.asked.append(sampling)
        film = self._films[min(len(self.asked), len(self._films)) - 1]
        yield from film() if callable(film) else film


def _frames(name: str) -> list[Frame]:
    _, _, rate, numbers = qwen_films.FILMS[name]
    return [
        Frame(number / rate, pixels)
        for number, pixels in zip(numbers, qwen_films.frames(name), strict=True)
    ]


def _plain(count: int, side: int = 32, segment: int = 0, start: float = 0.0) -> list[Frame]:
    return [
        Frame(start + number / 2, np.full((side, side, 3), number, np.uint8), segment)
        for number in range(count)
    ]


@pytest.mark.parametrize(("family", "name"), CASES)
def test_rows_are_those_of_transformers(family: str, name: str) -> None:
    (film,) = films(Part.video("a.mp4"), Reader(_frames(name)), SETTINGS[family])
    wanted = GOLDEN[family][name]
    assert [list(film.grid)] == wanted["grid"]
    found = qwen_films.facts(film.rows)
    assert found["shape"] == wanted["pixels"]["shape"]
    one_level = 1.01 / 255 / min(SETTINGS[family].patching.std)
    np.testing.assert_allclose(found["some"], wanted["pixels"]["some"], atol=one_level)
    assert found["sum"] == pytest.approx(wanted["pixels"]["sum"], abs=0.002 * film.rows.size)
    # torch rounds otherwise on other processors.
    if platform.machine() in ("x86_64", "AMD64"):
        assert found["sha256"] == wanted["pixels"]["sha256"]


@pytest.mark.parametrize(("family", "name"), CASES)
@pytest.mark.parametrize("tokens", qwen_films.CAPS)
def test_capped_sizes_are_those_of_transformers(family: str, name: str, tokens: int) -> None:
    settings = replace(SETTINGS[family], capped=True, max_tokens=tokens)
    high, wide, _, numbers = qwen_films.FILMS[name]
    size = settings.size(wide, high, len(numbers))
    patch = settings.patching.patch
    assert GOLDEN[family][name]["capped"][str(tokens)][1:] == [size[1] // patch, size[0] // patch]


@pytest.mark.parametrize("frames", [2, 3, 5, 6, 9, 64])
@pytest.mark.parametrize(("wide", "high"), [(1, 1), (33, 20), (640, 360), (3000, 40), (90, 4000)])
def test_sizes_are_those_of_transformers(frames: int, wide: int, high: int) -> None:
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize

    settings = SETTINGS["qwen3-vl"]
    wanted = smart_resize(frames, high, wide, 2, 32, 4096, 128 * 1024)
    assert settings.size(wide, high, frames) == (wanted[1], wanted[0])


def test_frames_are_streamed_and_counted_first(monkeypatch: pytest.MonkeyPatch) -> None:
    held = films(Part.video("a"), Reader(_frames("large")), SETTINGS["qwen3-vl"])[0]
    alive = most = 0

    def died() -> None:
        nonlocal alive
        alive -= 1

    def stream() -> Iterator[Frame]:
        nonlocal alive, most
        for second, pixels in enumerate(qwen_films.frames("large")):
            # A copy of its own, so that the frames do not keep one common array alive.
            mine = pixels.copy()
            weakref.finalize(mine, died)
            alive += 1
            most = max(most, alive)
            yield Frame(second / 2, mine)
            del mine

    monkeypatch.setattr(qwen_video, "HELD_BYTES", 0)
    reader = Reader(stream, stream)
    (film,) = films(Part.video("a"), reader, SETTINGS["qwen3-vl"])
    assert len(reader.asked) == 2
    assert most <= 4, "two pairs at most, while one is being replaced"
    np.testing.assert_array_equal(film.rows, held.rows)
    assert film.seconds == held.seconds


@pytest.mark.parametrize("second", [3, 5, 7, 9])
def test_a_film_that_changes_between_the_passes(
    second: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qwen_video, "HELD_BYTES", 0)
    with pytest.raises(InputError, match=r"a.mp4: the film changed"):
        films(Part.video("a.mp4"), Reader(_plain(6), _plain(second)), SETTINGS["qwen3-vl"])


def test_a_film_that_loses_a_segment_between_the_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qwen_video, "HELD_BYTES", 0)
    both = _plain(4) + _plain(4, segment=1)
    with pytest.raises(InputError, match="the film changed"):
        films(Part.video("a.mp4"), Reader(both, _plain(4)), SETTINGS["qwen3-vl"])


def test_without_a_wish_the_family_samples() -> None:
    reader = Reader(_plain(6))
    films(Part.video("a"), reader, SETTINGS["qwen3-vl"])
    assert reader.asked == [VideoSampling("rate", 768, 2.0)]


def test_a_short_film_is_looked_at_again() -> None:
    reader = Reader(_plain(1), _plain(4))
    (film,) = films(Part.video("a"), reader, SETTINGS["qwen3-vl"])
    assert reader.asked[1] == VideoSampling("uniform", 4)
    assert film.grid[0] == 2


@pytest.mark.parametrize(
    ("wish", "asked"),
    [
        (VideoSampling("uniform", 2), VideoSampling("uniform", 2)),
        (VideoSampling("uniform"), VideoSampling("uniform", 32)),
        (VideoSampling("scene", segment_s=9), VideoSampling("scene", 32, segment_s=9)),
        (VideoSampling("rate", fps=5), VideoSampling("rate", 768, 5)),
    ],
)
def test_a_wish_is_kept_and_its_gaps_filled(wish: VideoSampling, asked: VideoSampling) -> None:
    reader = Reader(_plain(1))
    (film,) = films(Part.video("a", wish), reader, SETTINGS["qwen3-vl"])
    assert reader.asked == [asked]
    assert film.grid[0] == 1, "one frame is shown twice"


def test_segments_are_films_of_their_own() -> None:
    frames = _plain(4) + _plain(3, segment=1, start=10.0)
    first, second = films(Part.video("a"), Reader(frames), SETTINGS["qwen3-vl"])
    assert (first.grid[0], second.grid[0]) == (2, 2)
    assert second.seconds == (10.0, 10.5, 11.0)
    assert second.group_seconds == (10.25, 11.0)


def test_a_film_without_frames() -> None:
    with pytest.raises(InputError, match=r"a.mp4: a film without frames"):
        films(Part.video("a.mp4"), Reader([]), SETTINGS["qwen2.5-vl"])


def test_frames_of_different_sizes() -> None:
    frames = _plain(3) + _plain(1, side=64)
    with pytest.raises(InputError, match="differ in size"):
        films(Part.video("a.mp4"), Reader(frames), SETTINGS["qwen2.5-vl"])


@pytest.mark.parametrize("family", sorted(SETTINGS))
@pytest.mark.parametrize(("high", "wide"), [(40, 9000), (0, 40), (1, 300)])
def test_a_film_that_is_too_narrow(family: str, high: int, wide: int) -> None:
    frames = [Frame(0.0, np.zeros((high, wide, 3), np.uint8))] * 4
    with pytest.raises(InputError, match="too narrow"):
        films(Part.video("a.mp4"), Reader(frames), SETTINGS[family])


@pytest.mark.parametrize(
    ("seconds", "pace"),
    [
        ((0.0, 0.5, 1.0, 1.5), 1.0),
        ((0.0, 0.467, 0.967, 1.467), 1.0),  # a frame early, 30 frames a second
        ((0.0, 0.4, 0.8), 0.8),
        ((3.0,), 1.0),
        ((0.0, 2.0), 4.0),
    ],
)
def test_time_between_groups(seconds: tuple[float, ...], pace: float) -> None:
    film = Film(np.zeros((1, 1), np.float32), (1, 1, 1), seconds, 2)
    assert film.seconds_per_group == pytest.approx(pace)


def test_settings_from_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    picture = {"patch_size": 16, "min_pixels": 77, "image_mean": list(HALF)}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(picture))
    checkpoint = Checkpoint.at(tmp_path)
    for family, least in (("qwen3-vl", 4096), ("qwen2.5-vl", 77)):
        found = film_settings(checkpoint, SETTINGS[family])
        assert (found.patching.patch, found.patching.min_pixels) == (16, least), family
    film = {"fps": 1, "max_frames": 9, "cap_pixels_per_frame": True, "max_video_tokens": 5}
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(film))
    found = film_settings(Checkpoint.at(tmp_path), SETTINGS["qwen3-vl"])
    assert found.sampling(None) == VideoSampling("rate", 9, 1.0)
    assert (found.capped, found.max_tokens, found.min_frames) == (True, 5, 4)
    assert found.patching == SETTINGS["qwen3-vl"].patching
