"""Dot leaders: they lead the eye from a label to its number and are no text."""

from __future__ import annotations

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


def without_leaders(words: Sequence[Word]) -> tuple[list[Word], list[Word]]:
    """``words`` without leaders, and the words that were leaders or ended in some.

    Words keep their order. Dots count by line: four or more that stand apart from text.
    """
    dots = [word for word in words if _DOTS.match(word.text)]
    marked = {
        id(word) for line in lines_of(dots) if _count(line.words) >= _MANY for word in line.words
    }
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


def _count(words: Sequence[Word]) -> int:
    return sum(3 if char in "…" else 1 for word in words for char in word.text)


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
