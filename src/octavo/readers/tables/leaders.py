"""Dot leaders: they lead the eye from a label to its number and are no text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace

from octavo.media.page import Word
from octavo.readers.tables.text import lines_of
from octavo.types import Box

_DOTS = re.compile(r"^[.…·․‥]+$")
#: Leaders that stand against the text before or after them.
_TAIL = re.compile(r"(?:[.…·․‥]{4,}|…{2,})$")
_FRONT = re.compile(r"^(?:[.…·․‥]{4,}|…{2,})")
#: So many dots on one line are leaders; fewer may be an omission or a missing number.
_MANY = 4
#: Lone dots are the remains of leaders where there are at least so many on the page.
_FEW_LINES = 3


def without_leaders(words: Sequence[Word]) -> tuple[list[Word], list[Word]]:
    """``words`` without leaders, and the words that were leaders or ended in some.

    Words keep their order. Dots count by line: four or more that stand apart from text.
    """
    dots = [word for word in words if _DOTS.match(word.text)]
    marked = {
        id(word) for line in lines_of(dots) if _count(line.words) >= _MANY for word in line.words
    }
    marked |= _remains(words, dots)
    kept: list[Word] = []
    led: list[Word] = []
    for word in words:
        if id(word) in marked:
            led.append(word)
            continue
        bare = _bare(word)
        if bare is not word:
            led.append(word)
        kept.append(bare)
    return kept, led


def _remains(words: Sequence[Word], dots: Sequence[Word]) -> set[int]:
    """One or two dots just behind letters: what an OCR engine makes of leaders."""
    few = [word for word in dots if word.text in (".", "..")]
    if len(few) < _FEW_LINES:
        return set()
    out = set()
    for line in lines_of(words):
        for before, word in itertools.pairwise(line.words):
            near = word.box.left - before.box.right < 1.5 * before.font_size
            if word.text in (".", "..") and near and before.text[-1].isalpha():
                out.add(id(word))
    return out


def _count(words: Sequence[Word]) -> int:
    return sum(3 if char == "…" else 1 for word in words for char in word.text)


def _bare(word: Word) -> Word:
    """The word without the leaders at its ends; the box shrinks by their share of its letters."""
    if _DOTS.match(word.text):
        return word
    front, tail = _FRONT.search(word.text), _TAIL.search(word.text)
    if front is None and tail is None:
        return word
    start = front.end() if front else 0
    end = tail.start() if tail else len(word.text)
    step = word.box.width / len(word.text)
    box = Box(
        word.box.left + start * step, word.box.top, word.box.left + end * step, word.box.bottom
    )
    return replace(word, text=word.text[start:end], box=box)
