"""Words of a PDF page from its characters, by pdfium's text page.

pdfium gives characters with an origin on the baseline, an advance box and an ink box, and
guesses spaces and line ends. The guesses fail both ways (letter-spaced headings fall apart,
tight lines run together), so words are cut here, by geometry: see ``_cuts``.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from octavo.media.page import Word
from octavo.media.pdf_fonts import Face, read_face
from octavo.media.pdf_glyphs import Characters, Style, place
from octavo.media.pdf_words import words_of
from octavo.media.pdfium import Matrix, Placement, quick

#: Characters of one page that are looked at; a page of dense print has under 20 000.
MAX_CHARS = 400_000

_INVISIBLE = 3
_FILL_AND_STROKE = 2
_HYPHEN = 0x2D
_SPACES = (
    0x09,
    0x0A,
    0x0B,
    0x0C,
    0x0D,
    0x20,
    0x85,
    0xA0,
    0x1680,
    *range(0x2000, 0x200C),
    0x2028,
    0x2029,
    0x202F,
    0x205F,
    0x3000,
    0xFEFF,
)
_SOFT_HYPHEN = 0xAD
_REPLACEMENT = 0xFFFD

#: Bullets and ticks of the Symbol and Wingdings fonts, which map into the private use area.
_SYMBOLS = {
    0xF0A7: 0x25AA,
    0xF0A8: 0x25AB,
    0xF0B7: 0x2022,
    0xF0D8: 0x27A2,
    0xF0E0: 0x2192,
    0xF0E8: 0x2794,
    0xF0FC: 0x2713,
    0xF076: 0x2756,
    0xF06C: 0x25CF,
    0xF06E: 0x25A0,
    0xF071: 0x2751,
}

_Handle = ctypes.c_void_p
_count = quick("FPDFText_CountChars", ctypes.c_int, _Handle)
_unicode = quick("FPDFText_GetUnicode", ctypes.c_uint, _Handle, ctypes.c_int)
_generated = quick("FPDFText_IsGenerated", ctypes.c_int, _Handle, ctypes.c_int)
_hyphen = quick("FPDFText_IsHyphen", ctypes.c_int, _Handle, ctypes.c_int)
_unmapped = quick("FPDFText_HasUnicodeMapError", ctypes.c_int, _Handle, ctypes.c_int)
_object = quick("FPDFText_GetTextObject", ctypes.c_void_p, _Handle, ctypes.c_int)
_matrix = quick("FPDFText_GetMatrix", ctypes.c_int, _Handle, ctypes.c_int, ctypes.c_void_p)
_loose_box = quick("FPDFText_GetLooseCharBox", ctypes.c_int, _Handle, ctypes.c_int, ctypes.c_void_p)
_origin = quick(
    "FPDFText_GetCharOrigin", ctypes.c_int, _Handle, ctypes.c_int, *[ctypes.c_void_p] * 2
)
_ink_box = quick("FPDFText_GetCharBox", ctypes.c_int, _Handle, ctypes.c_int, *[ctypes.c_void_p] * 4)
_size_of = quick("FPDFTextObj_GetFontSize", ctypes.c_int, _Handle, ctypes.POINTER(ctypes.c_float))
_mode_of = quick("FPDFTextObj_GetTextRenderMode", ctypes.c_int, _Handle)
_font_of = quick("FPDFTextObj_GetFont", ctypes.c_void_p, _Handle)
_fill_of = quick(
    "FPDFPageObj_GetFillColor", ctypes.c_int, _Handle, *[ctypes.POINTER(ctypes.c_uint)] * 4
)

_Doubles = npt.NDArray[np.float64]


def read_words(text_page: int, placement: Placement) -> tuple[Word, ...]:
    """The words of a text page, in the order of the content stream.

    Args:
        text_page: address of an open FPDF_TEXTPAGE; call under the lock.
        placement: of its page. Words outside the page are left out.
    """
    chars = _read_characters(text_page)
    return words_of(place(chars, placement), placement.box) if chars else ()


def _read_characters(text_page: int) -> Characters | None:
    count = min(_count(text_page), MAX_CHARS)
    if count <= 0:
        return None
    codes = np.array([_unicode(text_page, i) for i in range(count)], dtype=np.uint32)
    objects = [_object(text_page, i) or 0 for i in range(count)]
    origin, ink, loose = _read_boxes(text_page, count)
    styles, style = _read_styles(text_page, objects)
    unmapped = np.array([_unmapped(text_page, i) == 1 for i in range(count)])
    # Such a character is drawn: it must be seen that its meaning is lost.
    codes[unmapped & (codes == 0)] = _REPLACEMENT
    # Only white space, and what has no object behind it, is ever made up.
    unbacked = np.array(objects) == 0
    blank = np.isin(codes, _SPACES) | unbacked
    generated = unbacked.copy()
    for i in np.flatnonzero(blank & ~unbacked):
        generated[i] = _generated(text_page, int(i)) == 1
    for i in np.flatnonzero((codes == 0x02) | (codes == _SOFT_HYPHEN)):
        # pdfium marks a hyphen at the end of a line; a soft hyphen that leaves ink is one too.
        drawn = ink[i, 1] > ink[i, 0]
        if drawn or (codes[i] == 0x02 and _hyphen(text_page, int(i)) == 1):
            codes[i], unmapped[i] = _HYPHEN, False
    return Characters(
        codes=_mend(codes),
        blank=blank,
        generated=generated,
        unmapped=unmapped,
        origin=origin,
        ink=ink,
        advance=loose,
        style=style,
        styles=styles,
    )


def _mend(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Well-known symbols get their Unicode names."""
    private = np.flatnonzero((codes >= 0xF000) & (codes <= 0xF0FF))
    for i in private:
        codes[i] = _SYMBOLS.get(int(codes[i]), int(codes[i]))
    return codes


