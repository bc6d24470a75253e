"""A page's words, pictures and tables to elements in reading order."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from octavo.media.page import Ruling, Word
from octavo.readers.blocks import MARKER, Block, Style, body_size, join_rows, split_blocks
from octavo.readers.classify import Kind, PageView, classify
from octavo.readers.furniture import find_furniture
from octavo.readers.lines import Line, build_lines, is_rtl
from octavo.readers.mend import clean, ends_sentence, join_lines
from octavo.readers.regions import Region
from octavo.readers.tables import FoundTable
from octavo.readers.zones import Item, Zone, order_zones
from octavo.types import Box, Category, Element, Table, TableCell, union_all

_COMPOUND = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)+|[^\W\d_]{4,}")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture region with the words that stand in it."""

    box: Box
    words: tuple[Word, ...]
    confidence: float


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything found on an upright page, before it has an order.

    ``words`` and ``lines`` are those outside pictures and tables; turned words are in no line.
    ``measured`` is false when they come from OCR.
    """

    number: int
    width: float
    height: float
    words: Sequence[Word]
    lines: Sequence[Line]
    pictures: Sequence[Picture]
    tables: Sequence[FoundTable]
    rulings: Sequence[Ruling]
    regions: Sequence[Region]
    measured: bool


_Solid = Picture | FoundTable
_Placed = Line | _Solid


def compose(parts: Parts) -> tuple[Element, ...]:
    """Elements of one page: heads first, then the text in order with its tables and pictures,
    then footnotes, then feet."""
    page = Box(0.0, 0.0, parts.width, parts.height)
    turned = [word for word in parts.words if abs(word.angle) >= 15]
    lines = [line for line in parts.lines if clean(line.text)]
    body = body_size(lines)
    solid: list[_Solid] = [*parts.pictures, *parts.tables]
    furniture = find_furniture(
        lines,
        page,
        body,
        solid=[s.box for s in solid],
        rulings=parts.rulings,
        regions=parts.regions,
    )
    aside = {id(line) for line, _ in furniture.lines}
    lines = [line for line in lines if id(line) not in aside]
    style = Style(body, parts.measured, tuple(parts.rulings), tuple(parts.regions))
    writer = _Writer(parts, style, page)
    writer.add_furniture(furniture.lines, Category.PAGE_HEADER)
    marginal, upright = _sort_turned(_turned_lines(turned), lines, solid, body)
    writer.add_furniture([(line, Category.PAGE_HEADER) for line in marginal], Category.PAGE_HEADER)
    writer.add_flow(lines + upright, solid)
    writer.add_furniture(furniture.lines, Category.PAGE_FOOTER)
    return writer.finish()


def _turned_lines(words: Sequence[Word]) -> list[Line]:
    """Words set upright, run by run of the content stream."""
    runs: list[list[Word]] = []
    for word in words:
        if runs and word.angle == runs[-1][-1].angle:
            near = word.box.expand(1.5 * word.font_size).intersection(runs[-1][-1].box) > 0
            if near:
                runs[-1].append(word)
                continue
        runs.append([word])
    return [Line(tuple(run)) for run in runs]


def _sort_turned(
    turned: Sequence[Line], lines: Sequence[Line], solid: Sequence[_Solid], body: float
) -> tuple[list[Line], list[Line]]:
    """Stamps beside the text, and lines that belong to it (the caption of a sideways table)."""
    if not lines:
        return [], list(turned)
    text = union_all(line.box for line in lines)
    marginal: list[Line] = []
    upright: list[Line] = []
    for line in turned:
        outside = line.box.right < text.left or line.box.left > text.right
        close = any(thing.box.expand(1.5 * body).intersection(line.box) > 0 for thing in solid)
        (marginal if outside and not close else upright).append(line)
    return marginal, upright


class _Writer:
    """Collects elements and numbers them."""

    def __init__(self, parts: Parts, style: Style, page: Box) -> None:
        self.parts = parts
        self.style = style
        self.page = page
        self.vocabulary = _vocabulary(parts.words)
        self.flow: list[Element] = []
        self.notes: list[Element] = []
        self.heads: list[Element] = []
        self.feet: list[Element] = []

    def add_furniture(self, lines: Sequence[tuple[Line, Category]], wanted: Category) -> None:
        into = self.heads if wanted is Category.PAGE_HEADER else self.feet
        for line, category in lines:
            if category is wanted:
                into.append(
                    Element(
                        "",
                        category,
                        line.box,
                        clean(line.text),
                        confidence=round(min(line.confidence, 0.9), 3),
                        font_size=round(line.font_size, 2),
                        rtl=line.rtl,
                    )
                )

    def add_flow(self, lines: Sequence[Line], solid: Sequence[_Solid]) -> None:
        items: list[Item[_Placed]] = [Item(line.box, line.text, line) for line in lines]
        items += [Item(thing.box, "", thing) for thing in solid]
        rtl = is_rtl("".join(line.text for line in lines))
        sequence: list[Block | _Solid] = []
        bars = [rule.box for rule in self.style.rulings if rule.horizontal]
        for zone in order_zones(items, self.style.body, rtl=rtl, bars=bars):
            sequence += self._split_zone(zone)
        blocks = [thing for thing in sequence if isinstance(thing, Block)]
        view = PageView(
            self.page,
            self.style,
            [thing.box for thing in solid],
            self.parts.number == 1,
            max((b.font_size for b in blocks if b.letters > 4), default=0.0),
        )
        kinds = iter(classify(blocks, view))
        for thing in sequence:
            if isinstance(thing, Block):
                self._add_block(thing, next(kinds))
            elif isinstance(thing, Picture):
                self.flow.append(self._picture(thing))
            else:
                self.flow.append(_table(thing))

    def _split_zone(self, zone: Zone[_Placed]) -> list[Block | _Solid]:
        """Runs of lines between the solid things of a column become blocks."""
        out: list[Block | _Solid] = []
        run: list[Item[Line]] = []

        def flush() -> None:
            if run:
                out.extend(
                    split_blocks(
                        join_rows(Zone(zone.box, tuple(run))), _column(run, zone.box), self.style
                    )
                )
                run.clear()

        for item in zone.items:
            value = item.value
            if isinstance(value, Line):
                run.append(Item(item.box, item.text, value))
            else:
                flush()
                out.append(value)
        flush()
        return out

    def _add_block(self, block: Block, kind: Kind) -> None:
        marker: str | None = None
        texts = [line.text for line in block.lines]
        if kind.category is Category.LIST_ITEM and (match := MARKER.match(texts[0])):
            marker, texts[0] = match["marker"], match["rest"]
        text = join_lines(texts, self.vocabulary)
        if not text and not marker:
            return
        into = self.notes if kind.category is Category.FOOTNOTE else self.flow
        into.append(
            Element(
                "",
                kind.category,
                block.box,
                text,
                confidence=round(min(kind.confidence, block.confidence), 3),
                level=kind.level,
                marker=marker,
                font_size=round(block.font_size, 2),
                bold=block.bold,
                continues=self._continues(block, text, kind),
                rtl=is_rtl(text),
            )
        )

    def _continues(self, block: Block, text: str, kind: Kind) -> bool:
        """The text goes on from the foot of the column before."""
        if kind.category is not Category.TEXT:
            return False
        before = next((e for e in reversed(self.flow) if e.category is Category.TEXT), None)
        if before is None or ends_sentence(before.text):
            return False
        between = self.flow[self.flow.index(before) + 1 :]
        if any(
            e.category in (Category.SECTION_HEADER, Category.TITLE, Category.LIST_ITEM)
            for e in between
        ):
            return False
        moved = block.box.top < before.box.bottom - self.style.body
        goes_on = text[0].islower() or text[0].isdigit() or before.text.endswith(("-", ","))
        same = abs((before.font_size or 0) - block.font_size) < 0.1 * block.font_size
        return (moved or bool(between)) and goes_on and same and len(before.text) > 40

    def _picture(self, picture: Picture) -> Element:
        children = tuple(
            Element(
                "",
                Category.TEXT,
                line.box,
                clean(line.text),
                confidence=round(line.confidence, 3),
                font_size=round(line.font_size, 2),
                rtl=line.rtl,
            )
            for line in _lines_within(picture.words)
            if clean(line.text)
        )
        return Element(
            "",
            Category.PICTURE,
            picture.box,
            confidence=round(picture.confidence, 3),
            children=children,
        )

    def finish(self) -> tuple[Element, ...]:
        ordered = self.heads + self.flow + self.notes + self.feet
        numbered = [_number(e, f"p{self.parts.number}-e{i}") for i, e in enumerate(ordered, 1)]
        return tuple(_bind_captions(numbered, self.style.body))


def _column(run: Sequence[Item[Line]], zone: Box) -> Box:
    """The room of a run of lines: its own width where it is much narrower than its zone."""
    box = union_all(item.box for item in run)
    return Box(box.left, zone.top, box.right, zone.bottom) if len(run) > 2 else zone


def _lines_within(words: Sequence[Word]) -> list[Line]:
    level = [w for w in words if abs(w.angle) < 15]
    lines = build_lines(level)
    items = [Item(line.box, line.text, line) for line in lines]
    em = body_size(lines)
    ordered = [item.value for zone in order_zones(items, em) for item in zone.items]
    return ordered + _turned_lines([w for w in words if abs(w.angle) >= 15])


def _vocabulary(words: Sequence[Word]) -> Counter[str]:
    return Counter(m.lower() for w in words for m in _COMPOUND.findall(w.text))


def _table(found: FoundTable) -> Element:
    cells = tuple(_clean_cell(cell) for cell in found.table.cells)
    return Element(
        "",
        Category.TABLE,
        found.box,
        confidence=round(found.confidence, 3),
        table=Table(found.table.rows, found.table.cols, cells),
    )


def _clean_cell(cell: TableCell) -> TableCell:
    return replace(cell, text=clean(cell.text))


def _number(element: Element, name: str) -> Element:
    children = tuple(_number(child, f"{name}.{i}") for i, child in enumerate(element.children, 1))
    return replace(element, id=name, children=children)


def _bind_captions(elements: list[Element], body: float) -> list[Element]:
    """Give each caption the nearest picture or table of its kind that has none yet."""
    out = list(elements)
    taken: set[str] = set()
    for i, caption in enumerate(elements):
        if caption.category is not Category.CAPTION:
            continue
        table_word = bool(re.match(r"tab", caption.text, re.IGNORECASE))
        best: tuple[float, Element] | None = None
        for other in elements:
            if other.category not in (Category.PICTURE, Category.TABLE) or other.id in taken:
                continue
            gap = max(-caption.box.overlap_y(other.box), 0.0)
            gap += max(-caption.box.overlap_x(other.box), 0.0)
            if table_word != (other.category is Category.TABLE):
                gap += 4 * body
            if gap < 9 * body and (best is None or gap < best[0]):
                best = (gap, other)
        if best is not None:
            taken.add(best[1].id)
            out[i] = replace(caption, caption_of=best[1].id)
    return out
