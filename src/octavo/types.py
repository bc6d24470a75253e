"""The words that the document stack and its callers share.

Boxes are in *page units* with the origin at the top left of the upright page: PDF points
(1/72 inch) for PDF pages, pixels of the full picture for images. Nothing here depends on the
unit: thresholds elsewhere are relative to the height of a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeVar


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in page units, origin top left, ``left <= right`` and ``top <= bottom``."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def area(self) -> float:
        return max(self.width, 0.0) * max(self.height, 0.0)

    @property
    def center(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def union(self, other: Box) -> Box:
        return Box(
            min(self.left, other.left),
            min(self.top, other.top),
            max(self.right, other.right),
            max(self.bottom, other.bottom),
        )

    def intersection(self, other: Box) -> float:
        """The area that both cover."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return wide * high if wide > 0 and high > 0 else 0.0

    def overlap_x(self, other: Box) -> float:
        """The width that both cover, negative when there is a gap."""
        return min(self.right, other.right) - max(self.left, other.left)

    def overlap_y(self, other: Box) -> float:
        """The height that both cover, negative when there is a gap."""
        return min(self.bottom, other.bottom) - max(self.top, other.top)

    def covered_by(self, other: Box) -> float:
        """The share of this box that lies in ``other``, 0 to 1."""
        return self.intersection(other) / self.area if self.area > 0 else 0.0

    def contains_center(self, other: Box) -> bool:
        x, y = other.center
        return self.left <= x <= self.right and self.top <= y <= self.bottom

    def expand(self, by: float) -> Box:
        return Box(self.left - by, self.top - by, self.right + by, self.bottom + by)

    def scale(self, by: float) -> Box:
        return Box(self.left * by, self.top * by, self.right * by, self.bottom * by)


def union_all(boxes: Iterable[Box]) -> Box:
    """The smallest box around all of ``boxes``, of which there must be at least one."""
    it = iter(boxes)
    out = next(it)
    for box in it:
        out = out.union(box)
    return out


class Category(StrEnum):
    """What an element is; the eleven categories of DocLayNet."""

    CAPTION = "Caption"
    FOOTNOTE = "Footnote"
    FORMULA = "Formula"
    LIST_ITEM = "List-item"
    PAGE_FOOTER = "Page-footer"
    PAGE_HEADER = "Page-header"
    PICTURE = "Picture"
    SECTION_HEADER = "Section-header"
    TABLE = "Table"
    TEXT = "Text"
    TITLE = "Title"


#: Elements of these categories repeat on every page and are left out of the running text.
FURNITURE = frozenset({Category.PAGE_HEADER, Category.PAGE_FOOTER})


@dataclass(frozen=True, slots=True)
class TableCell:
    """One cell; ``row`` and ``col`` are 0-based, spans at least 1."""

    row: int
    col: int
    text: str
    row_span: int = 1
    col_span: int = 1
    header: bool = False
    box: Box | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A grid of ``rows`` × ``cols``; cells are in row order and never overlap."""

    rows: int
    cols: int
    cells: tuple[TableCell, ...]


@dataclass(frozen=True, slots=True)
class Element:
    """One thing on a page, in its place in the reading order.

    Attributes:
        id: ``p<page>-<n>``, stable within a report; children add ``.<n>``.
        category: one of the eleven.
        box: page units.
        text: plain text, LaTeX for a formula that was recognized, empty for a picture.
        confidence: 0 to 1.
        level: depth of a heading (1 is the highest) or of a list item (1 is the outermost).
        marker: the bullet or number of a list item, as printed.
        table: rows, columns and spans of a table.
        caption_of: id of the picture or table that a caption belongs to.
        children: text found inside a picture.
        font_size: median height of its letters in page units, where known.
        bold: most of its letters are bold.
        continues: the text goes on from the element of the same category before it
            (over a column or page break).
        rtl: the text runs from right to left.
    """

    id: str
    category: Category
    box: Box
    text: str = ""
    confidence: float = 1.0
    level: int | None = None
    marker: str | None = None
    table: Table | None = None
    caption_of: str | None = None
    children: tuple[Element, ...] = ()
    font_size: float | None = None
    bold: bool = False
    continues: bool = False
    rtl: bool = False


class PageStatus(StrEnum):
    """How a page ended."""

    OK = "ok"
    FAILED = "failed"


class TextSource(StrEnum):
    """Where the text of a page comes from."""

    TEXT_LAYER = "text-layer"
    OCR = "ocr"
    OFFICE = "office"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a page failed: the name of the error class, what happened and what to do."""

    error: str
    what: str
    next_step: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a page: the stage, whether it was kept, and why."""

    stage: str
    kept: bool
    reason: str


@dataclass(frozen=True, slots=True)
class SummarySentence:
    """A sentence of a summary and the element that it was taken from."""

    text: str
    element_id: str


@dataclass(frozen=True, slots=True)
class Summary:
    """``kind`` says how it was made; ``extractive`` sentences stand in the source word for word."""

    kind: str
    sentences: tuple[SummarySentence, ...]

    @property
    def text(self) -> str:
        return " ".join(sentence.text for sentence in self.sentences)


@dataclass(frozen=True, slots=True)
class PageResult:
    """What a reader made of one page, or why it could not.

    Attributes:
        number: 1-based, as in the source file.
        width, height: size of the upright page in page units.
        elements: in reading order, furniture included.
        rotation: degrees clockwise (0, 90, 180, 270) by which the page was turned upright.
        skew: degrees counter-clockwise by which the picture was turned to level its lines.
            Boxes refer to the page after both.
        source, reason: where the text came from and why that source was taken.
        timings: seconds by stage; no part of a page's identity.
    """

    number: int
    width: float
    height: float
    elements: tuple[Element, ...] = ()
    source: TextSource = TextSource.NONE
    reason: str = ""
    rotation: int = 0
    skew: float = 0.0
    attempts: tuple[Attempt, ...] = ()
    failure: Failure | None = None
    summary: Summary | None = None
    timings: Mapping[str, float] = field(default_factory=dict, compare=False)

    @property
    def status(self) -> PageStatus:
        return PageStatus.FAILED if self.failure else PageStatus.OK


PageT_contra = TypeVar("PageT_contra", contravariant=True)


class Reader(Protocol[PageT_contra]):
    """Turns pages into elements.

    One result per page, in the order given. A page that cannot be read is a result with a
    ``failure``; it never ends the iteration.
    """

    def read(self, pages: Iterable[PageT_contra]) -> Iterator[PageResult]: ...

    def close(self) -> None: ...
