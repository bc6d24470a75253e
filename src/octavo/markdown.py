"""Pages as Markdown: the running text in reading order, tables as pipes or HTML.

Text is escaped only where Markdown would otherwise change what a reader sees, so that the words
can be searched for as they stand on the page. ``render`` holds at most the blocks that a later
page can still add to, so a document of any length streams.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from octavo.escape import escape_inline, escape_start
from octavo.tables import to_markdown
from octavo.types import FURNITURE, Category, Element, PageResult, Table, TableCell

_BULLET_MARKER = "-"
_ORDERED = re.compile(r"\d{1,9}[.)]")
_LATEX = re.compile(r"\\[A-Za-z]+|[_^]\{")
#: Scripts written without spaces: kana, CJK ideographs and their punctuation, full-width forms.
_UNSPACED = re.compile(r"[\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef]")
_JOINED = frozenset(
    {Category.TEXT, Category.LIST_ITEM, Category.FOOTNOTE, Category.CAPTION, Category.TABLE}
)
_DEEPEST_HEADING = 6


@dataclass(slots=True)
class _Block:
    """One element with all that continues it; ``page`` is the page of its last part.

    A block without an element is a comment, which stands as it is.
    """

    page: int
    element: Element | None = None
    comment: str = ""
    caption: str = ""


@dataclass(slots=True)
class _Writer:
    """Turns blocks into text; remembers the list that it is in."""

    crops: Mapping[str, str]
    #: Columns at which the text of each open list item begins.
    indents: list[int] = field(default_factory=list)
    #: The last item was numbered: a number that follows would be counted on.
    counting: bool = False
    empty: bool = True

    def write(self, block: _Block) -> str:
        element = block.element
        if element is not None and element.category is Category.LIST_ITEM:
            within = bool(self.indents)
            return self._part(self._list_item(element), "\n" if within else "\n\n")
        after_list, self.counting = self.counting, False
        self.indents.clear()
        text = self._plain(element, block.caption, after_list) if element else block.comment
        return self._part(text, "\n\n")

    def _part(self, text: str, gap: str) -> str:
        if not text:
            return ""
        out = text if self.empty else gap + text
        self.empty = False
        return out

    def _list_item(self, item: Element) -> str:
        printed = (item.marker or "").strip()
        ordered = _ORDERED.fullmatch(printed)
        self.counting = ordered is not None
        lead = printed if ordered else _BULLET_MARKER
        text = _paragraph(item.text, False)
        if printed and not ordered and any(char.isalnum() for char in printed):
            text = f"{escape_inline(printed)} {text}"
        depth = min(max(item.level or 1, 1), len(self.indents) + 1)
        del self.indents[depth - 1 :]
        indent = self.indents[-1] if self.indents else 0
        self.indents.append(indent + len(lead) + 1)
        return f"{' ' * indent}{lead} {text}".rstrip()

    def _plain(self, element: Element, caption: str, after_list: bool) -> str:
        match element.category:
            case Category.TITLE | Category.SECTION_HEADER:
                return _heading(element)
            case Category.TABLE:
                return _table(element, after_list)
            case Category.FORMULA:
                return self._formula(element)
            case Category.PICTURE:
                return self._picture(element, caption)
            case _:
                return _paragraph(element.text, after_list)

    def _formula(self, element: Element) -> str:
        text = _one_line(element.text)
        if not text:
            crop = self.crops.get(element.id)
            return f"![formula]({crop})" if crop else ""
        return f"$$\n{text}\n$$" if _LATEX.search(text) else _paragraph(text, False)

    def _picture(self, element: Element, caption: str) -> str:
        parts: list[str] = []
        if crop := self.crops.get(element.id):
            alt = re.sub(r"([\\\[\]])", r"\\\1", _one_line(caption)) or "Picture"
            parts.append(f"![{alt}]({crop})")
        if element.text.strip():
            parts.append(_paragraph(element.text, False))
        parts.extend(_inside(element.children))
        return "\n\n".join(part for part in parts if part)


def render(
    pages: Iterable[PageResult],
    *,
    furniture: bool = False,
    crops: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """The document in pieces that make one Markdown text when joined.

    ``<!-- page N -->`` stands where a page begins, except before page 1 when it comes first; a
    failed page leaves a comment with its reason.

    Args:
        furniture: keep running heads, feet and page numbers.
        crops: paths of the pictures' files by element id, as they are to stand in the text.
    """
    writer = _Writer(crops or {})
    waiting: list[_Block] = []
    for at, page in enumerate(pages):
        if not page.failure and (at or page.number != 1):
            waiting.append(_Block(page.number, comment=f"<!-- page {page.number} -->"))
        _add_page(waiting, page, furniture)
        while waiting and waiting[0].page < page.number:
            yield writer.write(waiting.pop(0))
    for block in waiting:
        yield writer.write(block)
    if not writer.empty:
        yield "\n"


def page_markdown(
    page: PageResult, *, furniture: bool = False, crops: Mapping[str, str] | None = None
) -> str:
    """One page, without the comment that names it."""
    writer = _Writer(crops or {})
    blocks: list[_Block] = []
    _add_page(blocks, page, furniture)
    text = "".join(writer.write(block) for block in blocks)
    return text + "\n" if text else ""


def join_text(before: str, after: str) -> str:
    """Two parts of one paragraph as one: a word cut by a hyphen is made whole."""
    before, after = before.rstrip(), after.lstrip()
    if not before or not after:
        return before or after
    if before.endswith("\u00ad"):
        return before[:-1] + after
    if before[-1] in "-\u2010" and before[-2:-1].islower() and after[0].islower():
        return before[:-1] + after
    if _UNSPACED.match(before[-1]) and _UNSPACED.match(after[0]):
        return before + after
    return f"{before} {after}"


def _add_page(blocks: list[_Block], page: PageResult, furniture: bool) -> None:
    if page.failure:
        why = f"{page.failure.error}: {page.failure.what}"
        # Two hyphens could end the comment.
        why = " ".join(why.split()).replace("--", "- -")
        blocks.append(_Block(page.number, comment=f"<!-- page {page.number} failed: {why} -->"))
    captions = {e.caption_of: e.text for e in page.elements if e.caption_of}
    for element in _captions_beside(page.elements):
        if element.category in FURNITURE and not furniture:
            continue
        target = _continued(blocks, element, page.number) if element.continues else None
        if target is not None and target.element is not None:
            target.element = _joined(target.element, element)
            target.page = page.number
        else:
            caption = captions.get(element.id, "")
            blocks.append(_Block(page.number, element, caption=caption))


def _continued(blocks: list[_Block], element: Element, page: int) -> _Block | None:
    """The last block of the category, if it stands on this page or the one before."""
    if element.category not in _JOINED:
        return None
    for block in reversed(blocks):
        if block.element is not None and block.element.category is element.category:
            fits = element.category is not Category.TABLE or _same_columns(block.element, element)
            return block if fits and block.page >= page - 1 else None
    return None


def _same_columns(first: Element, second: Element) -> bool:
    return bool(first.table and second.table and first.table.cols == second.table.cols)


def _joined(first: Element, second: Element) -> Element:
    table = first.table
    if table and second.table:
        table = _stacked(table, second.table)
    return replace(first, text=join_text(first.text, second.text), table=table)


def _stacked(first: Table, second: Table) -> Table:
    """The rows of both; a first row that repeats the heading is left out."""

    def top(table: Table) -> list[tuple[int, str]]:
        return [(cell.col, cell.text) for cell in table.cells if cell.row == 0]

    skip = 1 if top(first) == top(second) and _cuts_cleanly(second) else 0
    moved = [
        replace(cell, row=cell.row - skip + first.rows, header=cell.header and cell.row < skip)
        for cell in second.cells
        if cell.row >= skip
    ]
    cells: tuple[TableCell, ...] = (*first.cells, *moved)
    return Table(first.rows + second.rows - skip, first.cols, cells)


def _cuts_cleanly(table: Table) -> bool:
    return all(cell.row_span == 1 for cell in table.cells if cell.row == 0)


def _captions_beside(elements: tuple[Element, ...]) -> list[Element]:
    """Reading order, with each caption next to its picture or table.

    A caption that stands apart goes to the side from which it was read: before or after.
    """
    places = {element.id: at for at, element in enumerate(elements)}
    strays: list[tuple[Element, bool]] = []
    order: list[Element] = []
    for at, element in enumerate(elements):
        target = places.get(element.caption_of) if element.caption_of else None
        if target is None or abs(target - at) == 1:
            order.append(element)
        else:
            strays.append((element, at > target))
    for caption, after in strays:
        at = next(i for i, element in enumerate(order) if element.id == caption.caption_of)
        order.insert(at + after, caption)
    return order


def _heading(element: Element) -> str:
    # Titles own the first level, so that a page alone and the whole document agree.
    deep = 1 if element.category is Category.TITLE else max(element.level or 1, 1) + 1
    text = escape_inline(_one_line(element.text))
    if text.endswith("#"):
        text = text[:-1] + "\\#"
    return f"{'#' * min(deep, _DEEPEST_HEADING)} {text}" if text else ""


def _table(element: Element, after_list: bool) -> str:
    text = to_markdown(element.table) if element.table else ""
    return text or _lines(element.text.splitlines(), after_list)


def _paragraph(text: str, after_list: bool) -> str:
    return escape_start(escape_inline(_one_line(text)), in_list=after_list)


def _inside(children: tuple[Element, ...]) -> Iterator[str]:
    """The text of a picture: one paragraph of a line for each child, tables on their own."""
    lines: list[str] = []
    for child in children:
        if child.table is None and not child.children:
            lines.append(child.text)
            continue
        yield _lines(lines, False)
        lines = []
        if child.table is None:
            lines.append(child.text)
        else:
            yield to_markdown(child.table)
        yield from _inside(child.children)
    yield _lines(lines, False)


def _lines(lines: Iterable[str], after_list: bool) -> str:
    escaped = (_paragraph(line, after_list) for line in lines)
    # A line of the same paragraph could be read as an underline or as the rule of a table.
    return "\n".join(re.sub(r"^([=|:])", r"\\\1", line) for line in escaped if line)


def _one_line(text: str) -> str:
    return " ".join(text.split())
