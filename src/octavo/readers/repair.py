"""Single words that a text layer gets wrong, read again from their pixels.

Fonts without a complete Unicode map turn a ligature or a minus into something else while the rest
of the page is right. Such words are told by signs that no word has inside it; what the pixels say
is taken only where it agrees with the letters that are known.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from octavo.media.page import Word
from octavo.readers.soundness import agreement
from octavo.types import Box

# A sign, a symbol or an arrow between two letters.
_INSIDE = re.compile(
    r"[^\W\d_]([\"#$!%*+<>=^~|\\?{}\u00a1-\u00b6\u00b8-\u00bf\u2020-\u2027\u2100-\u2bff])[a-z]"
)
_SURE = 0.75
_AGREES = 0.7
_MOST = 80  # words a page; with more the layer as a whole is in doubt

Read = Callable[[Sequence[Box]], Sequence[tuple[str, float]]]


def is_suspect(word: Word) -> bool:
    """Whether a word holds a character without a meaning, or a sign between its letters."""
    if abs(word.angle) >= 5 or "://" in word.text or "@" in word.text:
        return False
    return word.broken > 0 or "\ufffd" in word.text or bool(_INSIDE.search(word.text))


def _alike(words: Sequence[Word], suspects: Sequence[int]) -> list[int]:
    """Words that begin with a sign which the same font uses for something inside of others."""
    signs = {
        (words[i].font, match.group(1))
        for i in suspects
        if (match := _INSIDE.search(words[i].text)) is not None
    }
    return [
        i for i, w in enumerate(words) if (w.font, w.text[:1]) in signs and w.text[1:2].islower()
    ]


def mend_words(words: Sequence[Word], read: Read) -> list[Word]:
    """The words, suspects replaced by what their pixels say where that agrees with them.

    Args:
        read: text and confidence of each box, as ``OcrEngine.read_boxes``.
    """
    suspects = [i for i, word in enumerate(words) if is_suspect(word)]
    suspects = sorted({*suspects, *_alike(words, suspects)})[:_MOST]
    out = list(words)
    if not suspects:
        return out
    readings = read([words[i].box for i in suspects])
    for i, (text, confidence) in zip(suspects, readings, strict=True):
        word = words[i]
        seen = text.replace(" ", "")
        known = "".join(c for c in word.text if c.isalnum())
        agrees = agreement(word.text, seen) >= _AGREES if known else len(seen) <= 2
        if seen and confidence >= _SURE and agrees and abs(len(seen) - len(word.text)) <= 3:
            out[i] = replace(word, text=seen, confidence=confidence, broken=0.0)
    return out
