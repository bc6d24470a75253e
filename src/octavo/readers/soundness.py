"""Is the text layer of a page what a person sees on it?

A layer may be missing, drawn invisibly under a scan, garbled by a font without a Unicode map, or
cover only a part of the ink. What looks suspicious but could be right is put to the proof by the
caller: a few lines are read from the pixels and compared (``agreement``).
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from enum import Enum

import numpy as np
import numpy.typing as npt

from octavo.media.page import Pixels, TextLayer, Word
from octavo.types import Box

_VOWELS = frozenset("aeiouyàáâãäåæèéêëìíîïòóôõöøùúûüœ")
# The commonest letters of European languages make up half of their text or more.
_COMMON = frozenset("eaoinrst")
# Signs of ordinary print.
_ORDINARY = frozenset(".,;:-–()[]'\"/%_•·")
#: Scripts that the embedded recognizer reads; for others the proof would be worthless.
_READABLE = ("LATIN", "CJK", "HIRAGANA", "KATAKANA", "DIGIT")


class Verdict(Enum):
    """What to do with a text layer."""

    SOUND = "sound"
    PROVE = "prove"
    UNSOUND = "unsound"
    BLANK = "blank"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and the reason for it, in words for the report."""

    verdict: Verdict
    reason: str


def without_hidden(layer: TextLayer) -> tuple[TextLayer, int]:
    """The layer without invisible words where enough is visible, and how many were left out.

    Where nearly all is invisible the page is a scan with text under it, to be proved as a whole.
    """
    letters = sum(len(word.text) for word in layer.words)
    seen = [word for word in layer.words if not word.invisible]
    visible = sum(len(word.text) for word in seen)
    if visible == letters or visible < 0.3 * letters:
        return layer, 0
    return replace(layer, words=tuple(seen)), len(layer.words) - len(seen)


def judge(layer: TextLayer, page: Box, pixels: Pixels, scale: float) -> Judgement:
    """Judge the text layer of a page drawn at ``scale`` pixels a page unit."""
    ink = ink_mask(pixels)
    letters = sum(len(word.text) for word in layer.words)
    if letters == 0:
        if float(ink.mean()) < 2e-4:
            return Judgement(Verdict.BLANK, "the page is blank")
        return Judgement(Verdict.UNSOUND, "the page has no text layer")
    invisible = sum(len(w.text) for w in layer.words if w.invisible) / letters
    broken = sum(w.broken * len(w.text) for w in layer.words) / letters
    if broken > 0.2:
        return Judgement(Verdict.UNSOUND, f"{broken:.0%} of the characters have no Unicode meaning")
    words_ink = _ink_under_words(layer.words, ink, scale)
    if invisible < 0.5 and words_ink < 0.5:
        return Judgement(Verdict.UNSOUND, f"only {words_ink:.0%} of the words stand over ink")
    if invisible > 0.5:
        return Judgement(Verdict.PROVE, f"{invisible:.0%} of the text is drawn invisibly")
    if broken > 0.03:
        return Judgement(Verdict.PROVE, f"{broken:.0%} of the characters have no Unicode meaning")
    if _garbled(layer.words):
        return Judgement(Verdict.PROVE, "the words do not look like a language")
    backdrop = max((box.intersection(page) / page.area for box in layer.images), default=0.0)
    if backdrop > 0.7:
        return Judgement(Verdict.PROVE, f"a picture covers {backdrop:.0%} of the page")
    uncovered = _uncovered(layer, ink, scale)
    if uncovered > 0.5:
        return Judgement(
            Verdict.PROVE, f"{uncovered:.0%} of the ink is not covered by the text layer"
        )
    return Judgement(Verdict.SOUND, "the text layer is sound")


def ink_mask(pixels: Pixels) -> npt.NDArray[np.bool_]:
    """Pixels that differ clearly from the paper, which is the most frequent grey."""
    # The grey times three: whole numbers take a fifth of the time of a mean.
    grey = pixels[..., 0].astype(np.int16) + pixels[..., 1] + pixels[..., 2]
    counts = np.bincount(grey.ravel(), minlength=3 * 256).reshape(256, 3).sum(axis=1)
    paper = int(counts.argmax())
    mask: npt.NDArray[np.bool_] = np.abs(grey - 3 * paper) > 3 * 48
    return mask


def _mask(boxes: Sequence[Box], shape: tuple[int, ...], scale: float) -> npt.NDArray[np.bool_]:
    mask = np.zeros(shape[:2], dtype=bool)
    for box in boxes:
        top, left = max(int(box.top * scale), 0), max(int(box.left * scale), 0)
        mask[top : int(box.bottom * scale) + 1, left : int(box.right * scale) + 1] = True
    return mask


def _ink_under_words(words: Sequence[Word], ink: npt.NDArray[np.bool_], scale: float) -> float:
    sample = words[:: max(1, len(words) // 300)]
    hits = 0
    for word in sample:
        box = word.box.scale(scale)
        part = ink[
            max(int(box.top), 0) : int(box.bottom) + 1, max(int(box.left), 0) : int(box.right) + 1
        ]
        hits += int(np.count_nonzero(part)) > 0.01 * part.size
    return hits / len(sample)


def _uncovered(layer: TextLayer, ink: npt.NDArray[np.bool_], scale: float) -> float:
    """The share of text-like ink outside words, pictures, drawings and rulings."""
    em = float(np.median([w.font_size for w in layer.words]))
    drawn = [box for box in layer.shapes if min(box.width, box.height) > 3 * em]
    drawn += [box for box in layer.images if box.area > 9 * em * em]
    drawn += [rule.box.expand(0.15 * em) for rule in layer.rulings]
    open_ink = ink & ~_mask(drawn, ink.shape, scale)
    total = int(open_ink.sum())
    if total < 0.002 * ink.size:
        return 0.0
    words = _mask([w.box.expand(0.2 * em) for w in layer.words], ink.shape, scale)
    return int((open_ink & ~words).sum()) / total


def _garbled(words: Sequence[Word]) -> bool:
    """Latin letters in shares that no language has, or a soup of signs."""
    text = "".join(word.text for word in words)
    # Counted first: a page has thousands of characters, but few different ones.
    characters = Counter(text)
    signs = sum(n for c, n in characters.items() if not c.isalnum() and c not in _ORDINARY)
    if len(text) > 60 and signs > 0.35 * len(text):
        return True
    letters = {c: n for c, n in Counter(text.lower()).items() if c.isalpha()}
    latin = {c: n for c, n in letters.items() if unicodedata.name(c, "").startswith("LATIN")}
    total = sum(latin.values())
    if total < 60 or total < 0.8 * sum(letters.values()):
        return False
    vowels = sum(n for c, n in latin.items() if c in _VOWELS) / total
    common = sum(n for c, n in latin.items() if c in _COMMON) / total
    return common < 0.42 or not 0.22 < vowels < 0.62


def provable(words: Sequence[Word]) -> bool:
    """Whether the embedded recognizer reads the script of these words."""
    letters = [c for word in words for c in word.text if c.isalpha()][:2000]
    known = sum(unicodedata.name(c, "").startswith(_READABLE) for c in letters)
    return known > 0.7 * len(letters)


def agreement(layer_text: str, seen_text: str) -> float:
    """How far two readings of the same spot agree, 0 to 1; case, spaces and signs do not count."""
    a, b = (_bare(text) for text in (layer_text, seen_text))
    if not a:
        return 0.0
    return SequenceMatcher(None, a, b, autojunk=False).ratio()


def _bare(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in folded if c.isalnum())
