"""Cuts a stream of placed characters into words. Pure geometry: no pdfium here."""

from __future__ import annotations

import math
import unicodedata
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from octavo.media.page import Word
from octavo.media.pdf_glyphs import Doubles, Flags, Glyphs, Ints, is_rtl
from octavo.media.pdf_marks import is_mark, seat_marks
from octavo.media.pdfium import clip
from octavo.types import Box

#: Gaps in em. A gap this wide parts two words; a narrower one does where pdfium saw a space.
GAP = 0.20
GAP_WITH_HINT = 0.12
#: Letters further apart than this, all along a line, are letter-spaced.
TRACKED = 0.10
#: A baseline that moves by more than this ends a word; by less with a change of size.
SHIFT = 0.15
SHIFT_RESIZED = 0.05
#: Sizes within one word, smaller over larger: small capitals are 0.7 to 0.8.
SMALLEST_CAPITAL = 0.6
RESIZED = 0.88
#: Degrees within which text counts as level.
LEVEL = 1.0
#: Copies of a word this close (em) are one word struck twice.
OVERPRINT = 0.08

_ASCENT, _DESCENT = 0.8, 0.2


def words_of(glyphs: Glyphs, page: Box) -> tuple[Word, ...]:
    """The words, in the order of the characters, each once."""
    kept = np.flatnonzero(~glyphs.blank & (glyphs.codes != 0) & (glyphs.codes != 0xAD))
    kept = kept[glyphs.size[kept] > 0]
    if not len(kept):
        return ()
    glyphs, kept = seat_marks(glyphs, kept)
    starts = np.flatnonzero(_cuts(glyphs, kept))
    words = _build(glyphs, kept, starts)
    return tuple(_once([word for word in words if clip(word.box, page)]))


def _cuts(glyphs: Glyphs, kept: Ints) -> Flags:
    """Which of the kept characters begin a word.

    A word ends at a space of the file, at a turn, at another baseline (superscripts), at a
    change of size that no small capitals explain, at a step backward, and at a gap wider than
    the letter spacing of its line allows.
    """
    before, after = kept[:-1], kept[1:]
    em = np.maximum(glyphs.size[before], glyphs.size[after])
    ratio = np.minimum(glyphs.size[before], glyphs.size[after]) / em
    shift = np.abs(glyphs.across[after] - glyphs.across[before]) / em
    turned = np.abs((glyphs.angle[after] - glyphs.angle[before] + 180) % 360 - 180) > 5
    line = (shift > SHIFT) | turned | (ratio < SMALLEST_CAPITAL)
    line |= (ratio < RESIZED) & (shift > SHIFT_RESIZED)
    ghosts = np.array([style.invisible for style in glyphs.styles])[glyphs.style]
    line |= ghosts[before] != ghosts[after]
    forward, gap, advance = _gaps(glyphs, before, after, em)
    line |= ~forward
    # A run of skipped characters between two kept ones: real spaces cut, made-up ones hint.
    real = np.concatenate([[0], np.cumsum(glyphs.blank & ~glyphs.generated)])
    made = np.concatenate([[0], np.cumsum(glyphs.generated)])
    spaced = real[after] - real[before + 1] > 0
    hinted = made[after] - made[before + 1] > 0
    tracking = _tracking(gap, line, spaced)
    # A leaning f reaches over the space behind it: a hint is believed by the advance alone.
    hinted &= advance - tracking > GAP_WITH_HINT
    cut = line | spaced | (gap - tracking > GAP) | hinted
    return np.concatenate([[True], cut])


def _gaps(glyphs: Glyphs, before: Ints, after: Ints, em: Doubles) -> tuple[Flags, Doubles, Doubles]:
    """Whether the pen went on rather than back, the white between neighbours, and their advance.

    Both in em.

    Advance boxes tell best; where a font lies about its widths the ink puts an end to it.
    """
    start, end = glyphs.along, glyphs.end
    rightward = is_rtl(glyphs.codes)
    either = rightward[before] | rightward[after]
    gap = start[after] - end[before]
    # From right to left the next character ends where this one starts.
    gap = np.where(either, np.maximum(gap, start[before] - end[after]), gap)
    advance = gap
    ink = glyphs.ink_along
    white = ink[after, 0] - ink[before, 1]
    white = np.where(either, np.maximum(white, ink[before, 0] - ink[after, 1]), white)
    backward = ~either & (start[after] < start[before] - 0.5 * em)
    known = ~np.isnan(white)
    gap = np.where(known, np.minimum(gap, white), gap)
    # An advance box that reaches far over the next letter is wrong; its ink is not.
    gap = np.where(known & (gap < -0.3 * em) & (white > 0.3 * em), white - 0.1 * em, gap)
    return ~backward, gap / em, advance / em


def _tracking(gap: Doubles, line: Flags, spaced: Flags) -> Doubles:
    """The letter spacing (em) of the line that each gap stands in, 0 for ordinary lines.

    The narrow gaps tell: in a letter-spaced line even the lower quartile is wide.
    """
    out = np.zeros_like(gap)
    bounds = np.flatnonzero(np.concatenate([[True], line, [True]]))
    for first, last in pairwise(bounds):
        # Characters first .. last-1 are one line; the gaps between them are first .. last-2.
        inner = gap[first : last - 1][~spaced[first : last - 1]]
        if len(inner) >= 3:
            narrow = float(np.quantile(inner, 0.25))
            if narrow > TRACKED:
                out[first : last - 1] = narrow
    return out


