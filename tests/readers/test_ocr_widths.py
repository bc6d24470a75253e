from __future__ import annotations

import numpy as np
import pytest

from octavo.media.page import Pixels
from octavo.readers import ocr_recognize
from octavo.readers.ocr_quads import Quad
from octavo.readers.ocr_recognize import SQUEEZE, SQUEEZE_AGAIN, SQUEEZE_WORN, Reading, Recognizer

PIXELS = np.zeros((10, 10, 3), dtype=np.uint8)


def quads(count: int) -> list[Quad]:
    corners = np.array([[0, 0], [100, 0], [100, 20], [0, 20]], dtype=np.float32)
    return [Quad(corners, 0.9) for _ in range(count)]


@pytest.fixture
def recognizer() -> Recognizer:
    return Recognizer(threads=2)


def pretend(monkeypatch: pytest.MonkeyPatch, sure_from: float) -> list[float]:
    """Readings whose text is the width that they were read at; sure from one width on."""
    widths: list[float] = []

    def read_at(
        self: Recognizer, pixels: Pixels, quad: Quad, turn: bool, squeeze: float
    ) -> Reading:
        widths.append(squeeze)
        chance = np.array([0.99 if squeeze >= sure_from else 0.5], dtype=np.float32)
        crop = np.zeros((48, 400), dtype=np.uint8)
        return Reading(str(squeeze), np.zeros(1, np.float32), chance, crop, np.eye(2, 3), False)

    monkeypatch.setattr(ocr_recognize.Recognizer, "_read_at", read_at)
    return widths


def test_clean_pages_are_read_narrow_and_once(
    recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths = pretend(monkeypatch, SQUEEZE)
    assert [r.text for r in recognizer.read(PIXELS, quads(40))] == [str(SQUEEZE)] * 40
    assert len(widths) == 40


def test_worn_pages_are_read_wider(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, SQUEEZE_WORN)
    assert [r.text for r in recognizer.read(PIXELS, quads(40))] == [str(SQUEEZE_WORN)] * 40


def test_doubtful_lines_are_read_again(
    recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, SQUEEZE_AGAIN)
    assert [r.text for r in recognizer.read(PIXELS, quads(5))] == [str(SQUEEZE_AGAIN)] * 5
