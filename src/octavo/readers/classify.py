"""What a paragraph is: heading, list item, footnote, caption, formula or text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from octavo.readers.blocks import CAPTION, MARKER, Block, Style
from octavo.readers.headings import FAMILIAR, NUMBERED, WORD, heading_points, number_depth
from octavo.readers.regions import best
from octavo.types import Box, Category

_NOTE = re.compile(
    r"^(?:[*†‡§¶‖#]+|\(?\d{1,3}\)?[.)]?|\[\d{1,3}\]|[a-z][.)]?)(?=\s|[A-Z\"“(])|^[⁰¹²³⁴-⁹]|^[①-⑳]"
)


@dataclass(frozen=True, slots=True)
class Kind:
    """A category with what belongs to it."""

    category: Category
    confidence: float
    level: int | None = None


@dataclass(frozen=True, slots=True)
class PageView:
    """What a block is judged against.

    Attributes:
        page: the whole page.
        style: body size and evidence.
        figures: boxes of tables and pictures.
        first: the page opens the document.
        largest: the largest font size of a block with words on the page.
    """

    page: Box
    style: Style
    figures: Sequence[Box]
    first: bool
    largest: float


def classify(blocks: Sequence[Block], view: PageView) -> list[Kind]:
    """The kind of every block of a page, in reading order."""
    kinds = [
        _kind(block, blocks[i + 1] if i + 1 < len(blocks) else None, view)
        for i, block in enumerate(blocks)
    ]
    return _lists(blocks, _one_title(blocks, kinds, view))


def _kind(block: Block, after: Block | None, view: PageView) -> Kind:
    text, regions = block.text, view.style.regions
    caption = best(regions, block.box, ["figure_caption", "table_caption"])
    near = _nearest(block, view.figures) < 3.5 * block.font_size
    if CAPTION.match(text) and (near or caption > 0.5) and not _cites(text):
        return Kind(Category.CAPTION, max(0.9, caption))
    if caption > 0.75 and near and len(block.lines) <= 6 and block.font_size <= view.style.body:
        return Kind(Category.CAPTION, caption)
    if _is_formula(block, view):
        return Kind(Category.FORMULA, max(0.6, best(regions, block.box, ["equation"])))
    heading = heading_points(block, after, view.style)
    if heading > 0.99:
        return Kind(Category.SECTION_HEADER, min(0.5 + heading / 6, 0.99), number_depth(text))
    if _is_footnote(block, view):
        return Kind(Category.FOOTNOTE, 0.8)
    return Kind(Category.TEXT, min(0.95, block.confidence))


def _cites(text: str) -> bool:
    """ "Table 2 shows …" opens a sentence; "Table 2. …" and "Table 2 Sizes" open captions."""
    rest = CAPTION.sub("", text, count=1).lstrip()
    return bool(re.match(r"(shows?|gives?|lists?|presents?|illustrates?|is|are|and|in|of)\b", rest))


def _nearest(block: Block, figures: Sequence[Box]) -> float:
    box = block.box
    gaps = [max(-box.overlap_y(f), 0.0) + max(-box.overlap_x(f), 0.0) for f in figures]
    return min(gaps, default=float("inf"))


def _is_footnote(block: Block, view: PageView) -> bool:
    small = block.font_size < (0.93 if view.style.measured else 0.85) * view.style.body
    low = block.box.top > view.page.top + 0.55 * view.page.height
    if not low or view.largest == block.font_size:
        return False
    marked = bool(_NOTE.match(block.text)) and not block.text[0].isspace()
    model = best(view.style.regions, block.box, ["reference", "footer"]) > 0.6
    ruled = any(
        rule.horizontal
        and 0 <= block.box.top - rule.box.center[1] < 2.2 * block.font_size
        and 2 * block.font_size < rule.box.width < 0.6 * view.page.width
        and abs(rule.box.left - block.column.left) < 2 * block.font_size
        for rule in view.style.rulings
    )
    return (small and (marked or model or ruled)) or (marked and ruled)


def _is_formula(block: Block, view: PageView) -> bool:
    if len(block.lines) > 4:
        return False
    text = block.text
    model = best(view.style.regions, block.box, ["equation"], 0.6)
    dense = text.replace(" ", "")
    words = [w for w in WORD.findall(text) if len(w) > 2]
    if not dense or sum(len(w) for w in words) > 0.5 * len(dense):
        return False
    symbols = sum(
        unicodedata.category(c) in ("Sm", "Co") or "\u0370" <= c <= "\u03ff" for c in dense
    )
    if model > 0.55:
        return symbols > 0 or len(words) <= 2
    return symbols >= 2 and symbols > 0.08 * len(dense) and "=" in dense and len(words) <= 2


def _one_title(blocks: Sequence[Block], kinds: list[Kind], view: PageView) -> list[Kind]:
    """The first page's largest heading in its upper half is the title."""
    if not view.first:
        return kinds
    best_index, best_size = -1, 1.22 * view.style.body
    for i, (block, kind) in enumerate(zip(blocks, kinds, strict=True)):
        upper = block.box.top < view.page.top + 0.5 * view.page.height
        if (
            kind.category is Category.SECTION_HEADER
            and upper
            and block.font_size > best_size
            and kind.level is None
        ):
            best_index, best_size = i, block.font_size
    if best_index >= 0 and best_size >= 0.92 * view.largest:
        kinds[best_index] = Kind(Category.TITLE, kinds[best_index].confidence, 1)
        _names(blocks, kinds, best_index)
    return kinds


