"""Characters of a PDF page as parallel arrays, and their placement on the page as shown."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from octavo.media.pdf_fonts import Face
from octavo.media.pdfium import Matrix, Placement

Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint32]

#: The slant (tangent) of letters that are sheared to look italic.
SLANT = 0.12


@dataclass(frozen=True, slots=True)
class Style:
    """What the characters of one text object share. ``matrix`` is text space to user space."""

    face: Face = field(default_factory=Face)
    size: float = 1.0
    matrix: Matrix = field(default_factory=Matrix)
    invisible: bool = False
    outlined: bool = False

    @property
    def drawn_size(self) -> float:
        """The size as drawn: across the baseline, so that slant and width do not count."""
        along = math.hypot(self.matrix.a, self.matrix.b)
        area = abs(self.matrix.a * self.matrix.d - self.matrix.b * self.matrix.c)
        return self.size * area / along if along > 0 else 0.0

    @property
    def slanted(self) -> bool:
        m = self.matrix
        long = math.hypot(m.a, m.b) * math.hypot(m.c, m.d)
        return long > 0 and abs(m.a * m.c + m.b * m.d) / long > SLANT

    def angle(self, rotation: int) -> float:
        """Degrees counter-clockwise, -180 to 180, of the writing direction as shown."""
        degrees = math.degrees(math.atan2(self.matrix.b, self.matrix.a)) - rotation
        return 180.0 - (180.0 - degrees) % 360.0


@dataclass(frozen=True, slots=True)
class Characters:
    """Characters as pdfium gives them, in user space.

    Attributes:
        codes: Unicode, or UTF-16 halves.
        blank: white space, or made up by pdfium; ``generated``: surely made up.
        unmapped: the font does not say which character it is.
        origin: x, y on the baseline.
        ink, advance: left, right, bottom, top.
        style: index into ``styles``.
    """

    codes: Codes
    blank: Flags
    generated: Flags
    unmapped: Flags
    origin: Doubles
    ink: Doubles
    advance: Doubles
    style: Ints
    styles: list[Style]


@dataclass(frozen=True, slots=True)
class Glyphs:
    """Characters as parallel arrays, in page units as shown.

    Attributes:
        along, across: the origin along the writing direction, and down from it.
        end: where the advance ends, along the writing direction.
        ink: left, top, right, bottom; an empty box where nothing is drawn.
        ink_along: start and end of the ink along the writing direction, NaN where unknown.
    """

    codes: npt.NDArray[np.uint32]
    blank: Flags
    generated: Flags
    unmapped: Flags
    along: Doubles
    across: Doubles
    end: Doubles
    ink: Doubles
    ink_along: Doubles
    size: Doubles
    angle: Doubles
    style: Ints
    styles: list[Style]


def place(chars: Characters, placement: Placement) -> Glyphs:
    """Brings characters to page units."""
    matrix, ink, advance = placement.matrix, chars.ink, chars.advance
    x, y = _moved(chars.origin[:, 0], chars.origin[:, 1], matrix)
    middle_x, middle_y = _moved(
        (advance[:, 0] + advance[:, 1]) / 2, (advance[:, 2] + advance[:, 3]) / 2, matrix
    )
    x0, y0 = _moved(ink[:, 0], ink[:, 2], matrix)
    x1, y1 = _moved(ink[:, 1], ink[:, 3], matrix)
    shown = np.stack(
        [np.minimum(x0, x1), np.minimum(y0, y1), np.maximum(x0, x1), np.maximum(y0, y1)], 1
    )
    angle = np.array([style.angle(placement.rotation) for style in chars.styles])[chars.style]
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    along = x * cosine - y * sine
    # The advance box is symmetric about the middle of the advance at every angle.
    half = middle_x * cosine - middle_y * sine - along
    return Glyphs(
        codes=_in_reading_order(chars),
        blank=chars.blank,
        generated=chars.generated,
        unmapped=chars.unmapped,
        along=along,
        across=x * sine + y * cosine,
        end=along + 2 * np.maximum(half, 0.0),
        ink=shown,
        ink_along=_projected(shown, cosine, sine),
        size=np.array([style.drawn_size for style in chars.styles])[chars.style],
        angle=angle,
        style=chars.style,
        styles=chars.styles,
    )


def _in_reading_order(chars: Characters) -> Codes:
    """The codes, with the letters of each right-to-left ligature the right way round.

    pdfium turns whole lines from visual to logical order, and with them the letters that one
    glyph stands for, which were in logical order already: lam-alef came out as alef-lam.
    """
    codes = chars.codes.copy()
    same = np.zeros(len(codes), dtype=bool)
    same[1:] = (chars.origin[1:] == chars.origin[:-1]).all(1) & (
        chars.ink[1:] == chars.ink[:-1]
    ).all(1)
    same &= is_rtl(codes) & (chars.ink[:, 1] > chars.ink[:, 0])
    first = 0
    for last in [*np.flatnonzero(~same).tolist(), len(codes)]:
        if last - first > 1:
            codes[first:last] = codes[first:last][::-1]
        first = last
    return codes


def is_rtl(codes: npt.NDArray[np.uint32]) -> Flags:
    """Letters of Hebrew, Arabic, Syriac, Thaana, N'Ko and their presentation forms."""
    return (
        ((codes >= 0x590) & (codes <= 0x8FF))
        | ((codes >= 0xFB1D) & (codes <= 0xFDFF))
        | ((codes >= 0xFE70) & (codes <= 0xFEFF))
    )


def _moved(x: Doubles, y: Doubles, by: Matrix) -> tuple[Doubles, Doubles]:
    return by.a * x + by.c * y + by.e, by.b * x + by.d * y + by.f


def _projected(ink: Doubles, cosine: Doubles, sine: Doubles) -> Doubles:
    """Start and end of upright boxes along directions that are multiples of 90 degrees."""
    first = ink[:, 0] * cosine - ink[:, 1] * sine
    second = ink[:, 2] * cosine - ink[:, 3] * sine
    out = np.stack([np.minimum(first, second), np.maximum(first, second)], 1)
    oblique = (np.abs(cosine) > 0.02) & (np.abs(sine) > 0.02)
    empty = (ink[:, 2] <= ink[:, 0]) | (ink[:, 3] <= ink[:, 1])
    out[oblique | empty] = np.nan
    return out
