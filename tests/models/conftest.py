"""Tiny checkpoints, each made once a session, and media in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.checkpoints import make

from octavo.requests import Frame, Part, VideoSampling


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``tiny("llava")``: the folder of a tiny checkpoint; do not write into it."""
    made: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in made:
            made[family] = make(family, tmp_path_factory.mktemp(family.replace(".", "-")))
        return made[family]

    return of


class Held:
    """A media reader for parts that hold arrays."""

    def picture(self, part: Part) -> Any:
        return np.asarray(part.value)

    def sound(self, part: Part, rate: int) -> Any:
        samples, found = part.value
        assert found == rate, "tests hand in sound at the model's rate"
        return samples

    def frames(self, part: Part, sampling: VideoSampling) -> Iterator[Frame]:
        wanted = sampling.temporal_resolution or len(part.value)
        for number in np.linspace(0, len(part.value) - 1, wanted).round().astype(int):
            yield Frame(float(number), part.value[number])


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture
def picture() -> Any:
    """``uint8`` 100 x 140 x 3, noise with a fixed seed."""
    return np.random.default_rng(0).integers(0, 255, (100, 140, 3), dtype=np.uint8)