def _names(blocks: Sequence[Block], kinds: list[Kind], title: int) -> None:
    """Lines of capitalized words right under a title are its authors, not headings."""
    for i in range(title + 1, len(blocks)):
        words = WORD.findall(blocks[i].text)
        names = sum(w[0].isupper() or w in ("and", "von", "de", "van", "und") for w in words)
        if kinds[i].category is not Category.SECTION_HEADER or FAMILIAR.match(blocks[i].text):
            return
        if NUMBERED.match(blocks[i].text) or names < len(words) or len(words) < 2:
            return
        if blocks[i].text.isupper() or blocks[i].bold:
            return
        kinds[i] = Kind(Category.TEXT, 0.7)


def _lists(blocks: Sequence[Block], kinds: list[Kind]) -> list[Kind]:
    """Items need company, unless their bullet leaves no doubt; depth follows their indents."""
    markers = [
        match["marker"]
        if kinds[i].category in (Category.TEXT, Category.FOOTNOTE)
        and (match := MARKER.match(block.text))
        else None
        for i, block in enumerate(blocks)
    ]
    for i, marker in enumerate(markers):
        if marker is None or kinds[i].category is Category.FOOTNOTE:
            continue
        if marker[0].isalnum() or marker[0] == "(":
            near = [m for m in markers[max(0, i - 8) : i] + markers[i + 1 : i + 9] if m]
            if not any(_sibling(marker, other) for other in near):
                continue
        kinds[i] = Kind(Category.LIST_ITEM, kinds[i].confidence)
    return _depths(blocks, kinds)


def _sibling(a: str, b: str) -> bool:
    x, y = a.strip("().[]"), b.strip("().[]")
    if x.isdigit() and y.isdigit():
        return abs(int(x) - int(y)) == 1
    if len(x) == 1 and len(y) == 1 and x.isalpha() and y.isalpha():
        return abs(ord(x) - ord(y)) == 1
    return x.isalpha() and y.isalpha() and set((x + y).lower()) <= set("ivx")


def _depths(blocks: Sequence[Block], kinds: list[Kind]) -> list[Kind]:
    indents: list[float] = []
    for i, kind in enumerate(kinds):
        if kind.category is not Category.LIST_ITEM:
            indents = []
            continue
        block = blocks[i]
        first = block.lines[0]
        left = first.box.left - block.column.left
        if first.rtl:
            left = block.column.right - first.box.right
        while indents and left < indents[-1] - 0.5 * block.font_size:
            indents.pop()
        if not indents or left > indents[-1] + 0.8 * block.font_size:
            indents.append(left)
        kinds[i] = Kind(kind.category, kind.confidence, len(indents))
    return kinds
