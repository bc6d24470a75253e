"""What every kind of source gives to a reader: pages with words, rulings and pixels, lazily.

All geometry is in page units (see ``octavo.types``) of the page as a viewer shows it: the
page's own /Rotate and a picture's EXIF orientation are already applied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from octavo.types import Box

#: Height × width × 3, RGB, 8 bits.
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Word:
    """A run of characters without white space, on one line.

    Attributes:
        box: left and right are the ink's; top and bottom are ``baseline - 0.8 * font_size`` and
            ``baseline + 0.2 * font_size`` for level text, so that words of one line agree.
        baseline: y of the baseline.
        font_size: size as drawn, page units.
        angle: degrees counter-clockwise of the writing direction: 0 for level text.
        confidence: 1 for a text layer, the recognizer's for OCR.
        invisible: drawn in a mode that leaves no ink (text under a scan).
        broken: characters without a Unicode meaning, 0 to 1.
    """

    text: str
    box: Box
    baseline: float
    font_size: float
    font: str = ""
    bold: bool = False
    italic: bool = False
    mono: bool = False
    angle: float = 0.0
    confidence: float = 1.0
    invisible: bool = False
    broken: float = 0.0


@dataclass(frozen=True, slots=True)
class Ruling:
    """A straight level or upright stroke, or a thin filled rectangle standing for one."""

    box: Box
    horizontal: bool


@dataclass(frozen=True, slots=True)
class TextLayer:
    """What a page says about itself without looking at its pixels.

    Attributes:
        words: in the order of the content stream.
        rulings: lines drawn on the page; at most ``media.pdf.MAX_PATHS`` paths are looked at.
        images: where pictures are placed.
        shapes: boxes of filled or curved drawings that are not rulings (charts, backgrounds).
        shapes_cut: the page had more drawings than were looked at.
    """

    words: tuple[Word, ...] = ()
    rulings: tuple[Ruling, ...] = ()
    images: tuple[Box, ...] = ()
    shapes: tuple[Box, ...] = ()
    shapes_cut: bool = False


class Page(Protocol):
    """One page of an open source. Valid until its source is closed."""

    @property
    def number(self) -> int:
        """1-based, as in the file."""
        ...

    @property
    def width(self) -> float: ...

    @property
    def height(self) -> float: ...

    def text_layer(self) -> TextLayer:
        """Words and drawings; empty for a picture."""
        ...

    def render(self, scale: float, region: Box | None = None) -> Pixels:
        """The page, or one region of it, drawn at ``scale`` pixels a page unit.

        A picture is never enlarged: its scale is at most 1.
        """
        ...

    def natural_scale(self, dpi: float, max_long_edge_px: int | None) -> float:
        """Pixels a page unit for ``dpi``, capped so that the long edge fits."""
        ...


class Source(Protocol):
    """An open file. Pages are made one at a time and hold nothing once dropped."""

    name: str

    def __len__(self) -> int: ...

    def pages(self, numbers: range | tuple[int, ...]) -> Iterator[Page]:
        """The pages of these 1-based numbers, lazily. A page that cannot be opened raises
        ``PageError`` from the methods of its ``Page``, not from here."""
        ...

    def close(self) -> None: ...
