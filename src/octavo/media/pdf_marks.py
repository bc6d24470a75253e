"""Puts accents and vowel points behind the letters that they sit on.

A file may draw an accent as a glyph of its own, before its letter or after the whole word.
Only the place on the page tells which letter it belongs to.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from octavo.media.pdf_glyphs import Codes, Flags, Glyphs, Ints

#: Accents that TeX and others set apart, and the combining characters that they stand for.
#: Grave, circumflex and tilde are left out: alone they are often meant.
ACCENTS = {
    0x00A8: 0x0308,
    0x00AF: 0x0304,
    0x00B4: 0x0301,
    0x00B8: 0x0327,
    0x02C6: 0x0302,
    0x02C7: 0x030C,
    0x02D8: 0x0306,
    0x02D9: 0x0307,
    0x02DA: 0x030A,
    0x02DB: 0x0328,
    0x02DC: 0x0303,
    0x02DD: 0x030B,
}
#: Characters to either side among which the letter is looked for.
_REACH = 8
#: How far (em) the baselines of a mark and its letter may differ.
_RAISED = 0.6


def is_mark(codes: Codes) -> Flags:
    """Combining accents, and the points of Hebrew and Arabic."""
    return np.asarray(
        ((codes >= 0x300) & (codes <= 0x36F))
        | ((codes >= 0x591) & (codes <= 0x5C7) & (codes != 0x5BE))
        | ((codes >= 0x64B) & (codes <= 0x65F))
        | (codes == 0x670)
    )


def seat_marks(glyphs: Glyphs, kept: Ints) -> tuple[Glyphs, Ints]:
    """The glyphs and their order with every mark behind its letter, in its letter's place.

    A mark that sits on no letter nearby stays as it is.
    """
    codes = glyphs.codes[kept]
    marks = np.flatnonzero(is_mark(codes) | np.isin(codes, list(ACCENTS)))
    if not len(marks):
        return glyphs, kept
    glyphs = replace(
        glyphs,
        codes=glyphs.codes.copy(),
        along=glyphs.along.copy(),
        end=glyphs.end.copy(),
        across=glyphs.across.copy(),
        size=glyphs.size.copy(),
    )
    order = np.arange(len(kept), dtype=np.float64)
    for at in marks.tolist():
        letter = _letter_under(glyphs, kept, at)
        if letter is None:
            continue
        mark, base = kept[at], kept[letter]
        glyphs.codes[mark] = ACCENTS.get(int(glyphs.codes[mark]), int(glyphs.codes[mark]))
        for place in (glyphs.along, glyphs.end, glyphs.across, glyphs.size):
            place[mark] = place[base]
        order[at] = letter + 0.5
    return glyphs, kept[np.argsort(order, kind="stable")]


def _letter_under(glyphs: Glyphs, kept: Ints, at: int) -> int | None:
    """Which of the kept characters the mark at ``at`` sits on; a near one before a far one."""
    mark = kept[at]
    middle = float(glyphs.ink_along[mark].mean())
    if np.isnan(middle):
        return None
    for step in range(1, _REACH + 1):
        for letter in (at - step, at + step):
            if not 0 <= letter < len(kept):
                continue
            base = kept[letter]
            raised = abs(glyphs.across[mark] - glyphs.across[base])
            if (
                chr(min(int(glyphs.codes[base]), 0x10FFFF)).isalpha()
                and glyphs.along[base] <= middle <= glyphs.end[base]
                and raised <= _RAISED * glyphs.size[base]
                and abs(glyphs.angle[mark] - glyphs.angle[base]) < 1
            ):
                return letter
    return None