def _read_boxes(text_page: int, count: int) -> tuple[_Doubles, _Doubles, _Doubles]:
    """Origins (x, y), ink boxes and advance boxes (left, right, bottom, top), in user space.

    pdfium writes straight into the arrays: five calls a character are what a page costs.
    """
    origin = np.zeros((count, 2))
    ink = np.zeros((count, 4))
    loose = np.zeros((count, 4), dtype=np.float32)
    at_origin, at_ink, at_loose = origin.ctypes.data, ink.ctypes.data, loose.ctypes.data
    for i in range(count):
        _origin(text_page, i, at_origin, at_origin + 8)
        _ink_box(text_page, i, at_ink, at_ink + 8, at_ink + 16, at_ink + 24)
        _loose_box(text_page, i, at_loose)
        at_origin += 16
        at_ink += 32
        at_loose += 16
    # FS_RECTF is left, top, right, bottom.
    return origin, ink, loose[:, [0, 2, 3, 1]].astype(np.float64)


@dataclass(slots=True)
class _StyleReader:
    """Reads each text object and each font once."""

    text_page: int
    faces: dict[int, Face]

    def style(self, handle: int, index: int) -> Style:
        if not handle:
            return Style()
        font = _font_of(handle) or 0
        face = self.faces.get(font)
        if face is None:
            face = self.faces[font] = read_face(font)
        size = ctypes.c_float(0.0)
        _size_of(handle, ctypes.byref(size))
        values = (ctypes.c_float * 6)(1, 0, 0, 1, 0, 0)
        _matrix(self.text_page, index, ctypes.addressof(values))
        mode = _mode_of(handle)
        return Style(
            face=face,
            size=abs(size.value),
            matrix=Matrix(*values),
            invisible=mode == _INVISIBLE or (mode == 0 and _is_clear(handle)),
            outlined=mode == _FILL_AND_STROKE,
        )


def _is_clear(handle: int) -> bool:
    """Filled with a fully transparent colour."""
    red, green, blue, alpha = (ctypes.c_uint(255) for _ in range(4))
    known = _fill_of(
        handle, ctypes.byref(red), ctypes.byref(green), ctypes.byref(blue), ctypes.byref(alpha)
    )
    return bool(known) and alpha.value == 0


def _read_styles(text_page: int, objects: list[int]) -> tuple[list[Style], npt.NDArray[np.int64]]:
    """The distinct styles, and the index of each character's."""
    reader = _StyleReader(text_page, {})
    styles: list[Style] = []
    seen: dict[int, int] = {}
    index = np.empty(len(objects), dtype=np.int64)
    for i, handle in enumerate(objects):
        known = seen.get(handle)
        if known is None:
            known = seen[handle] = len(styles)
            styles.append(reader.style(handle, i))
        index[i] = known
    return styles, index
