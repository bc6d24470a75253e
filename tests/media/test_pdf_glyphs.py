"""Order of letters that one glyph stands for, and of points that are drawn apart."""

from __future__ import annotations

import numpy as np

from octavo.media.pdf_glyphs import Characters, Style, place
from octavo.media.pdf_words import words_of
from octavo.media.pdfium import Placement
from octavo.types import Box

PAGE = Placement.around(0, 0, 200, 100, 0)


def characters(placed: list[tuple[str, float, float]]) -> Characters:
    """Letters of size 10 on the line y = 50, each from left to right edge, in file order."""
    count = len(placed)
    left = np.array([first for _, first, _ in placed])
    right = np.array([last for _, _, last in placed])
    low, high = np.full(count, 50.0), np.full(count, 57.0)
    boxes = np.stack([left, right, low, high], 1)
    return Characters(
        codes=np.array([ord(letter) for letter, _, _ in placed], dtype=np.uint32),
        blank=np.array([letter == " " for letter, _, _ in placed]),
        generated=np.zeros(count, dtype=bool),
        unmapped=np.zeros(count, dtype=bool),
        origin=np.stack([left, low], 1),
        ink=boxes,
        advance=boxes,
        style=np.zeros(count, dtype=np.int64),
        styles=[Style(size=10.0)],
    )


def texts(placed: list[tuple[str, float, float]]) -> list[str]:
    words = words_of(place(characters(placed), PAGE), Box(0, 0, 200, 100))
    return [word.text for word in words]


def test_lam_alef_reads_lam_first() -> None:
    alef, alef_below, lam, noon = "\u0627", "\u0625", "\u0644", "\u0646"
    placed = [(alef, 90, 93), (alef_below, 84, 90), (lam, 84, 90), (noon, 80, 84)]
    assert texts(placed) == [alef + lam + alef_below + noon]


def test_pieces_of_a_latin_ligature_keep_their_order() -> None:
    assert texts([("o", 10, 15), ("f", 15, 22), ("f", 15, 22), ("i", 15, 22)]) == ["offi"]


def test_a_point_goes_behind_its_letter() -> None:
    yeh, fathatan, dad, alef = "\u064a", "\u064b", "\u0636", "\u0627"
    placed = [(yeh, 90, 93), (fathatan, 81, 83), (dad, 80, 90), (alef, 77, 80)]
    assert texts(placed) == [yeh + dad + fathatan + alef]


def test_an_accent_alone_stays() -> None:
    assert texts([("a", 10, 15), (" ", 15, 18), ("´", 30, 33)]) == ["a", "´"]


def test_a_latin_word_before_an_arabic_one() -> None:
    placed = [("R", 90, 96), ("\u0623", 84, 87), ("\u062f", 80, 84)]
    assert texts(placed) == ["R", "\u0623\u062f"]
