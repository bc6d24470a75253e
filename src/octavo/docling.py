"""Pages to a ``DoclingDocument`` and back.

Text, order, categories, boxes, list and heading levels, captions and tables survive both ways.
A ``DoclingDocument`` has no place for confidence, font sizes, reasons and failures: those stay
in the report.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePath

from docling_core.types.doc import (
    BoundingBox,
    ContentLayer,
    CoordOrigin,
    DocItem,
    DocItemLabel,
    DoclingDocument,
    DocumentOrigin,
    FloatingItem,
    FormItem,
    GroupItem,
    InlineGroup,
    KeyValueItem,
    ListGroup,
    ListItem,
    NodeItem,
    PictureItem,
    ProvenanceItem,
    SectionHeaderItem,
    Size,
    TableData,
    TableItem,
    TextItem,
)
from docling_core.types.doc import TableCell as DoclingCell

from octavo.types import FURNITURE, Box, Category, Element, PageResult, Table, TableCell

_LABELS = {
    Category.CAPTION: DocItemLabel.CAPTION,
    Category.FOOTNOTE: DocItemLabel.FOOTNOTE,
    Category.FORMULA: DocItemLabel.FORMULA,
    Category.PAGE_FOOTER: DocItemLabel.PAGE_FOOTER,
    Category.PAGE_HEADER: DocItemLabel.PAGE_HEADER,
    Category.TEXT: DocItemLabel.TEXT,
    Category.TITLE: DocItemLabel.TITLE,
}
#: Every other label holds running text.
_CATEGORIES = {label: category for category, label in _LABELS.items()} | {
    DocItemLabel.CHART: Category.PICTURE,
    DocItemLabel.DOCUMENT_INDEX: Category.TABLE,
    DocItemLabel.FIELD_HEADING: Category.SECTION_HEADER,
    DocItemLabel.LIST_ITEM: Category.LIST_ITEM,
    DocItemLabel.PICTURE: Category.PICTURE,
    DocItemLabel.SECTION_HEADER: Category.SECTION_HEADER,
    DocItemLabel.TABLE: Category.TABLE,
}
_NOWHERE = Box(0.0, 0.0, 0.0, 0.0)
_UINT64 = (1 << 64) - 1


def to_docling(source: str, sha256: str, pages: Iterable[PageResult]) -> DoclingDocument:
    """A document of all pages; a failed page is there with its size only.

    Boxes have their origin at the top left, in page units.
    """
    document = DoclingDocument(name=PurePath(source).stem or source)
    if sha256:
        document.origin = DocumentOrigin(
            mimetype=mimetypes.guess_type(source)[0] or "application/octet-stream",
            binary_hash=int(sha256, 16) & _UINT64,
            filename=source,
        )
    for page in pages:
        size = Size(width=page.width, height=page.height)
        document.add_page(page_no=page.number, size=size)
        _Builder(document, page.number).add(page.elements)
    return document


class _Builder:
    """Adds the elements of one page; ``_lists`` are the open lists, outermost first."""

    def __init__(self, document: DoclingDocument, page: int) -> None:
        self._document = document
        self._page = page
        self._lists: list[ListGroup] = []
        self._made: dict[str, NodeItem] = {}

    def add(self, elements: tuple[Element, ...]) -> None:
        for element in elements:
            self._add(element, None)
        for element in elements:
            target = self._made.get(element.caption_of or "")
            if isinstance(target, FloatingItem):
                target.captions.append(self._made[element.id].get_ref())

    def _add(self, element: Element, parent: NodeItem | None) -> None:
        if element.category is Category.LIST_ITEM and parent is None:
            self._made[element.id] = self._list_item(element)
            return
        self._lists.clear()
        item = self._plain(element, parent)
        self._made[element.id] = item
        for child in element.children:
            self._add(child, item)

    def _plain(self, element: Element, parent: NodeItem | None) -> NodeItem:
        document, place = self._document, self._place(element)
        layer = ContentLayer.FURNITURE if element.category in FURNITURE else ContentLayer.BODY
        match element.category:
            case Category.PICTURE:
                picture: NodeItem = document.add_picture(prov=place, parent=parent)
                if element.text:
                    document.add_text(DocItemLabel.TEXT, element.text, prov=place, parent=picture)
                return picture
            case Category.TABLE:
                table: NodeItem = document.add_table(
                    _table_data(element), prov=place, parent=parent
                )
                return table
            case Category.SECTION_HEADER:
                level = max(element.level or 1, 1)
                heading: NodeItem = document.add_heading(
                    element.text, level=level, prov=place, parent=parent
                )
                return heading
            case _:
                label = _LABELS.get(element.category, DocItemLabel.TEXT)
                item: NodeItem = document.add_text(
                    label, element.text, prov=place, parent=parent, content_layer=layer
                )
                return item

    def _list_item(self, element: Element) -> NodeItem:
        depth = max(element.level or 1, 1)
        del self._lists[depth:]
        while len(self._lists) < depth:
            # A deeper list belongs to the item before it, or to its list if there is none.
            parent: NodeItem | None = self._lists[-1] if self._lists else None
            if isinstance(parent, ListGroup) and parent.children:
                parent = parent.children[-1].resolve(self._document)
            self._lists.append(self._document.add_list_group(parent=parent))
        marker = element.marker or ""
        item: NodeItem = self._document.add_list_item(
            element.text,
            enumerated=any(char.isalnum() for char in marker),
            marker=marker,
            prov=self._place(element),
            parent=self._lists[-1],
        )
        return item

    def _place(self, element: Element) -> ProvenanceItem:
        return ProvenanceItem(
            page_no=self._page, bbox=_bounding(element.box), charspan=(0, len(element.text))
        )


def _bounding(box: Box) -> BoundingBox:
    return BoundingBox(
        l=box.left, t=box.top, r=box.right, b=box.bottom, coord_origin=CoordOrigin.TOPLEFT
    )


def _table_data(element: Element) -> TableData:
    table = element.table
    if table is None:
        # Text without a grid is kept, a line to a row.
        lines = element.text.splitlines()
        cells = tuple(TableCell(row, 0, line) for row, line in enumerate(lines))
        table = Table(len(lines), 1, cells)
    cells_out = [
        DoclingCell(
            bbox=_bounding(cell.box) if cell.box else None,
            row_span=cell.row_span,
            col_span=cell.col_span,
            start_row_offset_idx=cell.row,
            end_row_offset_idx=cell.row + cell.row_span,
            start_col_offset_idx=cell.col,
            end_col_offset_idx=cell.col + cell.col_span,
            text=cell.text,
            column_header=cell.header,
        )
        for cell in table.cells
    ]
    return TableData(table_cells=list(cells_out), num_rows=table.rows, num_cols=table.cols)


def from_docling(document: DoclingDocument) -> tuple[str, tuple[PageResult, ...]]:
    """The name of the source and its pages, in the order of their numbers.

    An item without a place goes to the page of the item before it, with an empty box.
    """
    reader = _Reader(document)
    # Old documents keep running heads in a tree of their own; asking for it by name warns.
    reader.walk(vars(document)["furniture"], 0)
    reader.walk(document.body, 0)
    origin = document.origin
    return origin.filename if origin else document.name, reader.pages()


class _Reader:
    """Walks the tree of a document in reading order."""

    def __init__(self, document: DoclingDocument) -> None:
        self._document = document
        self._page = min(document.pages, default=1)
        self._elements: dict[int, list[Element]] = {number: [] for number in document.pages}
        #: Ids of pictures and tables, by the references of their captions.
        self._captioned: dict[str, str] = {}
        #: References of text items, by the ids of their elements.
        self._references: dict[str, str] = {}

    def pages(self) -> tuple[PageResult, ...]:
        out: list[PageResult] = []
        for number in sorted(self._elements or {1: []}):
            page = self._document.pages.get(number)
            out.append(
                PageResult(
                    number,
                    page.size.width if page else 0.0,
                    page.size.height if page else 0.0,
                    tuple(map(self._linked, self._elements.get(number, ()))),
                    reason="converted from a DoclingDocument",
                )
            )
        return tuple(out)

    def walk(self, node: NodeItem, depth: int) -> None:
        """Adds all below ``node``; ``depth`` is the number of lists around it."""
        for item in self._children(node):
            if item.content_layer is ContentLayer.INVISIBLE:
                continue
            if isinstance(item, InlineGroup):
                self._append(Element("", Category.TEXT, _NOWHERE, self._inline(item)))
            elif isinstance(item, TextItem):
                self._add_text(item, depth)
            elif isinstance(item, PictureItem | TableItem):
                self._add_floating(item)
            elif isinstance(item, FormItem | KeyValueItem):
                text = "\n".join(cell.text for cell in item.graph.cells)
                self._append(Element("", Category.TEXT, _NOWHERE, text), _first(item))
            else:
                self.walk(item, depth + isinstance(item, ListGroup))

    def _add_text(self, item: TextItem, depth: int) -> None:
        inline = [child for child in self._children(item) if isinstance(child, InlineGroup)]
        text = item.text or " ".join(map(self._inline, inline))
        element = Element("", _category(item), _NOWHERE, text)
        if isinstance(item, SectionHeaderItem):
            element = replace(element, level=item.level)
        elif isinstance(item, ListItem):
            element = replace(element, level=max(depth, 1), marker=item.marker or None)
        for at, (part, place) in enumerate(_parts(text, item.prov)):
            placed = self._append(replace(element, text=part, continues=at > 0), place)
            self._references[placed.id] = item.self_ref
        for child in self._children(item):
            # Where the item has no text of its own, the group was its text.
            if item.text or not isinstance(child, InlineGroup):
                self.walk(GroupItem(self_ref="#", children=[child.get_ref()]), depth)

    def _add_floating(self, item: PictureItem | TableItem) -> None:
        table = self._table(item) if isinstance(item, TableItem) else None
        element = self._append(Element("", _category(item), _NOWHERE, table=table), _first(item))
        captions = {reference.cref for reference in item.captions}
        self._captioned.update(dict.fromkeys(captions, element.id))
        apart = captions | {reference.cref for reference in item.footnotes}
        # Text in a picture stays with it; what hangs below a table repeats its cells.
        beside = [reference for reference in item.children if reference.cref in apart]
        if isinstance(item, PictureItem):
            inner = _Reader(self._document)
            inside = [reference for reference in item.children if reference.cref not in apart]
            inner.walk(GroupItem(self_ref="#", children=inside), 0)
            found = [child for page in inner.pages() for child in page.elements]
            at = self._elements[self._page]
            at[-1] = replace(element, children=_renamed(element.id, found))
        self.walk(GroupItem(self_ref="#", children=beside), 0)

    def _append(self, element: Element, place: ProvenanceItem | None = None) -> Element:
        """The element with its id and box, put at the end of its page."""
        if place is not None:
            self._page = place.page_no
        page = self._elements.setdefault(self._page, [])
        name = f"p{self._page}-{len(page) + 1}"
        placed = replace(element, id=name, box=self._box(place))
        if placed.text or placed.category in (Category.PICTURE, Category.TABLE, Category.FORMULA):
            page.append(placed)
        return placed

    def _linked(self, element: Element) -> Element:
        target = self._captioned.get(self._references.get(element.id, ""))
        return replace(element, caption_of=target) if target else element

    def _table(self, item: TableItem) -> Table:
        page = item.prov[0].page_no if item.prov else self._page
        # A cell that spans is listed once for each of its rows by some writers.
        cells = {
            (cell.start_row_offset_idx, cell.start_col_offset_idx): TableCell(
                row=cell.start_row_offset_idx,
                col=cell.start_col_offset_idx,
                text=cell.text,
                row_span=max(cell.end_row_offset_idx - cell.start_row_offset_idx, 1),
                col_span=max(cell.end_col_offset_idx - cell.start_col_offset_idx, 1),
                header=cell.column_header or cell.row_header,
                box=self._top_left(cell.bbox, page) if cell.bbox else None,
            )
            for cell in item.data.table_cells
        }
        ordered = tuple(cells[place] for place in sorted(cells))
        return Table(item.data.num_rows, item.data.num_cols, ordered)

    def _box(self, place: ProvenanceItem | None) -> Box:
        return self._top_left(place.bbox, place.page_no) if place else _NOWHERE

    def _top_left(self, box: BoundingBox, number: int) -> Box:
        page = self._document.pages.get(number)
        if page is not None:
            box = box.to_top_left_origin(page.size.height)
        return Box(box.l, min(box.t, box.b), box.r, max(box.t, box.b))

    def _inline(self, group: NodeItem) -> str:
        """The runs of one paragraph, joined."""
        runs = (
            child.text if isinstance(child, TextItem) else self._inline(child)
            for child in self._children(group)
        )
        return " ".join(run for run in runs if run)

    def _children(self, node: NodeItem) -> list[NodeItem]:
        return [reference.resolve(self._document) for reference in node.children]


def _category(item: DocItem) -> Category:
    category = _CATEGORIES.get(item.label, Category.TEXT)
    if item.content_layer is not ContentLayer.FURNITURE or category in FURNITURE:
        return category
    return category if isinstance(item, FloatingItem) else Category.PAGE_HEADER


def _first(item: DocItem) -> ProvenanceItem | None:
    return item.prov[0] if item.prov else None


def _parts(text: str, places: list[ProvenanceItem]) -> list[tuple[str, ProvenanceItem | None]]:
    """The text by the places where it stands: a paragraph over a page break has two."""
    parts = [(text[slice(*place.charspan)].strip(), place) for place in places]
    if len(parts) < 2 or not all(part for part, _ in parts):
        return [(text, places[0] if places else None)]
    return [*parts]


def _renamed(parent: str, children: list[Element]) -> tuple[Element, ...]:
    return tuple(
        replace(child, id=f"{parent}.{at}", children=_renamed(f"{parent}.{at}", [*child.children]))
        for at, child in enumerate(children, 1)
    )
