"""What only the whole document can tell: repeated heads and feet, depths of headings, text that
goes on over a page break. Two passes over a stream of pages; memory does not grow with the text.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

from octavo.readers.mend import ends_sentence
from octavo.types import FURNITURE, Category, Element, PageResult, TextSource

_DIGITS = re.compile(r"\d+|\b[ivxlc]+\b")
_EDGE = 3  # elements from the top and from the foot of a page that may repeat
_BAND = 0.18  # share of the height that counts as the edge


class DocumentPass:
    """``observe`` every page once, then ``finish`` every page, both in order."""

    def __init__(self) -> None:
        self._repeats: Counter[tuple[str, str]] = Counter()
        self._sizes: Counter[float] = Counter()
        self._pages = 0
        self._open: Element | None = None

    def observe(self, page: PageResult) -> None:
        self._pages += 1
        self._repeats.update({key for _, key in _edges(page)})
        for element in page.elements:
            if element.category is Category.SECTION_HEADER and element.font_size:
                self._sizes[_rounded(element.font_size)] += 1

    def finish(self, page: PageResult) -> PageResult:
        """The page with furniture, heading levels and continuations settled; ids stay."""
        furniture = {
            index: Category.PAGE_HEADER if key[0] == "top" else Category.PAGE_FOOTER
            for index, key in _edges(page)
            if self._repeats[key] >= max(3, 0.02 * self._pages)
        }
        elements: list[Element] = []
        for index, element in enumerate(page.elements):
            settled = element
            if index in furniture:
                settled = replace(element, category=furniture[index], level=None, marker=None)
            elif element.category is Category.SECTION_HEADER:
                settled = replace(element, level=self._level(element))
            elements.append(settled)
        return replace(page, elements=self._joined(elements, page.source is not TextSource.OFFICE))

    def _level(self, element: Element) -> int:
        if element.level:
            return min(element.level, 6)
        size = _rounded(element.font_size or 0.0)
        ranks = _clusters(self._sizes)
        rank = next((i for i, least in enumerate(ranks, 1) if size >= least), len(ranks) or 1)
        return min(rank, 6)

    def _joined(self, elements: list[Element], page_is_printed: bool) -> tuple[Element, ...]:
        """Mark the first paragraph of a page that goes on from the page before."""
        body = [e for e in elements if e.category not in FURNITURE]
        flow = [e for e in body if e.category is not Category.FOOTNOTE]
        first = next(
            (
                e
                for e in flow
                if e.category not in (Category.PICTURE, Category.TABLE, Category.CAPTION)
            ),
            None,
        )
        if (
            first is not None
            and page_is_printed
            and self._open is not None
            and first.category is Category.TEXT
            and first.text[:1].islower()
            and not first.continues
        ):
            elements[elements.index(first)] = replace(first, continues=True)
        texts = [
            e
            for e in flow
            if e.category in (Category.TEXT, Category.SECTION_HEADER, Category.LIST_ITEM)
        ]
        last = texts[-1] if texts else None
        ends = last is None or last.category is not Category.TEXT or ends_sentence(last.text)
        self._open = None if ends else last
        return tuple(elements)


def _rounded(size: float) -> float:
    return round(size * 2) / 2


def _clusters(sizes: Counter[float]) -> list[float]:
    """The least size of each group of heading sizes, largest group first; 6 % counts as equal."""
    groups: list[list[float]] = []
    for size in sorted(sizes, reverse=True):
        if groups and size >= 0.94 * groups[-1][0]:
            groups[-1].append(size)
        else:
            groups.append([size])
    return [group[-1] for group in groups]


def _edges(page: PageResult) -> list[tuple[int, tuple[str, str]]]:
    """Index and key of the elements at the edges of a page, for counting repetitions.

    Numbers are left out of the key, so that "12 | The Bindery" and "13 | The Bindery" agree.
    """
    if page.source is TextSource.OFFICE:
        return []  # no places, and its furniture is already known
    placed = [
        (index, e)
        for index, e in enumerate(page.elements)
        if e.text and len(e.text) < 160 and e.category not in (Category.TABLE, Category.PICTURE)
    ]
    top = sorted(placed, key=lambda pair: pair[1].box.top)[:_EDGE]
    foot = sorted(placed, key=lambda pair: -pair[1].box.bottom)[:_EDGE]
    out: list[tuple[int, tuple[str, str]]] = []
    for name, group in (("top", top), ("foot", foot)):
        for index, element in group:
            y = element.box.top if name == "top" else page.height - element.box.bottom
            if y < _BAND * page.height:
                place = round(y / max(page.height, 1.0) * 50)
                words = " ".join(_DIGITS.sub("#", element.text.lower()).split())
                out.append((index, (name, f"{place}:{words}")))
    return out