def _build(glyphs: Glyphs, kept: Ints, starts: Ints) -> list[Word]:
    """One word for each start; sums over its characters by ``reduceat``."""
    ends = np.append(starts[1:], len(kept))
    broken = glyphs.unmapped[kept] | _is_meaningless(glyphs.codes[kept])
    share = np.add.reduceat(broken.astype(np.float64), starts) / (ends - starts)
    bold_of = np.array([style.face.bold or style.outlined for style in glyphs.styles])
    bold = np.add.reduceat(bold_of[glyphs.style[kept]].astype(np.float64), starts)
    ink = glyphs.ink[kept].copy()
    nothing = (ink[:, 2] <= ink[:, 0]) & (ink[:, 3] <= ink[:, 1])
    low = np.where(nothing[:, None], np.inf, ink[:, :2])
    high = np.where(nothing[:, None], -np.inf, ink[:, 2:])
    inked = np.concatenate([np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts)], 1)
    size = np.maximum.reduceat(glyphs.size[kept], starts)
    along = np.minimum.reduceat(glyphs.along[kept], starts)
    end = np.maximum.reduceat(glyphs.end[kept], starts)
    text = _texts(glyphs.codes[kept], starts, ends)
    words = []
    for n, first in enumerate(kept[starts]):
        style = glyphs.styles[glyphs.style[first]]
        angle = float(glyphs.angle[first])
        level = abs(angle) <= LEVEL
        box, height = _box(
            tuple(float(v) for v in inked[n]),
            (float(along[n]), float(end[n])),
            float(glyphs.across[first]),
            float(size[n]),
            angle,
        )
        baseline = float(glyphs.across[first]) if level else box.bottom
        words.append(
            Word(
                text=text[n],
                box=box,
                baseline=baseline,
                font_size=height,
                font=style.face.name,
                bold=bool(2 * bold[n] > ends[n] - starts[n]),
                italic=style.face.italic or style.slanted,
                mono=style.face.mono,
                angle=0.0 if level else angle,
                invisible=style.invisible,
                broken=float(share[n]),
            )
        )
    return words


def _box(
    ink: tuple[float, ...], along: tuple[float, float], across: float, size: float, angle: float
) -> tuple[Box, float]:
    """The box of a word, and its size: the ink's where the font's own is plainly wrong."""
    left, top, right, bottom = ink
    inked = right >= left
    if abs(angle) <= LEVEL:
        if not inked:
            left, right = along
        elif bottom - top > 2 * size:
            # Type 3 fonts may draw glyphs of any height at size 1.
            size = (bottom - top) / (_ASCENT + _DESCENT)
        return Box(left, across - _ASCENT * size, right, across + _DESCENT * size), size
    if inked:
        return Box(left, top, right, bottom), size
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    corners = [
        (u * cosine + v * sine, v * cosine - u * sine)
        for u in along
        for v in (across - _ASCENT * size, across + _DESCENT * size)
    ]
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    return Box(min(xs), min(ys), max(xs), max(ys)), size


def _is_control(codes: npt.NDArray[np.uint32]) -> Flags:
    """Controls and what is no character at all; XML cannot carry them."""
    return np.asarray(
        (codes < 0x20)
        | ((codes >= 0x7F) & (codes < 0xA0))
        | ((codes & 0xFFFE) == 0xFFFE)
        | (codes > 0x10FFFF)
    )


def _is_meaningless(codes: npt.NDArray[np.uint32]) -> Flags:
    """Controls, private use and the replacement character."""
    private = (codes >= 0xE000) & (codes <= 0xF8FF)
    return np.asarray(_is_control(codes) | private | (codes == 0xFFFD))


def _texts(codes: npt.NDArray[np.uint32], starts: Ints, ends: Ints) -> list[str]:
    """The text of each word; a control becomes U+FFFD."""
    letters = np.where(_is_control(codes), 0xFFFD, codes).tolist()
    marks = np.add.reduceat(is_mark(codes), starts, dtype=np.int64).tolist()
    out = []
    for first, last, marked in zip(starts.tolist(), ends.tolist(), marks, strict=True):
        text = "".join(map(chr, letters[first:last]))
        if any(0xD800 <= code <= 0xDFFF for code in letters[first:last]):
            # UTF-16 halves: pairs join, a half alone becomes U+FFFD.
            text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        out.append(unicodedata.normalize("NFC", text) if marked else text)
    return out


def _once(words: list[Word]) -> list[Word]:
    """Without the copies that are struck over a word to make it look bold."""
    places: dict[str, list[Box]] = {}
    out = []
    for word in words:
        near = OVERPRINT * word.font_size
        others = places.setdefault(word.text, [])
        if any(
            abs(word.box.left - box.left) <= near
            and abs(word.box.top - box.top) <= near
            and abs(word.box.right - box.right) <= near
            for box in others
        ):
            continue
        others.append(word.box)
        out.append(word)
    return out
