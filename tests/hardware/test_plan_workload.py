"""Workloads from words, and what pictures become."""

from __future__ import annotations

import pytest

from octavo.errors import ConfigError
from octavo.hardware.plan_workload import Workload, pictures_of

from .planning import seeing_model


def test_what_is_not_named_keeps_its_default() -> None:
    assert Workload.parse("") == Workload()
    assert Workload.parse("pages=20, dpi=150,audio_s=2.5") == Workload(
        pages=20, dpi=150, audio_s=2.5
    )


def test_a_page_is_an_a4_at_its_resolution() -> None:
    assert Workload.parse("pages=1,dpi=200").size == (1654, 2338)
    assert Workload.parse("pages=1").pictures == 1
    assert Workload.parse("images=2,width=640,height=480").size == (640, 480)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pagse=2", "pages"),
        ("zzz=1", "audio_s, batch"),
        ("dpi", "dpi has no value"),
        ("dpi=", "must be a number"),
        ("dpi=fine", "must be a number"),
        ("new=0", "new must be at least 1"),
        ("images=-1", "images must be 0 or more"),
        ("width=0,images=1", "width must be at least 1"),
        ("audio_s=nan", "audio_s must be 0 or more"),
        ("audio_s=inf", "audio_s must be 0 or more"),
        ("dpi=100,dpi=200", "given twice"),
    ],
)
def test_what_is_wrong_is_named(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        Workload.parse(text)
    assert words in str(wrong.value)


def test_pictures_cost_what_the_rule_says() -> None:
    spec = seeing_model()
    seen = pictures_of(spec, Workload(images=2, width=1024, height=512))
    assert seen.patches == 2 * 64 * 32
    assert seen.tokens == 2 * (16 * 32 + 2)
    # Two frames share a patch; a picture stands for both.
    assert seen.pixels == 2 * 1024 * 512 * 2
    film = pictures_of(spec, Workload(frames=8, width=1024, height=512))
    assert film.patches == 4 * 64 * 32
